"""Exact numbers as float64: rounded outward for proofs, so that float64 points are told apart exactly for witnesses.

No float64 lies between the two float64 neighbours of an inexact number. A point below the number is therefore below
its upper neighbour, and the other way round: a bound rounded outward and made strict has the same float64 members.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import gcd, inf, lcm, nextafter
from typing import NamedTuple

from assay.verify.core.errors import InputError
from assay.verify.frontends.vnnlib.formula import Row


def following(value: float, towards: float) -> float:
    """The next float64 in a direction; zero has no sign."""
    return nextafter(value, towards) + 0.0


def neighbours(value: Fraction) -> tuple[float, float]:
    """The largest float64 that is at most ``value`` and the smallest that is at least ``value``.

    Raises :class:`InputError` beyond the range of float64.
    """
    n, d = value.numerator, value.denominator
    try:
        nearest = n / d + 0.0  # correctly rounded; zero has no sign
    except OverflowError:
        raise InputError("a number of the specification is outside of the range of float64") from None
    p, q = nearest.as_integer_ratio()
    error = n * q - p * d
    if error == 0:
        return nearest, nearest
    return (nearest, following(nearest, inf)) if error > 0 else (following(nearest, -inf), nearest)


class HalfSpace(NamedTuple):
    """A row in float64, and whether its coefficients are exact."""

    positions: tuple[int, ...]
    coefficients: tuple[float, ...]
    limit: float
    strict: bool
    exact: bool


def half_space(row: Row) -> HalfSpace:
    """``row`` in float64, never smaller than it is if ``exact``.

    The limit is rounded up. Where a coefficient is no float64, the row is scaled to the smallest integers that are in
    the same ratio, times a power of two; if these do not fit either, the coefficients are rounded to nearest.
    """
    positions, coefficients = zip(*row.terms, strict=True)
    limit = row.limit
    if not fit(coefficients):
        factor = to_small_integers(coefficients)
        scaled = tuple(c * factor for c in coefficients)
        if fit(scaled):
            coefficients, limit = scaled, limit * factor
    below, above = neighbours(limit)
    rounded = tuple(map(float, coefficients))
    return HalfSpace(positions, rounded, above, row.strict or below < above, fit(coefficients))


class Tie(NamedTuple):
    """A comparison of inputs in float64: those within ``limit`` are all that satisfy it and perhaps more, ``strict``
    honoured; those within ``inner``, where it is ``closed`` or not, satisfy it for certain."""

    positions: tuple[int, ...]
    coefficients: tuple[float, ...]
    limit: float
    strict: bool
    inner: float
    closed: bool


def tie(row: Row, reach: Sequence[Fraction]) -> Tie:
    """``row``, of inputs that are no larger than ``reach`` (inputs) in absolute value, in float64.

    It is exact wherever its numbers are, or integers in the same ratio, times a power of two. Otherwise coefficients
    are rounded to nearest, and the limit moves outward, and inward, by what that can amount to.
    """
    positions, coefficients = zip(*row.inputs, strict=True)
    limit = row.limit
    if not fit((*coefficients, limit)):
        for numbers in ((*coefficients, limit), coefficients):
            factor = to_small_integers(numbers)
            if fit([n * factor for n in numbers]):
                coefficients, limit = tuple(c * factor for c in coefficients), limit * factor
                break
    rounded = tuple(map(float, coefficients))
    pairs = zip(positions, coefficients, rounded, strict=True)
    lost = sum((abs(c - Fraction(r)) * reach[i] for i, c, r in pairs), Fraction(0))
    least, most = limit - lost, limit + lost
    below, above = neighbours(least)[0], neighbours(most)[1]
    strict, closed = row.strict or most < above, not row.strict or below < least
    return Tie(positions, rounded, above, strict, below, closed)


def fit(values: Sequence[Fraction]) -> bool:
    """Whether all of them are float64 numbers."""
    return all(below == above for below, above in map(neighbours, values))


def to_small_integers(values: Sequence[Fraction]) -> Fraction:
    """The factor that makes ``values`` coprime integers, over a power of two that brings the largest below 2."""
    common = lcm(*(v.denominator for v in values))
    integers = [v.numerator * (common // v.denominator) for v in values]
    divisor = gcd(*integers)
    largest = max(abs(i) for i in integers) // divisor
    return Fraction(common, divisor << (largest.bit_length() - 1))
