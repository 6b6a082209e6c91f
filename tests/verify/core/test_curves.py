"""Tests of verify.core.curves: what the table says of each curve, against numbers."""

from __future__ import annotations

from itertools import pairwise
from math import inf, nan

import pytest
import torch

from assay.verify.core.curves import CURVES, curve
from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.ops import Smooth, Step
from tests.curved import ALL_CURVES, named

D = torch.float64
ops = pytest.mark.parametrize("op", ALL_CURVES, ids=named)


def grid(op: Smooth, count: int = 20001, reach: float = 12.0) -> torch.Tensor:
    """Points between which the curve is defined, none of them a turn of it."""
    low = 0.0113 if op.of.domain[0] == 0 else -reach
    x = torch.linspace(low, reach + 0.017, count, dtype=D)
    return x[x.abs() > 0.01] if op.of.poles else x


@ops
def test_the_derivative_is_that_of_the_function(op: Smooth) -> None:
    x = grid(op).requires_grad_()
    (expected,) = torch.autograd.grad(op.of.function(x).sum(), x)
    torch.testing.assert_close(op.of.derivative(x.detach()), expected, rtol=1e-9, atol=1e-13)


@ops
def test_between_its_breaks_the_derivative_rises_or_falls(op: Smooth) -> None:
    """And turns at each of them; so does the function between its turns."""
    x = grid(op)
    for function, marked in ((op.of.derivative, op.of.breaks), (op.of.function, op.of.turns)):
        ends = list(marked)
        if op.of.period:
            ends = sorted(point + k * op.of.period for point in marked for k in range(-3, 4))
        ends = sorted({-inf, *ends, *op.of.poles, inf})
        directions = []
        for low, high in pairwise(ends):
            piece = x[(x > low) & (x < high)]
            if len(piece) < 3:
                continue
            change = function(piece).diff()
            noise = 1e-12 * (1 + function(piece).abs().amax())
            assert not (bool((change > noise).any()) and bool((change < -noise).any())), (low, high)
            directions.append(float(change.sum()))
        turning = [a * b for a, b in pairwise(directions)]
        assert op.of.poles or all(product <= 0 for product in turning)


@pytest.mark.parametrize("op", [op for op in ALL_CURVES if op.curve in ("elu", "hardswish")], ids=named)
def test_at_a_kink_the_derivative_is_that_of_the_convex_side(op: Smooth) -> None:
    for point in op.of.breaks:
        here = op.of.derivative(torch.tensor([point], dtype=D))
        left, right = (op.of.derivative(torch.tensor([point + side], dtype=D)) for side in (-1e-9, 1e-9))
        curved = left if point == 0 or point > 0 else right
        torch.testing.assert_close(here, curved, rtol=0, atol=1e-8)


@ops
def test_values_lie_in_the_image(op: Smooth) -> None:
    for dtype in (D, torch.float32):
        x = torch.cat([grid(op), torch.tensor([80.0, 1e4], dtype=D)]).to(dtype)
        values = op.of.function(x)
        assert bool(((values >= op.of.image[0]) & (values <= op.of.image[1])).all())


@ops
def test_in_float32_a_curve_errs_by_a_few_units_in_the_last_place(op: Smooth) -> None:
    x = grid(op).float()
    exact = op.of.function(x.double())
    size = exact.abs() if op.of.noise is None else exact.abs() + op.of.noise(x.double())
    error = (op.of.function(x).double() - exact).abs()
    assert bool((error <= 8 * 2**-24 * size + 1e-44).all())


def test_softplus_is_what_it_says_far_out() -> None:
    """The library's own takes it for the identity from 20 on."""
    x = torch.tensor([25.0], dtype=D)
    assert float(curve("softplus").function(x) - x) == pytest.approx(float((-x).exp()), rel=1e-3)


@pytest.mark.parametrize(
    ("name", "parameter"), [("elu", 0.0), ("elu", -1.0), ("elu", nan), ("power", 0.0), ("power", inf)]
)
def test_parameters_without_a_meaning_are_refused(name: str, parameter: float) -> None:
    with pytest.raises(InputError, match=name):
        Smooth(name, parameter)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="gelu"):
        Smooth("glue")
    with pytest.raises(InputError, match="sign"):
        Step("jump")
    assert len(CURVES) > 20
