"""The size of the batch as a symbol: it may be part of shapes, and what else it is asked refuses the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch

from assay.verify.core.errors import UnsupportedError

OF_BATCH = "the model's code asks for the size of the batch, which is not part of a sample"

# What takes sizes as parts of shapes, by name; of ``full`` the first argument.
SHAPING = {
    *("view", "reshape", "expand", "repeat", "unflatten", "broadcast_to", "tile"),
    *("zeros", "ones", "empty", "new_zeros", "new_ones", "new_empty", "full", "new_full"),
}

Refuse = Callable[[UnsupportedError], NoReturn]


class Size(torch.SymInt):
    """``slope * n + rest`` where n is the size of the batch: it adds up, and answers no question.

    torch's own kind of symbolic number, so that shapes can hold it; no operation of torch is ever given it.
    """

    def __init__(self, slope: int, rest: int, refuse: Refuse) -> None:
        self.slope, self.rest, self.refuse = slope, rest, refuse

    def at(self, count: int) -> int:
        """The number for a batch of ``count``."""
        return self.slope * count + self.rest

    def _of(self, slope: int, rest: int) -> Any:
        return Size(slope, rest, self.refuse) if slope else rest

    def _no(self, *_: object) -> NoReturn:
        self.refuse(UnsupportedError(OF_BATCH))

    def __add__(self, other: Any) -> Any:
        if isinstance(other, Size):
            return self._of(self.slope + other.slope, self.rest + other.rest)
        return self._of(self.slope, self.rest + other) if isinstance(other, int) else self._no()

    def __mul__(self, other: Any) -> Any:
        return self._of(self.slope * other, self.rest * other) if isinstance(other, int) else self._no()

    def __neg__(self) -> Any:
        return self * -1

    def __sub__(self, other: Any) -> Any:
        return self + -other

    def __rsub__(self, other: Any) -> Any:
        return -self + other

    def __floordiv__(self, other: Any) -> Any:
        if isinstance(other, Size):  # both grow in proportion, such as all numbers and the samples
            whole = other.slope and self.slope % other.slope == 0
            quotient = self.slope // other.slope if whole else 0
            return quotient if whole and quotient * other.rest == self.rest else self._no()
        if isinstance(other, int) and other and self.slope % other == 0 and self.rest % other == 0:
            return self._of(self.slope // other, self.rest // other)
        return self._no()

    def __truediv__(self, other: Any) -> Any:
        return float(self // other) if isinstance(other, Size) else self._no()

    def __eq__(self, other: object) -> bool:
        return (isinstance(other, Size) and (self.slope, self.rest) == (other.slope, other.rest)) or self._no()

    def __ne__(self, other: object) -> bool:
        return not self == other

    __radd__, __rmul__ = __add__, __mul__
    __bool__ = __int__ = __index__ = __float__ = __hash__ = _no
    __lt__ = __le__ = __gt__ = __ge__ = __abs__ = _no
    __mod__ = __rmod__ = __pow__ = __rpow__ = __rfloordiv__ = __rtruediv__ = __divmod__ = _no
    __str__ = __repr__ = __format__ = __round__ = __trunc__ = __floor__ = __ceil__ = _no


def symbolic(one: Sequence[int], two: Sequence[int], refuse: Refuse) -> list[Any]:
    """A shape in terms of the size of the batch, from what it is for one sample and for two."""
    if len(one) != len(two):
        refuse(UnsupportedError(OF_BATCH))
    slopes = [b - a for a, b in zip(one, two, strict=True)]
    return [Size(slope, a - slope, refuse) if slope else a for slope, a in zip(slopes, one, strict=True)]
