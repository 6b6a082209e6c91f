"""Comparisons and their connectives, kept in disjunctive normal form while they are read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, combinations, pairwise, product
from typing import NamedTuple

from assay.verify.core.errors import InputError, ResourceError, UnsupportedError
from assay.verify.frontends.vnnlib.linear import Linear, Variable, in_range, subtract

MAX_DISJUNCTS = 250_000  # after distribution; they take some 4 KB each until they are problems
MAX_COMPARISONS = 10_000_000  # in all of them together
COMPARISONS = ("<=", "<", ">=", ">", "=", "==", "!=")


class Bound(NamedTuple):
    """``X_position <= value``, or ``>= value`` where it is no upper bound; ``<`` or ``>`` where strict."""

    position: int
    value: Fraction
    upper: bool
    strict: bool


class Row(NamedTuple):
    """``sum of coefficient * Y_position <= limit``, or ``<`` where strict; ``terms``: (position, coefficient)."""

    terms: tuple[tuple[int, Fraction], ...]
    limit: Fraction
    strict: bool


class Conjunct(NamedTuple):
    """All of these hold."""

    bounds: tuple[Bound, ...] = ()
    rows: tuple[Row, ...] = ()

    @property
    def size(self) -> int:
        """The number of comparisons."""
        return len(self.bounds) + len(self.rows)


NOTHING = Conjunct()


@dataclass(frozen=True, slots=True)
class Formula:
    """``always`` and one of ``choices`` hold. No choice at all is false; one that says nothing adds nothing."""

    always: Conjunct = NOTHING
    choices: tuple[Conjunct, ...] = (NOTHING,)


def conjunction(parts: Sequence[Formula]) -> Formula:
    """All of ``parts``: what always holds together, and every combination of their choices.

    Raises :class:`ResourceError` before the combinations become too many.
    """
    choices = [part.choices for part in parts if part.choices != (NOTHING,)]
    always = together(part.always for part in parts)
    if () in choices:
        return Formula(always, ())
    count = 1
    for some in choices:
        count *= len(some)
        _check_size(count, 0)
    _check_size(count, sum(count // len(some) * _total(some) for some in choices))
    return Formula(always, choices[0] if len(choices) == 1 else tuple(map(together, product(*choices))))


def disjunction(parts: Sequence[Formula]) -> Formula:
    """One of ``parts``: the choices of all, each with what always holds beside it.

    Raises :class:`ResourceError` before they become too many.
    """
    if len(parts) == 1:
        return parts[0]
    count = sum(len(part.choices) for part in parts)
    _check_size(count, sum(len(part.choices) * part.always.size + _total(part.choices) for part in parts))
    return Formula(choices=tuple(together((part.always, choice)) for part in parts for choice in part.choices))


def negation(part: Formula) -> Formula:
    """Whatever ``part`` leaves out: ``<=`` becomes ``>``, and ``<`` becomes ``>=``.

    Raises :class:`ResourceError` before the combinations become too many.
    """
    others = conjunction([disjunction(_opposites(choice)) for choice in part.choices])
    return disjunction([*_opposites(part.always), others])


def _opposites(conjunct: Conjunct) -> list[Formula]:
    """Each comparison turned round."""
    bounds = [Bound(b.position, b.value, not b.upper, not b.strict) for b in conjunct.bounds]
    rows = [Row(tuple((i, -c) for i, c in r.terms), -r.limit, not r.strict) for r in conjunct.rows]
    return [
        *(Formula(Conjunct(bounds=(bound,))) for bound in bounds),
        *(Formula(Conjunct(rows=(row,))) for row in rows),
    ]


def implication(parts: Sequence[Formula]) -> Formula:
    """The last of ``parts``, or not one of those before it: ``=>`` associates to the right.

    Raises :class:`InputError` for fewer than two.
    """
    if len(parts) < 2:
        raise InputError(f"=> joins at least 2 comparisons, got {len(parts)}")
    *premises, conclusion = parts
    return disjunction([*map(negation, premises), conclusion])


def difference(parts: Sequence[Formula]) -> Formula:
    """An odd number of ``parts``: ``xor`` associates to the left."""
    first, *others = parts
    for part in others:
        first = disjunction([conjunction([first, negation(part)]), conjunction([negation(first), part])])
    return first


def equivalence(parts: Sequence[Formula]) -> Formula:
    """All of ``parts`` or none."""
    return disjunction([conjunction(parts), conjunction([negation(part) for part in parts])])


def compare(operator: str, terms: Sequence[Linear]) -> Formula:
    """Linear terms compared by one of ``COMPARISONS``, each with the next.

    Raises :class:`InputError` for fewer than two terms, and for more with ``!=``, :class:`UnsupportedError` for a
    comparison of inputs that is no bound of one input, or of inputs with outputs.
    """
    if len(terms) < 2 or (len(terms) > 2 and operator == "!="):
        raise InputError(f"{operator} compares 2 terms, got {len(terms)}")
    if len(terms) > 2:
        return conjunction([compare(operator, pair) for pair in pairwise(terms)])
    left, right = terms
    match operator:
        case "<=" | "<":
            return _at_most(left, right, operator == "<")
        case ">=" | ">":
            return _at_most(right, left, operator == ">")
        case "!=":
            return disjunction([_at_most(left, right, True), _at_most(right, left, True)])
        case _:
            return conjunction([_at_most(left, right, False), _at_most(right, left, False)])


def distinct(terms: Sequence[Linear]) -> Formula:
    """Linear terms that all differ; raises what :func:`compare` does."""
    if len(terms) < 2:
        raise InputError(f"distinct compares at least 2 terms, got {len(terms)}")
    return conjunction([compare("!=", pair) for pair in combinations(terms, 2)])


def _at_most(left: Linear, right: Linear, strict: bool) -> Formula:
    """``left <= right``, or ``<``."""
    difference = subtract([left, right])
    limit, coefficients = -difference.constant, difference.coefficients
    inputs = [name for name in coefficients if name.kind == "X"]
    if not coefficients:
        return Formula() if limit > 0 or (limit == 0 and not strict) else Formula(choices=())
    if not inputs:
        terms = tuple((name.position, in_range(coefficient)) for name, coefficient in sorted(coefficients.items()))
        return Formula(Conjunct(rows=(Row(terms, in_range(limit), strict),)))
    if len(coefficients) > 1:
        raise UnsupportedError(_not_a_bound(inputs, coefficients))
    coefficient = coefficients[inputs[0]]
    return Formula(
        Conjunct(bounds=(Bound(inputs[0].position, in_range(limit / coefficient), coefficient > 0, strict),))
    )


def _not_a_bound(inputs: Sequence[Variable], names: Iterable[Variable]) -> str:
    other = next(name for name in names if name != inputs[0])
    return f"a comparison of {inputs[0]} with {other}: an input can only be bounded by constants"


def together(conjuncts: Iterable[Conjunct]) -> Conjunct:
    """All comparisons of ``conjuncts``."""
    parts = tuple(conjuncts)
    return Conjunct(
        tuple(chain.from_iterable(part.bounds for part in parts)),
        tuple(chain.from_iterable(part.rows for part in parts)),
    )


def _total(conjuncts: Iterable[Conjunct]) -> int:
    return sum(conjunct.size for conjunct in conjuncts)


def _check_size(disjuncts: int, comparisons: int) -> None:
    if disjuncts > MAX_DISJUNCTS:
        raise ResourceError(f"the formula has more than {MAX_DISJUNCTS} disjuncts once they are distributed")
    if comparisons > MAX_COMPARISONS:
        raise ResourceError(f"the formula has more than {MAX_COMPARISONS} comparisons once they are distributed")
