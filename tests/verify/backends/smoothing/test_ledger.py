"""Tests of the ledger of alpha: what it hands out, and the three habits that it refuses."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from assay.verify.backends.smoothing.confidence import clopper_pearson_lower, sequence_lower
from assay.verify.backends.smoothing.ledger import Draw, Ledger, LedgerError


def pair() -> tuple[Draw, Draw]:
    return Draw("the pilot", [70, 20, 10]), Draw("the estimate", [8000, 1500, 500])


def test_two_stages_cost_alpha_once() -> None:
    pilot, estimate = pair()
    ledger = Ledger(0.001)
    assert ledger.choose(pilot) == 0
    assert ledger.lower(estimate, 0) == clopper_pearson_lower(8000, 10_000, 0.001)
    assert ledger.left == 0
    assert [(name, use.value, alpha) for name, use, alpha in ledger.entries] == [
        ("the pilot", "choice", 0.0),
        ("the estimate", "bound", 0.001),
    ]


def test_the_draw_of_the_choice_bounds_nothing() -> None:
    pilot, _ = pair()
    ledger = Ledger(0.001)
    label = ledger.choose(pilot)
    with pytest.raises(LedgerError, match="the pilot has served as choice"):
        ledger.lower(pilot, label)


def test_a_second_look_is_refused() -> None:
    _, estimate = pair()
    ledger = Ledger(0.001)
    ledger.lower(estimate, 0, share=0.0005)
    with pytest.raises(LedgerError, match="the estimate has served as bound"):
        ledger.lower(estimate, 0, share=0.0005)
    with pytest.raises(LedgerError):
        ledger.watch(estimate, 0)


def test_the_best_of_several_needs_shares() -> None:
    ledger = Ledger(0.001)
    ledger.lower(Draw("first", [90, 10]), 0)
    with pytest.raises(LedgerError, match=r"0 of 0\.001 is left"):
        ledger.lower(Draw("second", [95, 5]), 0)
    split = Ledger(0.001)
    for name in ("first", "second"):
        split.lower(Draw(name, [90, 10]), 0, share=0.0005)
    with pytest.raises(LedgerError):
        split.lower(Draw("third", [90, 10]), 0, share=1e-6)


def test_equal_counts_of_another_draw_are_another_draw() -> None:
    ledger = Ledger(0.001)
    ledger.choose(Draw("a", [5, 5]))
    assert ledger.lower(Draw("a", [5, 5]), 0) > 0


def test_a_sequence_is_paid_once_and_watched_often() -> None:
    ledger = Ledger(0.001)
    draw = Draw("the stream", [0, 0])
    for _ in range(5):
        draw.counts[0] += 99
        draw.counts[1] += 1
        assert ledger.watch(draw, 0) == sequence_lower(draw.counts[0], draw.n, 0.001)
    assert ledger.left == 0
    with pytest.raises(LedgerError):
        ledger.lower(draw, 0)


def test_choosing_and_bounding_on_one_draw_costs_a_share_for_each_class() -> None:
    _, estimate = pair()
    assert Ledger(0.003).lower_of_any(estimate) == (0, clopper_pearson_lower(8000, 10_000, 0.001))
    bounds = Ledger(0.006).all_bounds(Draw("again", [8000, 1500, 500]))
    assert bounds[0][0] == clopper_pearson_lower(8000, 10_000, 0.001)
    assert bounds[1][1] == pytest.approx(1 - clopper_pearson_lower(8500, 10_000, 0.001))


def test_simultaneous_bounds_cover() -> None:
    runs, alpha, n = 2000, 0.1, 60
    truth = [0.4, 0.35, 0.25]
    counts = np.random.default_rng(0).multinomial(n, truth, runs).tolist()
    wrong_all = wrong_any = wrong_naive = 0
    for row in counts:
        bounds = Ledger(alpha).all_bounds(Draw("draw", row))
        wrong_all += any(low > p or high < p for (low, high), p in zip(bounds, truth, strict=True))
        label, lower = Ledger(alpha).lower_of_any(Draw("draw", row))
        wrong_any += lower > truth[label]
        wrong_naive += clopper_pearson_lower(max(row), n, alpha) > truth[int(np.argmax(row))]
    allowed = alpha + 3 * sqrt(alpha * (1 - alpha) / runs)
    assert wrong_all / runs <= allowed
    assert wrong_any / runs <= allowed
    assert wrong_naive / runs > allowed, "choosing the class on the same draw breaks the plain bound"


def test_bounds_of_two_draws_hold_together() -> None:
    """Half of alpha for p from below, the other half for both sides of q, as double sampling takes them."""
    runs, alpha, n, p, q = 4000, 0.2, 80, 0.8, 0.9
    random = np.random.default_rng(0)
    wrong = 0
    for first, second in zip(random.binomial(n, p, runs).tolist(), random.binomial(n, q, runs).tolist(), strict=True):
        ledger = Ledger(alpha)
        lower = ledger.lower(Draw("wide", [first, n - first]), 0, alpha / 2)
        low, high = ledger.both_sides(Draw("narrow", [second, n - second]), 0, alpha / 2)
        assert ledger.left == pytest.approx(0)
        wrong += lower > p or low > q or high < q
    assert wrong / runs <= alpha + 3 * sqrt(alpha * (1 - alpha) / runs)
    assert wrong / runs > alpha / 4, "bounds that are never wrong would be no test"


def test_bounds_that_the_caller_computes_are_paid_for_too() -> None:
    pilot, estimate = pair()
    ledger = Ledger(0.001)
    ledger.choose(pilot)
    assert ledger.pay(estimate, 0.0004) == 0.0004
    assert ledger.left == pytest.approx(0.0006)
    for draw in (pilot, estimate):
        with pytest.raises(LedgerError, match="has served as"):
            ledger.pay(draw, 0.0001)
    with pytest.raises(LedgerError, match="give each of several bounds"):
        ledger.pay(Draw("another", [1, 0]), 0.001)
