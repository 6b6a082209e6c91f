"""Tests of relaxations.tangents: lines about every curve on intervals of every kind, against points in between."""

from __future__ import annotations

import pytest
import torch

from assay.verify.bounds.relaxations.parameters import parameters
from assay.verify.bounds.relaxations.relax import relax
from assay.verify.bounds.relaxations.tangents import tangents
from assay.verify.core import ranges
from assay.verify.core.ops import Smooth
from assay.verify.core.verifier import Bounds
from tests.breadth import seeds
from tests.curved import ALL_CURVES, inside, intervals, named, outside
from tests.nets import generator

D = torch.float64
ops = pytest.mark.parametrize("op", ALL_CURVES, ids=named)
types = pytest.mark.parametrize("dtype", [D, torch.float32], ids=["double", "single"])


@ops
@types
@seeds(1, of=5)
def test_curves_lie_between_their_lines(op: Smooth, dtype: torch.dtype, seeds: range) -> None:
    for seed in seeds:
        low, high = intervals(op, 1000, seed, dtype)
        lines = relax(op, Bounds(low, high))
        over = outside(lines, op, inside(low, high, 60, seed))
        assert not bool((over > 0).any()), [(low[i], high[i]) for i in (over > 0).any(0).nonzero().flatten()[:3]]
        assert bool(lines.intercept_gap.isfinite().any())


@ops
@types
@seeds(1, of=5)
def test_they_do_wherever_they_are_moved(op: Smooth, dtype: torch.dtype, seeds: range) -> None:
    for seed in seeds:
        low, high = (t[:, None] for t in intervals(op, 500, seed, dtype))
        z = Bounds(low, high)
        moved = parameters(op, relax(op, z), z)
        assert moved is not None
        for size in (1e-9, 0.1, 1.0, 1e3, 1e30):
            for tensor in moved.tensors():
                tensor += size * torch.randn(tensor.shape, generator=generator(seed), dtype=D).to(tensor)
            moved.keep()
            lines = moved.lines()
            over = outside(lines.map(lambda t: t[:, 0]), op, inside(low[:, 0], high[:, 0], 40, seed))
            assert not bool((over > 0).any())


@ops
def test_slopes_are_the_curves_own(op: Smooth) -> None:
    low, high = intervals(op, 3000, 7)
    lines = relax(op, Bounds(low, high))
    least, most = ranges.slopes(op.of, low, high)
    slack = 1e-12 * (1 + torch.maximum(least.abs(), most.abs()))
    known = (lines.slope + lines.slope_gap).isfinite() & slack.isfinite()
    for slope in (lines.slope, lines.slope + lines.slope_gap):
        assert bool(((least - slack <= slope) & (slope <= most + slack))[known].all())


@ops
def test_in_the_middle_no_line_is_higher(op: Smooth) -> None:
    """The lower line meets the convex hull of the curve above the middle, the upper one that of what is above."""
    low, high = intervals(op, 120, 8)
    narrow = (low != 0) & (high - low < 6) & (high - low > 1e-3) & (high.abs() < 8) & (low.abs() < 8)
    low, high = low[narrow], high[narrow]
    share = torch.linspace(0, 1, 801, dtype=D)
    x = torch.lerp(low, high, share[:, None])
    y = op.of.function(x)
    lines = relax(op, Bounds(low, high))
    assert lines.intercept is not None
    middle = low / 2 + high / 2
    below = lines.slope * middle + lines.intercept
    above = below + lines.slope_gap * middle + lines.intercept_gap
    ours = torch.stack([below, -above], 1)
    # The hull above the middle: the lowest chord from a point on the left to one on the right of it.
    for k, values in enumerate((y, -y)):
        left, right = values[:401], values[400:]
        away, on = 0.5 - share[:401], share[400:] - 0.5
        weight = away[:, None] / (away[:, None] + on[None]).clamp(min=1e-12)
        for i in range(len(middle)):
            chords = left[:, i, None] * (1 - weight) + right[None, :, i] * weight
            hull = torch.minimum(chords[:-1, 1:].amin(), values[400, i])
            scale = float(y[:, i].max() - y[:, i].min()) * (50 if op.of.kinks else 1)  # between points there is a kink
            assert float(hull - ours[i, k]) <= 1e-4 * scale + 1e-9, (low[i], high[i])
            assert float(ours[i, k] - hull) <= 1e-4 * scale + 1e-9


@ops
@pytest.mark.parametrize("bad", [(float("nan"), 1.0), (-1.0, float("nan")), (float("nan"), float("nan"))])
def test_nan_never_becomes_lines_that_decide(op: Smooth, bad: tuple[float, float]) -> None:
    low, high = (torch.tensor([end], dtype=D) for end in bad)
    lines = relax(op, Bounds(low, high))
    assert lines.intercept is not None
    assert not bool((lines.slope_gap + lines.intercept_gap + lines.intercept).isfinite().any())


@pytest.mark.parametrize(
    ("op", "low", "high"),
    [
        (Smooth("log"), -1.0, 1.0),
        (Smooth("sqrt"), -1e-12, 1.0),
        (Smooth("reciprocal"), -1.0, 2.0),
        (Smooth("power", -2.0), -1.0, 2.0),
        (Smooth("power", 0.3), -1e-12, 2.0),
    ],
    ids=lambda v: named(v) if isinstance(v, Smooth) else str(v),
)
def test_beyond_its_domain_a_curve_has_no_lines(op: Smooth, low: float, high: float) -> None:
    lines = relax(op, Bounds(torch.tensor([low], dtype=D), torch.tensor([high], dtype=D)))
    assert lines.intercept is not None
    assert not bool(lines.intercept.isfinite().any())


@ops
def test_on_intervals_without_end_lines_hold_or_are_none(op: Smooth) -> None:
    ends = [(-1e300, 1e300), (-1e6, 1e6), (1e6, 1e300), (-1e300, -1e6), (-torch.inf, 0.3), (0.3, torch.inf), (0.0, 0.0)]
    low, high = torch.tensor(ends, dtype=D).T
    lines = relax(op, Bounds(low, high))
    z = torch.stack([low.clamp(min=-1e5), high.clamp(max=1e5), torch.full_like(low, 0.3)])
    z = torch.minimum(torch.maximum(z, low), high)
    assert not bool((outside(lines, op, z) > 0).any())


def test_where_tangents_touch() -> None:
    """Below tanh on [-1, 1], from the upper end; below gelu, where the curve is convex; nowhere where it is concave."""
    low, high = torch.tensor([-1.0, 0.5, -3.0], dtype=D), torch.tensor([1.0, 2.0, 3.0], dtype=D)
    found = tangents(Smooth("tanh").of, 1, low, high)
    assert found.allowed.tolist() == [True, False, True]
    slope, intercept = found.line(found.last)
    assert float(slope[0] + intercept[0]) == pytest.approx(float(torch.tensor(1.0).tanh()), abs=1e-6)
    assert bool(tangents(Smooth("gelu").of, 1, -high, high).allowed.all())
    assert not bool(tangents(Smooth("log").of, 1, high, high + 1).allowed.any())
