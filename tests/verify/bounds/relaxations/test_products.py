"""Tests of bounds.relaxations.products: McCormick's planes and what lies between them."""

from __future__ import annotations

import pytest
import torch

from assay.verify.bounds.interval import propagate
from assay.verify.bounds.relaxations.parameters import parameters
from assay.verify.bounds.relaxations.products import planes_about
from assay.verify.bounds.relaxations.relax import relax
from assay.verify.core.ops import Product
from assay.verify.core.verifier import Bounds
from tests.breadth import seeds
from tests.curved import inside, intervals, outside
from tests.nets import generator

D = torch.float64


@pytest.mark.parametrize("dtype", [D, torch.float32], ids=["double", "single"])
@seeds(2, of=10)
def test_products_lie_between_their_planes(dtype: torch.dtype, seeds: range) -> None:
    """However far they are turned; and their intervals are those of the corners."""
    op = Product()
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
        value, box = points.prod(-1), propagate(op, z)
        slack = 4 * torch.finfo(dtype).eps * value.abs()
        assert bool((box.lower <= value + slack).all())
        assert bool((value - slack <= box.upper).all())


def test_the_four_planes() -> None:
    """At 0 and 1 they are McCormick's, which touch the product along two sides each."""
    low, high = torch.tensor([[-1.0, 2.0]], dtype=D), torch.tensor([[3.0, 5.0]], dtype=D)
    for turn, below, above in ((0.0, [5.0, 3.0, -15.0], [2.0, 3.0, -6.0]), (1.0, [2.0, -1.0, 2.0], [5.0, -1.0, 5.0])):
        at = torch.full((1,), turn, dtype=D)
        lines = planes_about(Bounds(low, high), at, at)
        assert lines.intercept is not None
        assert [*lines.slope[0].tolist(), float(lines.intercept)] == pytest.approx(below)
        top = lines.intercept + lines.intercept_gap
        assert [*(lines.slope + lines.slope_gap)[0].tolist(), float(top)] == pytest.approx(above)


def test_with_one_number_fixed_a_product_is_linear() -> None:
    low, high = torch.tensor([[2.0, -1.0]], dtype=D), torch.tensor([[2.0, 4.0]], dtype=D)
    lines = relax(Product(), Bounds(low, high))
    z = inside(low, high, 20)
    assert lines.intercept is not None
    gap = (lines.slope_gap * z).sum(-1) + lines.intercept_gap
    assert float(gap.max()) < 1e-13


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_has_no_planes(bad: float) -> None:
    low, high = torch.tensor([[bad, 1.0]], dtype=D), torch.tensor([[bad, 2.0]], dtype=D)
    assert not bool(relax(Product(), Bounds(low, high)).intercept_gap.isfinite().any())
