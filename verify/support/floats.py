"""The errors of float64 arithmetic, rounded to nearest (Higham 2002, chapter 3)."""

from __future__ import annotations

from fractions import Fraction
from math import fsum, inf

import torch
from torch import Tensor

UNIT = 2.0**-53  # relative error of one operation
TINY = 2.0**-1022  # the smallest normal number: what underflows errs by no more, even where it is flushed to zero


def gamma(n: int, unit: float = UNIT) -> float:
    """Bound on the relative error of a sum of n products, each operation of relative error ``unit``; infinity where n
    is so large that there is none."""
    share = n * unit
    return share / (1 - share) if share < 0.1 else inf


def down(value: Tensor) -> Tensor:
    """The next number below each, of the shape of ``value``."""
    return value.nextafter(value.new_tensor(-inf))


def up(value: Tensor) -> Tensor:
    """The next number above each, of the shape of ``value``."""
    return value.nextafter(value.new_tensor(inf))


MODERATE = 2.0**450  # between its inverse and itself the product of two numbers has an error that is a number, too
SPLIT = 2.0**27 + 1


def two_product(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """``x * y`` and its rounding error, whose sum is the product exactly (Dekker 1971): of numbers that are zero or
    of :data:`MODERATE` size, float64, same shapes."""
    (high, low), (tall, short) = _halves(x), _halves(y)
    product = x * y
    return product, ((high * tall - product) + high * short + low * tall) + low * short


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    scaled = SPLIT * x
    high = scaled - (scaled - x)
    return high, x - high


def signs(x: Tensor, y: Tensor, b: Tensor) -> list[int]:
    """The signs, -1, 0 or 1, of the sums ``x[i] @ y[i] - b[i]``, exactly: x, y (sums x products), b (sums), finite."""
    small, large = 1 / MODERATE, MODERATE
    zero = (x == 0) | (y == 0)
    fit = zero | ((x.abs() > small) & (x.abs() < large) & (y.abs() > small) & (y.abs() < large))
    whole = fit.all(1) & (b.abs() < large)
    x, y = x.masked_fill(zero, 0.0), y.masked_fill(zero, 0.0)
    terms = torch.cat([*two_product(x, y), -b[:, None]], 1).tolist()
    totals = (
        fsum(terms[i]) if exact else _total(x[i].tolist(), y[i].tolist(), b[i].item())
        for i, exact in enumerate(whole.tolist())
    )
    return [(total > 0) - (total < 0) for total in totals]


def _total(x: list[float], y: list[float], b: float) -> Fraction:
    return sum((Fraction(v) * Fraction(w) for v, w in zip(x, y, strict=True) if v), -Fraction(b))


def length(values: Tensor, p: float, dim: int = -1, keepdim: bool = False) -> Tensor:
    """The norm of order ``p`` in {1, 2, inf} along ``dim``, right to a few units in the last place at every scale.

    Values are scaled by a power of two, which is exact, before they are squared: the square of 1e-170 is no number of
    float64, nor is that of 1e170.
    """
    if values.shape[dim] == 0:
        return values.new_zeros(values.sum(dim, keepdim=keepdim).shape)
    if p == 1:
        return values.abs().sum(dim, keepdim=keepdim)
    if p == inf:
        return values.abs().amax(dim, keepdim=keepdim)
    if p != 2:
        raise ValueError(f"expected a norm of order 1, 2 or inf, got {p}")
    exponent = torch.frexp(values.abs().amax(dim, keepdim=True)).exponent
    size = _shifted(values, -exponent).square().sum(dim, keepdim=True).sqrt()
    norm = _shifted(size, exponent)
    return norm if keepdim else norm.squeeze(dim)


def _shifted(values: Tensor, exponent: Tensor) -> Tensor:
    """``values * 2**exponent``, in two steps: a power alone may be out of range where the product is not. Powers are
    factors of their own, since ldexp itself has no derivative."""
    half = exponent.div(2, rounding_mode="floor")
    one = torch.ones_like(exponent, dtype=values.dtype)
    return values * torch.ldexp(one, half) * torch.ldexp(one, exponent - half)
