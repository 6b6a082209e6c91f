"""Radii in print: a few digits, rounded to the safe side."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from math import inf

DIGITS = 4


def below(value: float) -> str:
    """A few digits, rounded down.

    >>> below(0.123456), above(0.123456), above(float("inf"))
    ('0.1234', '0.1235', 'inf')
    """
    return _rounded(value, ROUND_FLOOR)


def above(value: float) -> str:
    """A few digits, rounded up."""
    return _rounded(value, ROUND_CEILING)


def _rounded(value: float, rounding: str) -> str:
    if value == inf:
        return "inf"
    short = Context(prec=DIGITS, rounding=rounding).create_decimal(Decimal(value))
    return f"{short.normalize():f}"
