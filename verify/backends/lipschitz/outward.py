"""Float64 numbers made into true upper bounds: outward products, sums, roots and norms."""

from __future__ import annotations

from math import inf, isnan, nextafter, sqrt

from torch import Tensor

from assay.verify.support.floats import TINY, gamma


def up(value: float) -> float:
    """The next number above; infinity for NaN, which bounds nothing."""
    return inf if isnan(value) else nextafter(value, inf)


def times(a: float, b: float) -> float:
    """At least ``a * b``, for numbers >= 0; 0 times anything, infinity too, counts as 0."""
    return 0.0 if a == 0 or b == 0 else up(a * b)


def plus(a: float, b: float) -> float:
    """At least ``a + b``."""
    return up(a + b)


def root(value: float) -> float:
    """At least the square root."""
    return up(sqrt(value)) if value > 0 else 0.0 if value == 0 else inf


def total(values: Tensor, axis: int) -> Tensor:
    """At least the sum of non-negative numbers, any shape, along ``axis``, which is summed away."""
    count = values.shape[axis]
    return values.sum(axis) * (1 + 2 * gamma(count + 2)) + count * TINY


def frobenius(matrix: Tensor) -> float:
    """At least the root of the sum of squares of all entries (any shape), complex too; infinity on overflow."""
    count = matrix.numel()
    square = matrix.abs().square().sum().item()
    return root(up(square * (1 + 4 * gamma(count + 4)) + count * TINY))
