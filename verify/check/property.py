"""A property, read from VNN-LIB as boxes and unsafe sets, and told in formulas.

Beside ``checker.py``; it shares no code with what is checked, and refuses all that it does not know.
"""

import re
from fractions import Fraction
from itertools import product
from math import inf, nextafter, prod

TERMS = 10_000  # cases of a property, at most
NAME, NUMBER = re.compile("[XY]_(0|[1-9][0-9]*)"), re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")


class Rejected(Exception):
    """Why the certificate proves nothing here; ``left``: of a tree its part, and what of it is not proved: of a tree of
    boxes the numbers of leaves, of another one the places of nodes in it."""

    def __init__(self, why, left=()):
        super().__init__(why)
        self.left = left


def need(holds, why):
    """Raises :class:`Rejected` where it does not hold."""
    if not holds:
        raise Rejected(why)


def read_property(text, inputs, outputs):
    """VNN-LIB 1.0 as boxes, each with its unsafe sets: [(lower, upper, sets)], all in fractions. A set is rows
    (coefficients of outputs, c, strict) that say ``coefficients @ y + c <= 0``. An empty box has no point."""
    stack, names, asserts = [[]], [], []
    for token in re.findall(r"[()]|[^\s()]+", re.sub(r";[^\n]*", "", text)):
        if token == ")":
            stack[-2].append(stack.pop())
        else:
            stack.append([]) if token == "(" else stack[-1].append(token)
    (statements,) = stack
    for kind, *rest in statements:
        known = (kind, len(rest), *rest[1:]) in (("declare-const", 2, "Real"), ("assert", 1))
        need(known, f"a statement {kind!r} of this kind is beyond this checker")
        names.append(rest[0]) if kind == "declare-const" else asserts.append(cases(rest[0]))
    expected = [f"X_{i}" for i in range(inputs)] + [f"Y_{i}" for i in range(outputs)]
    need(sorted(names) == sorted(expected), f"the model has {inputs} inputs and {outputs} outputs, others are declared")
    known, _ = conjunction([atom for some in asserts if len(some) == 1 for atom in some[0]], {})
    found, boxes = {}, []
    for atoms in every([some for some in asserts if len(some) > 1 or not bounds_alone(some[0])]):
        ends, rows = conjunction(atoms, known)
        found.setdefault(frozenset(ends.items()), []).append(rows)
    for ends, unsafe in found.items():
        ends = known | dict(ends)
        need(len(ends) == 2 * inputs, "an input without bounds is beyond this checker")
        lower, upper = [-ends[i, -1] for i in range(inputs)], [ends[i, 1] for i in range(inputs)]
        if all(low <= high for low, high in zip(lower, upper, strict=True)):
            boxes.append((lower, upper, unsafe))
    return boxes


def every(parts):
    """One alternative of each part, in all ways, joined."""
    need(prod(map(len, parts)) <= TERMS, "a property of so many cases is beyond this checker")
    return [[atom for alternative in chosen for atom in alternative] for chosen in product(*parts)]


def cases(formula):
    """A formula as alternatives: lists of comparisons (c, terms, strict): ``terms + c <= 0``, or ``< 0``."""
    head, *parts = formula
    if head == "or":
        return [alternative for part in parts for alternative in cases(part)]
    if head == "and":
        return every([cases(part) for part in parts])
    need(head in ("<=", ">=", "<", ">") and len(parts) == 2, "a comparison of this kind is beyond this checker")
    low, high = map(linear, parts if "<" in head else parts[::-1])
    terms = low | {k: low[k] - v if k in low else -v for k, v in high.items()}
    return [[(terms.pop("", Fraction(0)), {k: v for k, v in terms.items() if v}, len(head) == 1)]]


def linear(term):
    """A term as coefficients by name; the constant's at ''."""
    if isinstance(term, str):
        if NAME.fullmatch(term):
            return {term: 1}
        if not NUMBER.fullmatch(term):
            raise Rejected(f"{term[:50]!r} in a property is beyond this checker")
        return {"": Fraction(term)}
    head, *parts = term[0], *map(linear, term[1:])
    if head == "*" and len(parts) == 2:
        constant, other = sorted(parts, key=lambda part: not set(part) <= {""})
        need(set(constant) <= {""}, "a product of two variables is beyond this checker")
        return {k: v * constant[""] for k, v in other.items()}
    need(head in ("+", "-") and parts, f"{head!r} in a property is beyond this checker")
    kept = len(parts) if head == "+" else len(parts) > 1  # so many are added, all others subtracted
    parts = parts[:kept] + [{k: -v for k, v in part.items()} for part in parts[kept:]]
    return {k: sum(part.get(k, 0) for part in parts) for part in parts for k in part}


def stated(parts, shown=12):
    """A property in formulas, line by line: boxes, (lower, upper, unsafe sets), of each what is ``shown`` first."""
    lines = []
    for n, (lower, upper, unsafe) in enumerate(parts):
        lines += [f"Case {n + 1} of {len(parts)}:"] if len(parts) > 1 else []
        bounds = [
            f"  {float(a)!r} <= x[{i}] <= {float(b)!r}" for i, (a, b) in enumerate(zip(lower, upper, strict=True))
        ]
        sets = ["  { " + " and ".join(row_stated(*row) for row in rows) + " }" for rows in unsafe]
        for said, some in (
            (f"For every x of {len(lower)} inputs with", bounds),
            ("the output y = f(x) of the network is in none of these sets:", sets),
        ):
            more = [f"  and {len(some) - shown} more (property.vnnlib)"] if len(some) > shown else []
            lines += [said, *some[:shown], *more]
    return lines


def row_stated(terms, constant, strict):
    """A row of an unsafe set."""
    sums = [f"{'' if v == 1 else '-' if v == -1 else f'{float(v)!r} '}y[{i}]" for i, v in sorted(terms.items()) if v]
    return f"{' + '.join(sums).replace('+ -', '- ') or '0'} {'<' if strict else '<='} {float(0 - constant)!r}"


def bounds_alone(atoms):
    """Whether comparisons are bounds of single inputs, ends included."""
    return all(len(terms) == 1 and min(terms)[0] == "X" and not strict for _, terms, strict in atoms)


def conjunction(atoms, known):
    """What is at least ``side`` times each input, by (number, side), where that is less than is known; and rows."""
    ends, rows = {}, []
    for constant, terms, strict in atoms:
        if len(terms) == 1 and min(terms)[0] == "X":
            ((name, factor),) = terms.items()
            at, size = (int(name[2:]), 1 if factor > 0 else -1), abs(factor)
            end = -constant if size == 1 else -constant / size
            least = ends.get(at, known.get(at))
            if least is None or end < least:
                ends[at] = end
            if strict:  # boxes are closed: a row that no point meets keeps those at their ends from being in the set
                rows.append(({}, Fraction(0), True))
        else:
            tied = any(k[0] == "X" for k in terms)
            need(not tied, "inputs tied to each other, or to outputs, are beyond this checker")
            rows.append(({int(k[2:]): v for k, v in terms.items()}, constant, strict))
    return ends, rows


def outward(number, side):
    """The nearest float64 that is not on the inner side of a fraction."""
    near = float(number)
    above, below = near.as_integer_ratio()
    beyond = above * number.denominator - number.numerator * below
    return near if beyond * side >= 0 else nextafter(near, side * inf)
