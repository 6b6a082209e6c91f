"""Tests of bounds.relaxations.softmax: planes about inverse sums of exponentials."""

from __future__ import annotations

import pytest
import torch

from assay.verify.bounds.interval import propagate
from assay.verify.bounds.relaxations.parameters import parameters
from assay.verify.bounds.relaxations.relax import relax
from assay.verify.core.ops import InverseSumExp
from assay.verify.core.verifier import Bounds
from tests.breadth import seeds
from tests.curved import inside, intervals, outside
from tests.nets import generator

D = torch.float64


@pytest.mark.parametrize("dtype", [D, torch.float32], ids=["double", "single"])
@pytest.mark.parametrize("operands", [1, 2, 10])
@seeds(1, of=5)
def test_values_lie_between_their_planes(dtype: torch.dtype, operands: int, seeds: range) -> None:
    op = InverseSumExp()
    for seed in seeds:
        low, high = intervals(op, 700, seed, dtype, operands)
        low, high = (t[:, None] for t in (low, high))
        z, points = Bounds(low, high), inside(low, high, 60, seed)
        assert not bool((outside(relax(op, z), op, points) > 0).any())
        moved = parameters(op, relax(op, z), z)
        assert moved is not None
        for tensor in moved.tensors():
            tensor.copy_(torch.rand(tensor.shape, generator=generator(seed), dtype=D).mul(1.6).sub(0.3))
        moved.keep()
        assert not bool((outside(moved.lines(), op, points) > 0).any())
        box, value = propagate(op, z), points.logsumexp(-1).neg().exp()
        slack = torch.finfo(dtype).eps * (20 + operands + 2 * points.abs().amax(-1)) * value + 1e-37
        known = (box.lower + box.upper).isfinite()
        assert bool((box.lower <= value + slack)[:, known].all())
        assert bool((value - slack <= box.upper)[:, known].all())


def test_planes_are_never_worse_in_the_middle_than_flat_ones() -> None:
    op = InverseSumExp()
    low, high = intervals(op, 2000, 3, operands=4)
    lines, box = relax(op, Bounds(low, high)), propagate(op, Bounds(low, high))
    middle = low / 2 + high / 2
    assert lines.intercept is not None
    below = (lines.slope * middle).sum(-1) + lines.intercept
    above = below + (lines.slope_gap * middle).sum(-1) + lines.intercept_gap
    slack = 1e-9 * box.upper + 1e-300
    assert bool((below >= box.lower - slack).all())
    assert bool((above <= box.upper + slack).all())


def test_over_boxes_too_wide_for_exponentials_planes_are_flat() -> None:
    low, high = torch.tensor([[0.0, -2000.0]], dtype=D), torch.tensor([[0.0, 2000.0]], dtype=D)
    lines = relax(InverseSumExp(), Bounds(low, high))
    assert lines.intercept is not None
    assert bool((lines.slope == 0).all())
    assert float(lines.intercept) >= -1e-300
    assert float(lines.intercept + lines.intercept_gap) == pytest.approx(1.0)


def test_nan_has_no_planes() -> None:
    low = torch.tensor([[0.0, float("nan")]], dtype=D)
    lines = relax(InverseSumExp(), Bounds(low, low))
    assert not bool(lines.intercept_gap.isfinite().any())
