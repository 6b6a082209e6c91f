"""A property or a problem as a VNN-LIB 1.0 file, in decimals that read back as the same float64 numbers."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator, Sequence
from decimal import Context, Decimal
from fractions import Fraction
from math import inf, nextafter, prod
from pathlib import Path

import torch

from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall, Polytope, Region
from assay.verify.core.spec import Polyhedron, Spec
from assay.verify.frontends.vnnlib.boxes import float_ends
from assay.verify.frontends.vnnlib.cases import Case
from assay.verify.frontends.vnnlib.linear import Form, Monomial
from assay.verify.frontends.vnnlib.property import Property
from assay.verify.support.files import replace_file

FALSE = "(and (<= Y_0 0.0) (>= Y_0 1.0))"
LONG = 60  # characters; a longer decimal is written with an exponent

_EXACT = Context(prec=1200)  # holds every float64, and the middle of two


def write_vnnlib(what: Property | Problem, path: str | Path) -> None:
    """Write the counterexamples of a property, or of a problem on a box, an linf ball or a polytope; gzipped if
    ``path`` ends so.

    float64 numbers are written exactly. A bound that lies between two of them, as the ``inner`` box tells, becomes a
    short decimal between the two. The file appears whole or not at all.

    Raises :class:`UnsupportedError` for other regions, :class:`InputError` for infinite bounds and where the file
    cannot be written.
    """
    path = Path(path)
    content = encode(what)
    replace_file(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def encode(what: Property | Problem) -> bytes:
    """The content of the file. Raises what :func:`write_vnnlib` does for what cannot be written."""
    if isinstance(what, Problem):
        network = what.network
        cases: Sequence[Case] = [(_flat(what.region), what.spec)]
        lines = _lines(range(prod(network.input_shape)), network.output_size, cases)
    else:
        lines = _lines(what.shared or range(what.inputs), what.outputs, what.cases, what.linked, what.monomials)
    return "".join(f"{line}\n" for line in lines).encode("ascii")


def _lines(
    shared: Sequence[int],
    outputs: int,
    cases: Sequence[Case],
    linked: Sequence[int] = (),
    monomials: Sequence[Monomial] = (),
) -> Iterator[str]:
    yield "; VNN-LIB 1.0: the inputs and outputs that are counterexamples"
    yield from (f"(declare-const X_{i} Real)" for i in range(len(shared)))
    yield from (f"(declare-const Y_{i} Real)" for i in range(outputs))
    first = {place: i for i, place in reversed(list(enumerate(shared)))}
    inputs = [f"X_{first[place]}" for place in range(len(first))]
    for i, place in enumerate(shared):
        if first[place] != i:
            yield f"(assert (and (<= X_{i} {inputs[place]}) (>= X_{i} {inputs[place]})))"
    products = [_product(monomial, inputs) for monomial in monomials]
    names = [*(f"Y_{i}" for i in range(outputs)), *(inputs[i] for i in linked), *products]
    bounds = [_bounds(region.within if isinstance(region, Polytope) else region, inputs) for region, _ in cases]
    common = [len(set(alike)) == 1 for alike in zip(*bounds, strict=True)]
    yield from (f"(assert {bound})" for bound, shared in zip(bounds[0], common, strict=True) if shared)
    if len(cases) == 1:
        ((region, spec),) = cases
        yield from (f"(assert {part})" for part in (*_ties(region, inputs), *_unsafe(spec, names)))
        return
    yield "(assert (or"
    for own, (region, spec) in zip(bounds, cases, strict=True):
        parts = [bound for bound, shared in zip(own, common, strict=True) if not shared]
        yield f"    (and {' '.join([*(parts or own[:1]), *_ties(region, inputs), *_unsafe(spec, names)])})"
    yield "))"


def _bounds(box: Box, names: Sequence[str]) -> list[str]:
    """The bounds of all inputs, lower and upper in turn."""
    if not bool((box.lower.isfinite() & box.upper.isfinite()).all()):
        raise InputError("a VNN-LIB file needs a finite lower and upper bound for every input")
    inner = box if box.inner is None else box.inner
    numbers = zip(*(bound.tolist() for bound in (box.lower, inner.lower, inner.upper, box.upper)), strict=True)
    lines = []
    for name, (lower, least, most, upper) in zip(names, numbers, strict=True):
        lines += [f"(>= {name} {_end(lower, least, inf)})", f"(<= {name} {_end(upper, most, -inf)})"]
    return lines


def _ties(region: Box | Polytope, names: Sequence[str]) -> list[str]:
    """The comparisons between inputs."""
    if not isinstance(region, Polytope):
        return []
    inner = region.inner or region.rows
    columns = (region.A, region.b, inner.b, inner.strict)
    return [
        _row([(names[i], a) for i, a in enumerate(row) if a], _end(outer, least, -inf), "<" if strict else "<=")
        for row, outer, least, strict in zip(*(column.tolist() for column in columns), strict=True)
    ]


def _unsafe(spec: Spec, names: Sequence[str]) -> list[str]:
    """Formulas that together describe the unsafe set."""
    if not spec.disjuncts:
        return [FALSE]
    polyhedra = [_rows(polyhedron, names) for polyhedron in spec.disjuncts]
    if not all(polyhedra):
        return []
    if len(polyhedra) == 1:
        return polyhedra[0]
    conjunctions = [f"(and {' '.join(rows)})" for rows in polyhedra]
    return [f"(or {' '.join(conjunctions)})"]


def _rows(polyhedron: Polyhedron, names: Sequence[str]) -> list[str]:
    rows = zip(polyhedron.A.tolist(), polyhedron.b.tolist(), polyhedron.strict.tolist(), strict=True)
    return [
        _row([(names[i], a) for i, a in enumerate(row) if a], _decimal(b), "<" if strict else "<=")
        for row, b, strict in rows
    ]


def _row(terms: list[tuple[str, float]], limit: str, operator: str) -> str:
    """``sum of coefficient * name <= limit``, in the form that people write where there is one."""
    match terms:
        case []:
            return f"({operator} 0.0 {limit})"
        case [(name, 1.0)]:
            return f"({operator} {name} {limit})"
        case [(name, -1.0)]:
            opposite = limit[1:] if limit.startswith("-") else f"-{limit}" if float(limit) else limit
            return f"({operator.replace('<', '>')} {name} {opposite})"
        case [(one, 1.0), (other, -1.0)] | [(other, -1.0), (one, 1.0)] if float(limit) == 0:
            return f"({operator} {one} {other})"
    products = [f"(* {_decimal(a)} {name})" for name, a in terms]
    return f"({operator} (+ {' '.join(products)}) {limit})"


def _product(monomial: Monomial, inputs: Sequence[str]) -> str:
    """The powers that are multiplied, and then those that this is divided by."""
    above: list[str] = []
    below: list[str] = []
    for form, exponent in monomial.factors:
        (above if exponent > 0 else below).extend([_sum(form, inputs)] * abs(exponent))
    product = f"(* {' '.join(above)})" if len(above) > 1 else (above or ["1.0"])[0]
    return f"(/ {' '.join([product, *below])})" if below else product


def _sum(form: Form, inputs: Sequence[str]) -> str:
    parts = []
    for name, factor in form.terms:
        if isinstance(name, Monomial):
            text = _product(name, inputs)
        else:
            text = inputs[name.position] if name.kind == "X" else str(name)
        parts.append(text if factor == 1 else f"(* {_decimal(float(factor))} {text})")
    parts += [_decimal(float(form.constant))] if form.constant else []
    return parts[0] if len(parts) == 1 else f"(+ {' '.join(parts)})"


def _end(outer: float, inner: float, inward: float) -> str:
    """A bound of which ``outer`` is the rounding outward and ``inner``, its neighbour if not the same, that inward."""
    if inner == outer or inner != nextafter(outer, inward):
        return _decimal(outer)
    low, high = sorted((outer, inner))
    middle = _EXACT.divide(_EXACT.add(Decimal(low), Decimal(high)), Decimal(2))
    rounded = (Context(prec=digits).plus(middle) for digits in range(1, _EXACT.prec))
    return _text(next(decimal for decimal in rounded if low < decimal < high))


def _decimal(value: float) -> str:
    """The exact value."""
    return _text(Decimal(value + 0.0))  # no -0.0


def _text(value: Decimal) -> str:
    text = f"{value:f}"
    if len(text) > LONG:
        return str(value)
    return text if "." in text else f"{text}.0"


def _flat(region: Region) -> Box | Polytope:
    """The region, flat, an linf ball as a box with an ``inner`` box."""
    if isinstance(region, Box | Polytope):
        return region.map(torch.flatten)
    if not isinstance(region, LpBall) or region.p != inf:
        raise UnsupportedError("VNN-LIB files hold linear constraints: expected a box, an linf ball or a polytope")
    domain = region.domain or (-sys.float_info.max, sys.float_info.max)
    sides = (region.centre, region.radius, *(torch.as_tensor(side, dtype=torch.float64) for side in domain))
    numbers = zip(*(side.expand_as(region.centre).flatten().tolist() for side in sides), strict=True)
    ends = [
        float_ends((max(centre - radius, low), False), (min(centre + radius, high), True))
        for centre, radius, low, high in (map(Fraction, row) for row in numbers)
    ]
    lower, upper, least, most = torch.tensor(ends, dtype=torch.float64).T
    return Box(lower, upper, Box(least, most))
