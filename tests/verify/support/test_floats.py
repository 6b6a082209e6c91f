"""Exact sums of products beside fractions, at every scale."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor

from assay.verify.support.floats import MODERATE, signs, two_product
from tests import nets


def numbers(seed: int, *shape: int, span: int) -> Tensor:
    """Some are zero; the others lie within 2 ** +-span, which may be beyond what float64 holds at the lower end."""
    rng = nets.generator(seed)
    size = 2.0 ** torch.randint(-span, min(span, 1000) + 1, shape, generator=rng).double()
    values = torch.randn(shape, generator=rng, dtype=torch.float64) * size
    return values.masked_fill(torch.rand(shape, generator=rng) < 0.1, 0.0)


def exactly(x: list[float], y: list[float], b: float) -> int:
    total = sum((Fraction(v) * Fraction(w) for v, w in zip(x, y, strict=True)), -Fraction(b))
    return (total > 0) - (total < 0)


@pytest.mark.parametrize("span", [0, 40, 440])
def test_a_product_and_its_error_are_the_product(span: int) -> None:
    x, y = numbers(0, 200, span=span), numbers(1, 200, span=span)
    fit = ((x == 0) | ((x.abs() > 1 / MODERATE) & (x.abs() < MODERATE))) & (y.abs() < MODERATE)
    product, error = two_product(x[fit], y[fit])
    assert bool((error != 0).any())
    for v, w, p, e in zip(x[fit].tolist(), y[fit].tolist(), product.tolist(), error.tolist(), strict=True):
        assert Fraction(v) * Fraction(w) == Fraction(p) + Fraction(e)


@pytest.mark.parametrize("span", [0, 30, 500, 1000, 1060])
def test_signs_are_those_of_fractions(span: int) -> None:
    """Of sums that cancel, too: next to nothing is left of every other one, or nothing at all."""
    x, y = numbers(0, 120, 5, span=span), numbers(1, 120, 5, span=span)
    b = numbers(2, 120, span=span)
    x[::2, 3:], y[::2, 3:] = -x[::2, :2], y[::2, :2]
    x[::2, 2], b[::2] = torch.where(torch.arange(60) % 3 == 0, 0.0, 2.0**-300), 0.0
    expected = [exactly(*row) for row in zip(x.tolist(), y.tolist(), b.tolist(), strict=True)]
    assert {-1, 0, 1} == set(expected)
    assert signs(x, y, b) == expected
