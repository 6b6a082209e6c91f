"""The operators of VNN-LIB, by their names: connectives of formulas, comparisons and sums of terms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from assay.verify.core.errors import InputError
from assay.verify.frontends.vnnlib.formula import COMPARISONS, Formula, compare, conjunction, disjunction
from assay.verify.frontends.vnnlib.linear import Linear, add, multiply, subtract

MAX_DEPTH = 200  # of nested parentheses

OVER_FORMULAS: dict[str, Callable[[Sequence[Formula]], Formula]] = {"and": conjunction, "or": disjunction}
OVER_TERMS: dict[str, Callable[[Sequence[Linear]], Formula | Linear]] = {
    **{operator: partial(compare, operator) for operator in COMPARISONS},
    "+": add,
    "-": subtract,
    "*": multiply,
}
# Known to SMT-LIB, from which VNN-LIB stems.
UNSUPPORTED = ("not", "=>", "xor", "distinct", "ite", "let", "/", "div", "mod", "abs", "^", "forall", "exists")


def apply(operator: str, values: Sequence[Formula | Linear]) -> Formula | Linear:
    """``operator`` on ``values``.

    Raises :class:`InputError` where there are none or they are of the wrong kind, and what the operator raises.
    """
    if not values:
        raise InputError(f"{operator} has nothing to apply to")
    if operator in OVER_FORMULAS:
        formulas = [value for value in values if isinstance(value, Formula)]
        if len(formulas) < len(values):
            raise InputError(f"{operator} joins comparisons, got a term")
        return OVER_FORMULAS[operator](formulas)
    terms = [value for value in values if isinstance(value, Linear)]
    if len(terms) < len(values):
        raise InputError(f"{operator} applies to terms, got a comparison")
    return OVER_TERMS[operator](terms)
