"""Comparisons and their connectives, kept in disjunctive normal form while they are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, combinations, pairwise, product
from typing import NamedTuple

from assay.verify.core.errors import InputError, ResourceError
from assay.verify.frontends.vnnlib.linear import Linear, Monomial, Name, Variable, in_range, subtract

MAX_DISJUNCTS = 250_000  # after distribution; they take some 4 KB each until they are problems
MAX_COMPARISONS = 10_000_000  # in all of them together
COMPARISONS = ("<=", "<", ">=", ">", "=", "==", "!=")


class Bound(NamedTuple):
    """``X_position <= value``, or ``>= value`` where it is no upper bound; ``<`` or ``>`` where strict."""

    position: int
    value: Fraction
    upper: bool
    strict: bool


Terms = tuple[tuple[int, Fraction], ...]  # (position, coefficient)


class Row(NamedTuple):
    """``sum of coefficient * Y_position + sum of coefficient * X_position <= limit``, or ``<`` where strict: ``terms``
    and ``inputs``; ``products``: monomials, with their coefficients, that are summed with these."""

    terms: Terms
    limit: Fraction
    strict: bool
    inputs: Terms = ()
    products: tuple[tuple[Monomial, Fraction], ...] = ()


class Conjunct(NamedTuple):
    """All of these hold: bounds of single inputs, rows that speak of outputs or of products, and ``ties`` between
    inputs alone."""

    bounds: tuple[Bound, ...] = ()
    rows: tuple[Row, ...] = ()
    ties: tuple[Row, ...] = ()

    @property
    def size(self) -> int:
        """The number of comparisons."""
        return len(self.bounds) + len(self.rows) + len(self.ties)


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
    return [
        *(Formula(Conjunct(bounds=(bound,))) for bound in bounds),
        *(Formula(Conjunct(rows=(_opposite(row),))) for row in conjunct.rows),
        *(Formula(Conjunct(ties=(_opposite(tie),))) for tie in conjunct.ties),
    ]


def _opposite(row: Row) -> Row:
    terms, inputs = (tuple((i, -c) for i, c in part) for part in (row.terms, row.inputs))
    products = tuple((monomial, -c) for monomial, c in row.products)
    return Row(terms, -row.limit, not row.strict, inputs, products)


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

    Raises :class:`InputError` for fewer than two terms, and for more with ``!=``.
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
    if not coefficients:
        return Formula() if limit > 0 or (limit == 0 and not strict) else Formula(choices=())
    outputs, inputs = (_of_kind(kind, coefficients) for kind in "YX")
    products = tuple((name, in_range(c)) for name, c in coefficients.items() if isinstance(name, Monomial))
    if not outputs and not products and len(inputs) == 1:
        ((position, coefficient),) = inputs
        bound = Bound(position, in_range(limit / coefficient), coefficient > 0, strict)
        return Formula(Conjunct(bounds=(bound,)))
    row = Row(outputs, in_range(limit), strict, inputs, products)
    return Formula(Conjunct(rows=(row,)) if outputs or products else Conjunct(ties=(row,)))


def _of_kind(kind: str, coefficients: Mapping[Name, Fraction]) -> Terms:
    own = ((name.position, c) for name, c in coefficients.items() if isinstance(name, Variable) and name.kind == kind)
    return tuple((position, in_range(c)) for position, c in sorted(own))


def together(conjuncts: Iterable[Conjunct]) -> Conjunct:
    """All comparisons of ``conjuncts``."""
    parts = tuple(conjuncts)
    return Conjunct(
        tuple(chain.from_iterable(part.bounds for part in parts)),
        tuple(chain.from_iterable(part.rows for part in parts)),
        tuple(chain.from_iterable(part.ties for part in parts)),
    )


def _total(conjuncts: Iterable[Conjunct]) -> int:
    return sum(conjunct.size for conjunct in conjuncts)


def _check_size(disjuncts: int, comparisons: int) -> None:
    if disjuncts > MAX_DISJUNCTS:
        raise ResourceError(f"the formula has more than {MAX_DISJUNCTS} disjuncts once they are distributed")
    if comparisons > MAX_COMPARISONS:
        raise ResourceError(f"the formula has more than {MAX_COMPARISONS} comparisons once they are distributed")
