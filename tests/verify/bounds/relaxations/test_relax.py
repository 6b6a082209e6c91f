"""Tests of bounds.relaxations.relax: the two lines of a ReLU on ordinary intervals and in every corner."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from assay.verify.bounds.relaxations.lines import Lines
from assay.verify.bounds.relaxations.relax import relax, relaxes
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.ops import Linear, Relu
from assay.verify.core.verifier import Bounds

TINY, HUGE = 1e-310, 1.7e308
EDGES = [-HUGE, -1e154, -1.0, -1e-30, -TINY, -5e-324, -0.0, 0.0, 5e-324, TINY, 1e-30, 1.0, 1e154, HUGE]


def lines(low: float, high: float, dtype: torch.dtype = torch.float64) -> Lines:
    return relax(Relu(), Bounds(torch.tensor([[low]], dtype=dtype), torch.tensor([[high]], dtype=dtype)))


def assert_between(low: float, high: float, lines: Lines) -> None:
    """relu lies between the lines at both ends and at 0, in rational arithmetic, up to roundings of the intercept."""
    numbers = [t.double().item() for t in (lines.slope, lines.slope + lines.slope_gap, lines.intercept_gap)]
    if any(n != n or abs(n) == float("inf") for n in numbers):
        return  # what is not finite decides nothing
    lower, upper, intercept = (Fraction(n) for n in numbers)
    kind = torch.finfo(lines.slope.dtype)
    eps = Fraction(kind.eps)
    for end in {low, high} | ({0.0} if low < 0 < high else set()):
        z = Fraction(end)
        slack = 4 * eps * (abs(z) + abs(intercept)) + 4 * Fraction(kind.smallest_normal) * eps
        assert lower * z <= max(z, Fraction(0)) + slack, (low, high, end)
        assert max(z, Fraction(0)) <= upper * z + intercept + slack, (low, high, end)


@pytest.mark.parametrize(("low", "high"), [(a, b) for a, b in product(EDGES, EDGES) if a <= b])
def test_corners(low: float, high: float) -> None:
    assert_between(low, high, lines(low, high))


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_any_interval(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    assert_between(low, high, lines(low, high))


@given(st.floats(allow_nan=False, allow_infinity=False, width=32), st.floats(-1e3, 1e3, width=32))
def test_any_interval_in_float32(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    assert_between(low, high, lines(low, high, torch.float32))


@pytest.mark.parametrize("high", [1e-3, 1.0, 1e5])
def test_an_active_neuron_is_the_identity(high: float) -> None:
    for low in (0.0, high / 2, high):
        about = lines(low, high)
        assert (about.slope.item(), about.slope_gap.item(), about.intercept_gap.item()) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize("low", [-1e5, -1e-3, -0.0, 0.0])
def test_an_inactive_neuron_is_zero(low: float) -> None:
    for high in {low, -0.0, min(low / 2, 0.0)}:
        about = lines(low, high)
        assert (about.slope.item(), about.slope_gap.item(), about.intercept_gap.item()) == (0.0, 0.0, 0.0)


def test_the_chord_and_the_smaller_triangle() -> None:
    steep, flat = lines(-1.0, 3.0), lines(-3.0, 1.0)
    assert (steep.slope.item(), steep.slope_gap.item(), steep.intercept_gap.item()) == (1.0, -0.25, 0.75)
    assert (flat.slope.item(), flat.slope_gap.item(), flat.intercept_gap.item()) == (0.0, 0.25, 0.75)


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (float("nan"), float("nan")),
        (-1.0, float("nan")),
        (float("nan"), 1.0),
        (-float("inf"), 1.0),
        (-1.0, float("inf")),
        (-float("inf"), float("inf")),
    ],
)
def test_what_is_not_finite_is_not_relaxed_to_something_finite(low: float, high: float) -> None:
    about = lines(low, high)
    assert not bool((about.slope_gap * 0 + about.intercept_gap).isfinite().all())


def test_only_activations_relax() -> None:
    linear = Linear(torch.zeros(1, 1), torch.zeros(1))
    assert relaxes(Relu())
    assert not relaxes(linear)
    with pytest.raises(UnsupportedError, match="Linear"):
        relax(linear, Bounds(torch.zeros(1, 1), torch.zeros(1, 1)))
