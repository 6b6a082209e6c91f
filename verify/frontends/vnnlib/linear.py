"""Linear terms over inputs X and outputs Y, exact."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from math import prod
from typing import NamedTuple

from assay.verify.core.errors import InputError, ResourceError, UnsupportedError

NUMBER = r"[+-]?+(?:\d++\.?+\d*+|\.\d++)(?:[eE][+-]?+\d++)?+"
MAX_DIGITS = 2000  # of one number; the exact value of the smallest float64 has 751
MAX_BITS = 2**15  # of a product
LARGEST = Fraction(sys.float_info.max)
ZERO, ONE = Fraction(0), Fraction(1)

_NUMBER = re.compile(NUMBER, re.ASCII)


class Variable(NamedTuple):
    """``X_position`` or ``Y_position``."""

    kind: str
    position: int

    def __str__(self) -> str:
        return f"{self.kind}_{self.position}"


@dataclass(frozen=True, slots=True)
class Linear:
    """``sum of coefficient * variable + constant``; no coefficient is zero."""

    coefficients: dict[Variable, Fraction]
    constant: Fraction


def number(text: str) -> Fraction | None:
    """The exact value of a decimal; None if ``text`` is none.

    Raises :class:`InputError` beyond the range of float64, :class:`ResourceError` for too many digits.
    """
    if not _NUMBER.fullmatch(text):
        return None
    if len(text) > MAX_DIGITS:
        raise ResourceError(f"a number of {len(text)} characters; at most {MAX_DIGITS} are read")
    try:
        value = Decimal(text)
    except InvalidOperation:  # an exponent of twenty digits
        raise InputError(f"{text} is outside of the range of float64") from None
    if not value:
        return ZERO
    magnitude = value.adjusted()
    if not -MAX_DIGITS <= magnitude <= sys.float_info.max_10_exp:
        raise InputError(f"{text} is outside of the range of float64")
    return Fraction(value) if magnitude < sys.float_info.max_10_exp else in_range(Fraction(value))


def in_range(value: Fraction) -> Fraction:
    """``value``, if it lies within the range of float64."""
    if abs(value) > LARGEST:
        raise InputError("the number is outside of the range of float64")
    return value


def constant(value: Fraction) -> Linear:
    """A term without variables."""
    return Linear({}, value)


def variable(kind: str, position: int) -> Linear:
    """A variable alone."""
    return Linear({Variable(kind, position): ONE}, ZERO)


def add(terms: Sequence[Linear]) -> Linear:
    """The sum."""
    total: dict[Variable, Fraction] = {}
    for term in terms:
        for name, coefficient in term.coefficients.items():
            total[name] = total[name] + coefficient if name in total else coefficient
    return Linear({n: c for n, c in total.items() if c}, sum((t.constant for t in terms), ZERO))


def subtract(terms: Sequence[Linear]) -> Linear:
    """The first less all others; one alone is negated."""
    first, *rest = terms
    negated = [Linear({name: -c for name, c in term.coefficients.items()}, -term.constant) for term in rest or [first]]
    return add([first, *negated]) if rest else negated[0]


def multiply(terms: Sequence[Linear]) -> Linear:
    """The product, in which at most one factor may have variables.

    Raises :class:`UnsupportedError` otherwise, :class:`ResourceError` where the numbers become too long.
    """
    factors = [term for term in terms if term.coefficients]
    if len(factors) > 1:
        names = " and ".join(str(next(iter(factor.coefficients))) for factor in factors[:2])
        raise UnsupportedError(f"the product of terms with {names} is not linear; multiply by constants only")
    constants = [term.constant for term in terms if not term.coefficients]
    if sum(value.numerator.bit_length() + value.denominator.bit_length() for value in constants) > MAX_BITS:
        raise ResourceError(f"a product of numbers of more than {MAX_BITS} bits together")
    factor = prod(constants, start=ONE)
    return _scaled(factors[0], factor) if factors else constant(factor)


def divide(terms: Sequence[Linear]) -> Linear:
    """The first divided by all others, which must be constants.

    Raises :class:`InputError` for zero and fewer than two terms, and what :func:`multiply` raises.
    """
    first, *divisors = terms
    if not divisors:
        raise InputError("/ divides by at least 1 term, got 0")
    if any(divisor.coefficients for divisor in divisors):
        raise UnsupportedError("a division by a variable is not linear; divide by constants only")
    if any(divisor.constant == 0 for divisor in divisors):
        raise InputError("a division by zero")
    return multiply([first, *(constant(1 / divisor.constant) for divisor in divisors)])


def _scaled(term: Linear, factor: Fraction) -> Linear:
    return Linear({n: c * factor for n, c in term.coefficients.items() if factor}, term.constant * factor)
