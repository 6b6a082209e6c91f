"""Tests of the confidence bounds: known values, coverage computed exactly or simulated, limits, refusals."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy as np
import pytest
from scipy.stats import binom

from assay.verify.backends.smoothing.confidence import (
    bernstein_lower,
    bernstein_upper,
    clopper_pearson_lower,
    clopper_pearson_upper,
    hoeffding_lower,
    least_successes,
    sequence_lower,
    sequence_upper,
)
from assay.verify.core.errors import InputError

Bound = Callable[[int, int, float], float]


@pytest.mark.parametrize(
    ("k", "n", "alpha", "expected"),
    [
        (100_000, 100_000, 0.001, 0.999930925),
        (99_000, 100_000, 0.001, 0.98898934),
        (90_000, 100_000, 0.001, 0.897036496),
        (990, 1000, 0.001, 0.976036187),
        (1000, 1000, 0.001, 0.993116048),
        (75, 100, 0.05, 0.668678446),
        (0, 100, 0.05, 0.0),
    ],
)
def test_known_clopper_pearson_bounds(k: int, n: int, alpha: float, expected: float) -> None:
    assert clopper_pearson_lower(k, n, alpha) == pytest.approx(expected, abs=1e-9)
    assert clopper_pearson_upper(n - k, n, alpha) == pytest.approx(1 - expected, abs=1e-9)


@pytest.mark.parametrize(
    ("k", "n", "expected"), [(990, 1000, 0.9680351), (9000, 10_000, 0.8848402), (99_000, 100_000, 0.9883172)]
)
def test_known_bounds_of_the_sequence(k: int, n: int, expected: float) -> None:
    assert sequence_lower(k, n, 0.001) == pytest.approx(expected, abs=1e-7)
    assert sequence_upper(n - k, n, 0.001) == pytest.approx(1 - expected, abs=1e-7)
    assert sequence_lower(k, n, 0.001) < clopper_pearson_lower(k, n, 0.001)


def test_the_smallest_count_that_does_not_abstain() -> None:
    assert least_successes(100_000, 0.5, 0.001) == 50_490
    assert least_successes(5, 0.5, 0.001) == 6


@pytest.mark.parametrize("bound", [clopper_pearson_lower, sequence_lower])
@pytest.mark.parametrize("n", [1, 7, 60, 400])
def test_exact_coverage_at_one_look(bound: Bound, n: int) -> None:
    """The probability of an overshoot is a sum over all outcomes: no simulation is needed."""
    for alpha in (0.001, 0.05, 0.3):
        lower = np.array([bound(k, n, alpha) for k in range(n + 1)])
        assert (np.diff(lower) >= 0).all()
        for p in (0.01, 0.3, 0.5, 0.77, 0.95, 0.999):
            assert binom.pmf(np.arange(n + 1), n, p)[lower > p].sum() <= alpha * (1 + 1e-9)


def test_clopper_pearson_cannot_be_improved() -> None:
    """Just below the bound of k the chance of k successes or more is alpha."""
    for k, n in ((3, 5), (80, 100), (100, 100)):
        lower = clopper_pearson_lower(k, n, 0.05)
        assert binom.sf(k - 1, n, lower) == pytest.approx(0.05, rel=1e-9)


def overshoots(p: float, alpha: float, runs: int, n: int, bound: Bound) -> tuple[float, float]:
    """Share of the runs in which a bound exceeds p at any look (after every draw), and at the last look alone."""
    successes = np.random.default_rng(0).random((runs, n)) < p
    totals = successes.cumsum(1)
    # The bound grows with k: an overshoot at n is a count from the first one whose bound exceeds p.
    first = np.array([next((k for k in range(m + 1) if bound(k, m, alpha) > p), m + 1) for m in range(1, n + 1)])
    over = totals >= first
    return float(over.any(1).mean()), float(over[:, -1].mean())


@pytest.mark.parametrize(("p", "alpha"), [(0.5, 0.05), (0.9, 0.05), (0.9, 0.3)])
def test_the_sequence_may_be_watched_and_clopper_pearson_may_not(p: float, alpha: float) -> None:
    runs, n = 4000, 150
    allowed = alpha + 3 * sqrt(alpha * (1 - alpha) / runs)
    at_any_time, _ = overshoots(p, alpha, runs, n, sequence_lower)
    assert at_any_time <= allowed
    peeking, once = overshoots(p, alpha, runs, n, clopper_pearson_lower)
    assert once <= allowed
    assert peeking > allowed


@pytest.mark.parametrize("law", ["beta", "coin", "constant", "rare"])
@pytest.mark.parametrize("n", [20, 500])
def test_coverage_of_bounds_of_a_mean(law: str, n: int) -> None:
    runs, alpha = 3000, 0.05
    random = np.random.default_rng(1)
    draws, mean = {
        "beta": (random.beta(8, 2, (runs, n)), 0.8),
        "coin": ((random.random((runs, n)) < 0.7).astype(float), 0.7),
        "constant": (np.full((runs, n), 0.6), 0.6),
        "rare": ((random.random((runs, n)) < 0.99).astype(float), 0.99),
    }[law]
    means, variances = draws.mean(1).clip(0, 1), draws.var(1, ddof=1)
    allowed = alpha + 3 * sqrt(alpha * (1 - alpha) / runs)
    lower = np.array([bernstein_lower(m, v, n, alpha) for m, v in zip(means, variances, strict=True)])
    upper = np.array([bernstein_upper(m, v, n, alpha) for m, v in zip(means, variances, strict=True)])
    slow = np.array([hoeffding_lower(m, n, alpha) for m in means])
    assert (lower > mean + 1e-12).mean() <= allowed
    assert (upper < mean - 1e-12).mean() <= allowed
    assert (slow > mean + 1e-12).mean() <= allowed


def test_a_small_variance_tightens_the_bernstein_bound() -> None:
    assert bernstein_lower(0.9, 0.001, 10_000, 0.001) > hoeffding_lower(0.9, 10_000, 0.001)
    assert bernstein_lower(0.9, 0.09, 10_000, 0.001) < bernstein_lower(0.9, 0.001, 10_000, 0.001)


@pytest.mark.parametrize("n", [1, 10, 10**6, 10**12])
def test_certainty_is_never_reached(n: int) -> None:
    for bound in (clopper_pearson_lower, sequence_lower):
        assert 0 < bound(n, n, 0.001) < 1


@pytest.mark.parametrize("arguments", [(-1, 10, 0.1), (11, 10, 0.1), (0, 0, 0.1), (5, 10, 0.0), (5, 10, 1.0)])
@pytest.mark.parametrize("bound", [clopper_pearson_lower, clopper_pearson_upper, sequence_lower, sequence_upper])
def test_impossible_counts_are_refused(bound: Bound, arguments: tuple[int, int, float]) -> None:
    with pytest.raises(InputError):
        bound(*arguments)


def test_impossible_means_are_refused() -> None:
    for mean, variance, n in ((1.1, 0.1, 10), (-0.1, 0.1, 10), (0.5, -0.1, 10), (0.5, 0.1, 1), (0.5, float("nan"), 10)):
        with pytest.raises(InputError):
            bernstein_lower(mean, variance, n, 0.05)
    with pytest.raises(InputError):
        hoeffding_lower(2.0, 10, 0.05)
