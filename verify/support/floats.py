"""The errors of float64 arithmetic, rounded to nearest (Higham 2002, chapter 3)."""

from __future__ import annotations

from math import inf

from torch import Tensor

UNIT = 2.0**-53  # relative error of one operation
TINY = 2.0**-1022  # the smallest normal number: what underflows errs by no more, even where it is flushed to zero


def gamma(n: int) -> float:
    """Bound on the relative error of a sum of n products; infinity where n is so large that there is none."""
    share = n * UNIT
    return share / (1 - share) if share < 0.1 else inf


def down(value: Tensor) -> Tensor:
    """The next number below."""
    return value.nextafter(value.new_tensor(-inf))


def up(value: Tensor) -> Tensor:
    """The next number above."""
    return value.nextafter(value.new_tensor(inf))
