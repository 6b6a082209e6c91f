"""Tests of verify.core.ranges: values and slopes of curves over intervals, against points in between."""

from __future__ import annotations

from math import inf, sin

import pytest
import torch

from assay.verify.core import ranges
from assay.verify.core.curves import curve
from assay.verify.core.ops import Smooth
from tests.breadth import seeds
from tests.curved import ALL_CURVES, inside, intervals, named

D = torch.float64


@pytest.mark.parametrize("op", ALL_CURVES, ids=named)
@seeds(1, of=9)
def test_all_values_and_slopes_lie_in_their_range(op: Smooth, seeds: range) -> None:
    for seed in seeds:
        low, high = intervals(op, 1000, seed)
        z = inside(low, high, 60, seed)
        for found, function in ((ranges.values, op.of.function), (ranges.slopes, op.of.derivative)):
            least, most = found(op.of, low, high)
            value = function(z)
            more = 0.0 if op.of.noise is None else op.of.noise(z)
            slack = 32 * torch.finfo(D).eps * (value.abs() + more).nan_to_num(0.0, 0.0)
            assert bool((least - slack <= value).all())
            assert bool((value <= most + slack).all())


@pytest.mark.parametrize("op", [op for op in ALL_CURVES if not op.of.poles and op.of.domain[0] < 0], ids=named)
def test_ranges_are_no_wider_than_they_must_be(op: Smooth) -> None:
    low, high = intervals(op, 300, 3)
    narrow = (high - low < 5) & (high.abs() < 50)
    low, high = low[narrow], high[narrow]
    share = torch.linspace(0, 1, 4001, dtype=D)[:, None]
    values = op.of.function(torch.lerp(low, high, share))
    least, most = ranges.values(op.of, low, high)
    size = 1e-5 * (1 + values.abs().amax(0))
    assert bool((values.amin(0) - least <= size).all())
    assert bool((most - values.amax(0) <= size).all())


@pytest.mark.parametrize(
    ("op", "low", "high"),
    [
        (Smooth("log"), -1e-9, 1.0),
        (Smooth("sqrt"), -1e-300, 1.0),
        (Smooth("reciprocal"), -1.0, 1.0),
        (Smooth("reciprocal"), 0.0, 1.0),
        (Smooth("reciprocal"), -1.0, 0.0),
        (Smooth("power", -0.5), 0.0, 1.0),
        (Smooth("power", -2.0), -1.0, 1.0),
        (Smooth("power", 1.5), -1.0, 1.0),
        (Smooth("tanh"), float("nan"), 1.0),
        (Smooth("gelu"), -1.0, float("nan")),
    ],
    ids=lambda v: named(v) if isinstance(v, Smooth) else str(v),
)
def test_where_a_curve_is_not_defined_nothing_is_known(op: Smooth, low: float, high: float) -> None:
    ends = torch.tensor([low], dtype=D), torch.tensor([high], dtype=D)
    for found in (ranges.values, ranges.slopes):
        assert all(bool(side.isnan()) for side in found(op.of, *ends))


def test_a_function_that_repeats() -> None:
    sine = curve("sin")
    low = torch.tensor([0.1, 3.3, 1e9, 1.6], dtype=D)
    high = torch.tensor([2.0, 6.0, 1e9 + 7, 1.7], dtype=D)
    least, most = ranges.values(sine, low, high)
    assert most.tolist() == pytest.approx([1.0, sin(3.3), 1.0, sin(1.6)])
    assert least.tolist() == pytest.approx([sin(0.1), -1.0, -1.0, sin(1.7)])


def test_slopes_over_all_numbers() -> None:
    assert ranges.slopes_everywhere(curve("tanh")) == (0.0, 1.0)
    least, most = ranges.slopes_everywhere(curve("gelu"))
    assert (least, most) == (pytest.approx(-0.128904, abs=1e-6), pytest.approx(1.128904, abs=1e-6))
    assert ranges.slopes_everywhere(curve("sin")) == pytest.approx((-1.0, 1.0))
    for endless in ("exp", "square", "log", "reciprocal", "sqrt"):
        assert ranges.slopes_everywhere(curve(endless)) == (-inf, inf)
