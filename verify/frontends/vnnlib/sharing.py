"""Inputs that a property says are equal, as one input: what is shared is not told from what is merely close to it."""

from __future__ import annotations

from fractions import Fraction

from assay.verify.frontends.vnnlib.formula import Conjunct, Formula, Row, compare, conjunction, disjunction
from assay.verify.frontends.vnnlib.linear import Linear, Name, Variable, constant
from assay.verify.frontends.vnnlib.monomials import substituted


def shared(formula: Formula, inputs: int) -> tuple[Formula, tuple[int, ...]]:
    """``formula`` over fewer inputs, and which of these each of its own (inputs) is; nothing where none are equal."""
    equal = _equalities(formula.always)
    if not equal:
        return formula, ()
    first = list(range(inputs))

    def root(i: int) -> int:
        while first[i] != i:
            i = first[i]
        return i

    for i, j in equal:
        low, high = sorted((root(i), root(j)))
        first[high] = low
    roots = sorted({root(i) for i in range(inputs)})
    number = {r: n for n, r in enumerate(roots)}
    place = tuple(number[root(i)] for i in range(inputs))
    parts = [_renamed(formula.always, place), disjunction([_renamed(choice, place) for choice in formula.choices])]
    return conjunction(parts), place


def _equalities(conjunct: Conjunct) -> set[tuple[int, int]]:
    """Pairs of inputs of which each is at most the other."""
    ordered = set()
    for tie in conjunct.ties:
        match tie.inputs:
            case ((i, a), (j, b)) if a == -b and tie.limit == 0 and not tie.strict:
                ordered.add((i, j) if a > 0 else (j, i))
    return {(i, j) for i, j in ordered if (j, i) in ordered}


def _renamed(conjunct: Conjunct, place: tuple[int, ...]) -> Formula:
    """The comparisons of the inputs that stand for these; some become bounds, or say nothing any more."""
    bounds = tuple(bound._replace(position=place[bound.position]) for bound in conjunct.bounds)
    rows = tuple(
        row._replace(inputs=tuple(sorted(_summed(row, place).items()))) for row in conjunct.rows if not row.products
    )
    others = [_compared(row, place) for row in (*conjunct.ties, *(row for row in conjunct.rows if row.products))]
    return conjunction([Formula(Conjunct(bounds, rows)), *others])


def _compared(row: Row, place: tuple[int, ...]) -> Formula:
    """The same comparison, made anew: what is the same now adds up, and may vanish."""

    def renamed(name: Variable) -> Variable:
        return Variable("X", place[name.position]) if name.kind == "X" else name

    terms: dict[Name, Fraction] = dict(row.products)
    terms |= {Variable("Y", i): c for i, c in row.terms}
    terms |= {Variable("X", i): c for i, c in row.inputs}
    total = substituted(Linear(terms, Fraction(0)), renamed)
    return compare("<" if row.strict else "<=", [total, constant(row.limit)])


def _summed(row: Row, place: tuple[int, ...]) -> dict[int, Fraction]:
    total: dict[int, Fraction] = {}
    for i, c in row.inputs:
        total[place[i]] = total.get(place[i], Fraction(0)) + c
    return {i: c for i, c in total.items() if c}
