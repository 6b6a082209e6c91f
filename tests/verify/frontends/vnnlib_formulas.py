"""Random formulas over inputs and outputs: their text in both versions of VNN-LIB, their meaning in rationals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import inf, nextafter
from operator import eq, ge, gt, le, lt, ne

import numpy as np
from hypothesis import strategies as st

from assay.verify.core.region import Box, Polytope
from assay.verify.core.spec import Polyhedron
from assay.verify.frontends.vnnlib import Property
from assay.verify.frontends.vnnlib.linear import Name, Variable

INPUTS, OUTPUTS = 2, 3

Numbers = Sequence[Fraction]
# Few enough that bounds meet each other and points meet bounds; most are no float64 numbers, two are float32 numbers.
DECIMALS = (
    *("0.0", "1.0", "-1.0", "0.5", "-0.5", "0.25", "2.0", "0.1", "-0.1", "0.3", "0.7", "-0.7", "1.1"),
    *("0.300000011920928955078125", "0.100000001490116119384765625", "0.30000000000000001", "0.29999999999999999"),
)
FACTORS = ("2.0", "-1.0", "0.5", "-3.0", "0.1", "0.3", "1.5", "0.0")
RELATIONS: dict[str, Callable[[Fraction, Fraction], bool]] = {"<=": le, "<": lt, ">=": ge, ">": gt, "==": eq, "!=": ne}


@dataclass(frozen=True)
class Term:
    """A linear term: its text in version 1 and 2, and its value at inputs and outputs."""

    one: str
    two: str
    value: Callable[[Numbers, Numbers], Fraction]


@dataclass(frozen=True)
class Statement:
    """A formula: its text in version 1 and 2, and whether it holds at inputs and outputs."""

    one: str
    two: str
    holds: Callable[[Numbers, Numbers], bool]


def number(text: str) -> Term:
    value = Fraction(text)
    return Term(text, text, lambda x, y: value)


def variable(kind: str, i: int) -> Term:
    return Term(f"{kind}_{i}", f"{kind}[{i}]", lambda x, y: (x if kind == "X" else y)[i])


def spelled(operator: str, parts: Sequence[Term | Statement]) -> tuple[str, str]:
    return (
        f"({operator} {' '.join(part.one for part in parts)})",
        f"({operator} {' '.join(part.two for part in parts)})",
    )


def total(parts: Sequence[Term]) -> Term:
    return Term(*spelled("+", parts), lambda x, y: sum((part.value(x, y) for part in parts), Fraction(0)))


def difference(parts: Sequence[Term]) -> Term:
    def value(x: Numbers, y: Numbers) -> Fraction:
        first, *rest = (part.value(x, y) for part in parts)
        return first - sum(rest) if rest else -first

    return Term(*spelled("-", parts), value)


def product(factor: Term, part: Term) -> Term:
    return Term(*spelled("*", [factor, part]), lambda x, y: factor.value(x, y) * part.value(x, y))


def comparison(operator: str, left: Term, right: Term) -> Statement:
    relation = RELATIONS[operator]
    return Statement(*spelled(operator, [left, right]), lambda x, y: relation(left.value(x, y), right.value(x, y)))


def both(parts: Sequence[Statement]) -> Statement:
    return Statement(*spelled("and", parts), lambda x, y: all(part.holds(x, y) for part in parts))


def either(parts: Sequence[Statement]) -> Statement:
    return Statement(*spelled("or", parts), lambda x, y: any(part.holds(x, y) for part in parts))


def implies(parts: Sequence[Statement]) -> Statement:
    one = f"(=> {' '.join(part.one for part in parts)})"
    return Statement(one, "", lambda x, y: parts[-1].holds(x, y) or not all(part.holds(x, y) for part in parts[:-1]))


def odd(parts: Sequence[Statement]) -> Statement:
    one = f"(xor {' '.join(part.one for part in parts)})"
    return Statement(one, "", lambda x, y: sum(part.holds(x, y) for part in parts) % 2 == 1)


def terms(variables: Sequence[Term], nonlinear: bool = False) -> st.SearchStrategy[Term]:
    """Terms over ``variables``, linear ones unless said otherwise."""
    leaves = st.sampled_from(variables) | st.sampled_from(DECIMALS).map(number)
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=3).map(total),
            st.lists(inner, min_size=1, max_size=3).map(difference),
            st.builds(product, inner if nonlinear else st.sampled_from(FACTORS).map(number), inner),
        ),
        max_leaves=4,
    )


def comparisons(variables: Sequence[Term], nonlinear: bool = False) -> st.SearchStrategy[Statement]:
    """Comparisons of terms over ``variables``, simple ones more often."""
    plain = st.builds(
        comparison,
        st.sampled_from(("<=", "<", ">=", ">")),
        st.sampled_from(variables),
        st.sampled_from(DECIMALS).map(number),
    )
    term = terms(variables, nonlinear)
    return plain | st.builds(comparison, st.sampled_from(list(RELATIONS)), term, term)


_INPUTS = [variable("X", i) for i in range(INPUTS)]
_OUTPUTS = [variable("Y", i) for i in range(OUTPUTS)]
_simple = st.one_of(*(comparisons([x]) for x in _INPUTS), comparisons(_OUTPUTS))
_ties = comparisons(_INPUTS)
_links = comparisons([*_INPUTS, *_OUTPUTS])
_products = comparisons([*_INPUTS, *_OUTPUTS], nonlinear=True)


def combined(simple: st.SearchStrategy[Statement]) -> st.SearchStrategy[Statement]:
    """Conjunctions and disjunctions."""
    return st.recursive(
        simple,
        lambda inner: (
            st.lists(inner, min_size=1, max_size=3).map(both) | st.lists(inner, min_size=1, max_size=3).map(either)
        ),
        max_leaves=8,
    )


bounds = both(
    [comparison(">=", x, number("-2.0")) for x in _INPUTS] + [comparison("<=", x, number("2.0")) for x in _INPUTS]
)


def asserted(simple: st.SearchStrategy[Statement], least: int = 0) -> st.SearchStrategy[list[Statement]]:
    """Assertions, the bounds of the inputs among them."""
    return st.lists(combined(simple), min_size=least, max_size=4).flatmap(lambda some: st.permutations([bounds, *some]))


assertions = asserted(_simple)
assertions_with_ties = asserted(_ties | _simple, 1)
assertions_with_links = asserted(_links | _ties, 1)
assertions_with_products = asserted(_products | _ties, 1)


# Connectives that version 2 does not have.
_one_only = st.recursive(
    _simple,
    lambda inner: st.one_of(
        inner.map(lambda part: Statement(f"(not {part.one})", "", lambda x, y: not part.holds(x, y))),
        st.lists(inner, min_size=2, max_size=2).map(implies),
        st.lists(inner, min_size=2, max_size=2).map(odd),
        st.lists(inner, min_size=1, max_size=2).map(both),
    ),
    max_leaves=4,
)
assertions_of_version1 = st.lists(_one_only, min_size=1, max_size=2).flatmap(
    lambda some: st.permutations([bounds, *some])
)


def version1(asserted: Sequence[Statement]) -> str:
    """The file in version 1.0."""
    names = [f"X_{i}" for i in range(INPUTS)] + [f"Y_{i}" for i in range(OUTPUTS)]
    lines = [f"(declare-const {name} Real)" for name in names] + [f"(assert {part.one})" for part in asserted]
    return "\n".join(lines)


def version2(asserted: Sequence[Statement]) -> str:
    """The file in version 2.0."""
    network = f"(declare-network f (declare-input X real [{INPUTS}]) (declare-output Y real [{OUTPUTS}]))"
    return "\n".join(["(vnnlib-version <2.0>)", network, *(f"(assert {part.two})" for part in asserted)])


def near(text: str, single: bool, steps: int) -> Fraction:
    """The float32 or float64 number next to a decimal, moved by some steps."""
    value = float(np.float32(text)) if single else float(text)
    for _ in range(abs(steps)):
        towards = inf if steps > 0 else -inf
        value = float(np.nextafter(np.float32(value), np.float32(towards))) if single else nextafter(value, towards)
    return Fraction(value)


inputs = st.lists(
    st.builds(near, st.sampled_from(DECIMALS), st.booleans(), st.integers(-1, 1)), min_size=INPUTS, max_size=INPUTS
)
outputs = st.lists(
    st.builds(near, st.sampled_from(DECIMALS), st.just(True), st.integers(-1, 1)), min_size=OUTPUTS, max_size=OUTPUTS
)
single_inputs = st.lists(
    st.builds(near, st.sampled_from(DECIMALS), st.just(True), st.integers(-1, 1)), min_size=INPUTS, max_size=INPUTS
)
single_points = st.lists(st.tuples(single_inputs, outputs), min_size=8, max_size=8)
points = st.lists(st.tuples(inputs, outputs), min_size=8, max_size=8)


def valued(name: Name, at: dict[Variable, Fraction]) -> Fraction:
    """A variable or a product of linear terms, in exact rationals."""
    if isinstance(name, Variable):
        return at[name]
    value = Fraction(1)
    for form, exponent in name.factors:
        value *= sum((c * valued(inner, at) for inner, c in form.terms), form.constant) ** exponent
    return value


def in_box(box: Box, x: Numbers) -> bool:
    """Whether a float64 point lies between the bounds, in exact rationals."""
    rows = zip(box.lower.tolist(), x, box.upper.tolist(), strict=True)
    return all(Fraction(low) <= value <= Fraction(high) for low, value, high in rows)


def in_region(region: Box | Polytope, x: Numbers, closed: bool) -> bool:
    """Whether a float64 point is a member of a region, or lies in what proofs cover, in exact rationals."""
    box = region.within if isinstance(region, Polytope) else region
    if not in_box(box if closed else box.inner or box, x):
        return False
    if not isinstance(region, Polytope):
        return True
    return in_polyhedron(region.rows if closed else region.inner or region.rows, x, closed)


def in_polyhedron(polyhedron: Polyhedron, y: Numbers, closed: bool) -> bool:
    """Whether an output lies in a polyhedron, or in its closure, in exact rationals."""
    for row, b, strict in zip(polyhedron.A.tolist(), polyhedron.b.tolist(), polyhedron.strict.tolist(), strict=True):
        value = sum((Fraction(a) * v for a, v in zip(row, y, strict=True)), Fraction(0))
        if value > Fraction(b) or (strict and not closed and value == Fraction(b)):
            return False
    return True


def _holds(prop: Property, x: Numbers, y: Numbers, closed: bool) -> bool:
    place = prop.shared or tuple(range(len(x)))
    own = dict(zip(place, x, strict=True))
    if any(own[i] != value for i, value in zip(place, x, strict=True)):
        return False  # inputs that are one differ
    point = [own[i] for i in range(len(own))]
    at = {**{Variable("Y", i): v for i, v in enumerate(y)}, **{Variable("X", i): v for i, v in enumerate(point)}}
    values = [*y, *(point[i] for i in prop.linked), *(valued(monomial, at) for monomial in prop.monomials)]
    return any(
        in_region(region, point, closed) and any(in_polyhedron(part, values, closed) for part in spec.disjuncts)
        for region, spec in prop.cases
    )


def witnessed(prop: Property, x: Numbers, y: Numbers) -> bool:
    """Whether replay would take a point for a counterexample."""
    return _holds(prop, x, y, closed=False)


def covered(prop: Property, x: Numbers, y: Numbers) -> bool:
    """Whether a proof would speak of a point."""
    return _holds(prop, x, y, closed=True)


def content(prop: Property) -> list[tuple[str, str]]:
    """What makes two properties the same."""
    return [(region.id, spec.id) for region, spec in prop.cases]
