"""The operators of VNN-LIB, by their names: connectives of formulas, comparisons and sums of terms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from assay.verify.core.errors import InputError
from assay.verify.frontends.vnnlib.formula import (
    COMPARISONS,
    Formula,
    compare,
    conjunction,
    difference,
    disjunction,
    distinct,
    equivalence,
    implication,
    negation,
)
from assay.verify.frontends.vnnlib.linear import Linear, add, subtract
from assay.verify.frontends.vnnlib.monomials import divide, multiply

MAX_DEPTH = 200  # of nested parentheses

OVER_FORMULAS: dict[str, Callable[[Sequence[Formula]], Formula]] = {
    "and": conjunction,
    "or": disjunction,
    "not": lambda parts: negation(only(parts)),
    "=>": implication,
    "xor": difference,
    "=": equivalence,
}
OVER_TERMS: dict[str, Callable[[Sequence[Linear]], Formula | Linear]] = {
    **{operator: partial(compare, operator) for operator in COMPARISONS},
    "distinct": distinct,
    "+": add,
    "-": subtract,
    "*": multiply,
    "/": divide,
}
# Known to SMT-LIB, from which VNN-LIB stems.
UNSUPPORTED = ("ite", "let", "div", "mod", "abs", "^", "forall", "exists")


def only(parts: Sequence[Formula]) -> Formula:
    """The one formula that ``not`` applies to."""
    if len(parts) != 1:
        raise InputError(f"not applies to 1 formula, got {len(parts)}")
    return parts[0]


def apply(operator: str, values: Sequence[Formula | Linear]) -> Formula | Linear:
    """``operator`` on ``values``.

    Raises :class:`InputError` where there are none or they are of the wrong kind, and what the operator raises.
    """
    if not values:
        raise InputError(f"{operator} has nothing to apply to")
    formulas = [value for value in values if isinstance(value, Formula)]
    if operator in OVER_FORMULAS and (formulas or operator not in OVER_TERMS):
        if len(formulas) < len(values):
            raise InputError(f"{operator} joins comparisons, got a term")
        return OVER_FORMULAS[operator](formulas)
    terms = [value for value in values if isinstance(value, Linear)]
    if len(terms) < len(values):
        raise InputError(f"{operator} applies to terms, got a comparison")
    return OVER_TERMS[operator](terms)
