"""Tests of bounds.relaxations.normalised: planes about a value over the root of a mean square."""

from __future__ import annotations

import pytest
import torch

from assay.verify.bounds.interval import propagate
from assay.verify.bounds.relaxations.parameters import parameters
from assay.verify.bounds.relaxations.relax import relax
from assay.verify.core.errors import InputError
from assay.verify.core.ops import Normalised, evaluate
from assay.verify.core.roundings import drift
from assay.verify.core.verifier import Bounds
from tests.breadth import seeds
from tests.curved import inside, intervals, outside
from tests.nets import generator

D = torch.float64


@pytest.mark.parametrize("dtype", [D, torch.float32], ids=["double", "single"])
@seeds(2, of=10)
def test_values_lie_between_planes(dtype: torch.dtype, seeds: range) -> None:
    """Of any slopes; and within intervals, whose ends are taken."""
    op = Normalised(5)
    for seed in seeds:
        low, high = intervals(op, 1000, seed, dtype)
        z = Bounds(low, high)
        points = inside(low, high, 60, seed)
        assert not bool((outside(relax(op, z), op, points) > 0).any())
        moved = parameters(op, relax(op, z), z)
        assert moved is not None
        for tensor in moved.tensors():
            tensor.copy_(torch.rand(tensor.shape, generator=generator(seed), dtype=D).mul(1.6).sub(0.3))
        moved.keep()
        assert not bool((outside(moved.lines(), op, points) > 0).any())
        value, box = evaluate(op, points), propagate(op, z)
        slack = 8 * torch.finfo(dtype).eps * value.abs()
        assert bool((box.lower <= value + slack).all())
        assert bool((value - slack <= box.upper).all())
        corners = torch.stack(
            [torch.stack([x, s], -1) for x in (low[:, 0], high[:, 0]) for s in (low[:, 1], high[:, 1])]
        )
        ends = evaluate(op, corners)
        near = {"rtol": 4 * torch.finfo(dtype).eps, "atol": 0.0}
        torch.testing.assert_close(box.lower, ends.amin(0), **near)
        torch.testing.assert_close(box.upper, ends.amax(0), **near)


def test_planes_touch() -> None:
    """No plane of the same slopes fits that is further in: on a fine grid the function comes next to it."""
    op = Normalised(3)
    low, high = intervals(op, 60, 3)
    z = Bounds(low, high)
    share = torch.linspace(0, 1, 201, dtype=D)
    grid = torch.cartesian_prod(share, share)[:, None]
    points = torch.lerp(low, high, grid)
    lines, value = relax(op, z), evaluate(op, points)
    assert lines.intercept is not None
    below = value - (lines.slope * points).sum(-1) - lines.intercept
    above = (lines.slope_gap * points).sum(-1) + lines.intercept_gap - below
    room = 0.02 * (value.amax(0) - value.amin(0)) + 1e-6
    assert bool((below.amin(0) <= room).all())
    assert bool((above.amin(0) <= room).all())


def test_its_gradient_is_that_of_the_planes() -> None:
    op = Normalised(4)
    low, high = intervals(op, 40, 5)
    z, at = Bounds(low[None], high[None]), torch.lerp(low, high, 0.3)[None]
    moved = parameters(op, relax(op, z), z)
    assert moved is not None
    rng = generator(1)
    coef = torch.randn(1, 40, generator=rng, dtype=D)
    for tensor in moved.tensors():
        tensor.copy_(0.2 + 0.6 * torch.rand(tensor.shape, generator=rng, dtype=D))

    def bound() -> torch.Tensor:
        lines = moved.lines()
        assert lines.intercept is not None
        low = (lines.slope * at).sum(-1) + lines.intercept
        return coef.clamp(min=0) * low + coef.clamp(max=0) * (
            low + (lines.slope_gap * at).sum(-1) + lines.intercept_gap
        )

    for tensor, gradient in zip(moved.tensors(), moved.gradient(coef, at), strict=True):
        for operand in (0, 1):
            step = torch.zeros_like(tensor)
            step[..., operand] = 1e-5
            before, kept = bound(), tensor.clone()
            tensor.add_(step)
            rise = (bound() - before) / 1e-5
            tensor.copy_(kept)
            close = (rise - gradient[..., operand]).abs() <= 1e-3 * (1e-4 + rise.abs().amax())
            assert close.double().mean() > 0.9  # a corner may be left for another on the way


def test_without_anything_above_zero_nothing_is_known() -> None:
    z = Bounds(torch.tensor([[-1.0, 0.0]], dtype=D), torch.tensor([[1.0, 2.0]], dtype=D))
    box, lines = propagate(Normalised(2), z), relax(Normalised(2), z)
    assert box.lower.isnan().all()
    assert lines.intercept is not None
    assert lines.intercept.isnan().all()
    with pytest.raises(InputError, match="at least one value"):
        Normalised(0)


@seeds(1, of=5)
def test_errors_grow_no_faster_than_is_said(seeds: range) -> None:
    op = Normalised(6)
    for seed in seeds:
        low, high = intervals(op, 500, seed)
        error = (1e-3 * torch.rand(low.shape, generator=generator(seed), dtype=D)).minimum(low[:, 1:] / 2)
        x = inside(low, high, 30, seed)
        sign = 2 * torch.randint(0, 2, x.shape, generator=generator(seed)) - 1
        moved = (evaluate(op, x + sign * error) - evaluate(op, x)).abs().amax(0)
        assert bool((moved <= drift(op, low, high, error) + 1e-12).all())


@pytest.mark.parametrize("dtype", [D, torch.float32], ids=["double", "single"])
def test_values_lie_between_planes_whatever_their_size(dtype: torch.dtype) -> None:
    """Powers of what the sums of squares are overflow, or vanish."""
    rng, most = generator(0), 300 if dtype == D else 36
    draw = torch.rand(5, 3000, generator=rng, dtype=D)
    size = 10 ** ((draw[0] - 0.5) * most)
    x = torch.stack([draw[1], draw[1] + draw[2] * (draw[2] > 0.3)], -1).sub(0.7) * size[:, None]
    least = size.square() * 10 ** (16 * (draw[3] - 0.5))
    s = torch.stack([least, least * (1 + 10 ** (8 * draw[4]))], -1)
    ends = torch.stack([x, s], 1).to(dtype)
    ends = ends[((ends[:, 1] > 0) & ends.isfinite().all(1)).all(1)]
    z = Bounds(*ends.unbind(-1))
    lines = relax(Normalised(3), z)
    assert lines.intercept is not None
    for share in torch.rand(40, *z.lower.shape, generator=rng, dtype=D).mul(1.5).sub(0.25).clamp(0, 1):
        point = torch.lerp(z.lower.double(), z.upper.double(), share)
        value = 3**0.5 * point[:, 0].sign() * (1 + point[:, 1] / point[:, 0] / point[:, 0]).rsqrt()
        low = (lines.slope.double() * point).sum(-1) + lines.intercept.double()
        high = low + (lines.slope_gap.double() * point).sum(-1) + lines.intercept_gap.double()
        slack = torch.finfo(dtype).eps * (value.abs() + (lines.slope.double() * point).abs().sum(-1))
        known = low.isfinite() & high.isfinite() & value.isfinite()
        assert not bool((known & (low - slack > value)).any())
        assert not bool((known & (high + slack < value)).any())
