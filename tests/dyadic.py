"""Numbers ``n / 2**e``, exactly: what floats, their sums and their products are, several times as fast as fractions."""

from __future__ import annotations

from fractions import Fraction
from typing import Any


class Dyadic:
    """``numerator / 2**exponent``, the exponent at least 0; not in lowest terms."""

    __slots__ = ("exponent", "numerator")

    def __init__(self, numerator: int, exponent: int = 0) -> None:
        self.numerator, self.exponent = numerator, exponent

    @classmethod
    def of(cls, value: float) -> Dyadic:
        """A finite float, or an int.

        >>> Dyadic.of(0.75).fraction, (Dyadic.of(0.5) * 3 - 1.25).fraction
        (Fraction(3, 4), Fraction(1, 4))
        """
        numerator, denominator = value.as_integer_ratio()
        return cls(numerator, denominator.bit_length() - 1)

    @property
    def fraction(self) -> Fraction:
        """In lowest terms."""
        return Fraction(self.numerator, 1 << self.exponent)

    def __float__(self) -> float:
        return self.numerator / (1 << self.exponent)

    def __bool__(self) -> bool:
        return self.numerator != 0

    def __neg__(self) -> Dyadic:
        return Dyadic(-self.numerator, self.exponent)

    def __mul__(self, other: Any) -> Any:
        if other.__class__ is not Dyadic:
            if not isinstance(other, (int, float)):
                return NotImplemented
            other = Dyadic.of(other)
        numerator = self.numerator * other.numerator
        return Dyadic(numerator, self.exponent + other.exponent if numerator else 0)

    __rmul__ = __mul__

    def __add__(self, other: Any) -> Any:
        if other.__class__ is not Dyadic:
            if not isinstance(other, (int, float)):
                return NotImplemented
            other = Dyadic.of(other)
        further = self.exponent - other.exponent
        if further >= 0:
            return Dyadic(self.numerator + (other.numerator << further), self.exponent)
        return Dyadic((self.numerator << -further) + other.numerator, other.exponent)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return self + -other

    def __rsub__(self, other: Any) -> Any:
        return -self + other

    def _compared(self, other: Any) -> int:
        """A number with the sign of the difference."""
        if other.__class__ is not Dyadic:
            other = Dyadic.of(other)
        further = self.exponent - other.exponent
        if further >= 0:
            return self.numerator - (other.numerator << further)
        return (self.numerator << -further) - other.numerator

    def __lt__(self, other: Any) -> bool:
        return self._compared(other) < 0

    def __le__(self, other: Any) -> bool:
        return self._compared(other) <= 0

    def __gt__(self, other: Any) -> bool:
        return self._compared(other) > 0

    def __ge__(self, other: Any) -> bool:
        return self._compared(other) >= 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (Dyadic, int, float)) and self._compared(other) == 0

    __hash__ = None  # type: ignore[assignment]
