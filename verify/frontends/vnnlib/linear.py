"""Linear terms over inputs X, outputs Y and products of such, exact."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

from assay.verify.core.errors import InputError, ResourceError

NUMBER = r"[+-]?+(?:\d++\.?+\d*+|\.\d++)(?:[eE][+-]?+\d++)?+"
MAX_DIGITS = 2000  # of one number; the exact value of the smallest float64 has 751
LARGEST = Fraction(sys.float_info.max)
ZERO, ONE = Fraction(0), Fraction(1)

_NUMBER = re.compile(NUMBER, re.ASCII)


class Variable(NamedTuple):
    """``X_position`` or ``Y_position``."""

    kind: str
    position: int

    def __str__(self) -> str:
        return f"{self.kind}_{self.position}"


@dataclass(frozen=True)
class Form:
    """A linear term that can be told apart: ``terms`` in order, (name, coefficient) each."""

    terms: tuple[tuple[Name, Fraction], ...]
    constant: Fraction

    def __str__(self) -> str:
        names = [str(name) if factor == 1 else f"(* {factor} {name})" for name, factor in self.terms]
        parts = [*names, *([str(self.constant)] if self.constant else [])]
        return parts[0] if len(parts) == 1 else f"(+ {' '.join(parts)})"


@dataclass(frozen=True)
class Monomial:
    """A product of powers of linear terms, (form, exponent) each, which counts as a variable."""

    factors: tuple[tuple[Form, int], ...]

    def __str__(self) -> str:
        return f"(* {' '.join(str(form) if e == 1 else f'(^ {form} {e})' for form, e in self.factors)})"

    @cached_property
    def inner(self) -> tuple[Name, ...]:
        """The variables and monomials that its factors are made of."""
        return tuple(dict.fromkeys(name for form, _ in self.factors for name, _ in form.terms))

    @cached_property
    def depth(self) -> int:
        """One more than those of the monomials within its factors."""
        return 1 + max((name.depth for name in self.inner if isinstance(name, Monomial)), default=0)


Name = Variable | Monomial


@dataclass(frozen=True, slots=True)
class Linear:
    """``sum of coefficient * variable + constant``; no coefficient is zero."""

    coefficients: dict[Name, Fraction]
    constant: Fraction

    @property
    def form(self) -> Form:
        """The same, so that it can be told apart."""
        return Form(tuple(sorted(self.coefficients.items(), key=lambda term: str(term[0]))), self.constant)


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
    total: dict[Name, Fraction] = {}
    for term in terms:
        for name, coefficient in term.coefficients.items():
            total[name] = total[name] + coefficient if name in total else coefficient
    return Linear({n: c for n, c in total.items() if c}, sum((t.constant for t in terms), ZERO))


def subtract(terms: Sequence[Linear]) -> Linear:
    """The first less all others; one alone is negated."""
    first, *rest = terms
    negated = [Linear({name: -c for name, c in term.coefficients.items()}, -term.constant) for term in rest or [first]]
    return add([first, *negated]) if rest else negated[0]


def scaled(term: Linear, factor: Fraction) -> Linear:
    """The term times a number."""
    return Linear({n: c * factor for n, c in term.coefficients.items() if factor}, term.constant * factor)
