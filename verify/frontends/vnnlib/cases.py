"""A formula as cases: boxes or polytopes of inputs, each with the unsafe set of the outputs that goes with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from assay.verify.core.errors import ResourceError
from assay.verify.core.region import Box, Polytope
from assay.verify.core.spec import Spec
from assay.verify.frontends.vnnlib.boxes import Boxes, Changes, Ends
from assay.verify.frontends.vnnlib.formula import Formula, Row
from assay.verify.frontends.vnnlib.linear import Monomial, Variable
from assay.verify.frontends.vnnlib.monomials import all_within
from assay.verify.frontends.vnnlib.ties import tied
from assay.verify.frontends.vnnlib.unsafe import Rows, contradiction, unsafe_set
from assay.verify.support.plain import counted

MAX_NUMBERS = 2**24  # in all boxes together
MAX_COEFFICIENTS = 2**26  # in all specifications together

Case = tuple[Box | Polytope, Spec]
Fault = tuple[str, Ends[int]]  # why a choice contradicts itself, and its bounds
Group = tuple[Changes, Rows]  # a box, and the comparisons between its inputs


class Cases(NamedTuple):
    """``told``: what a formula says, case by case; ``linked``: inputs that outputs are compared with, by position,
    which the specifications speak of as outputs behind the others; ``monomials``: what they speak of behind these;
    ``warnings``."""

    told: tuple[Case, ...]
    linked: tuple[int, ...]
    monomials: tuple[Monomial, ...]
    warnings: tuple[str, ...]


def cases(formula: Formula, inputs: int, outputs: int) -> Cases:
    """Regions (inputs) with their specifications, and warnings; what has the same region is one case.

    Choices that contradict themselves are left out; where all do, one case remains, which is vacuous: its box is
    crossed, or its unsafe set empty.

    Raises :class:`InputError` for an input that lacks a bound, :class:`ResourceError` beyond the caps.
    """
    rows = [*formula.always.rows, *(row for choice in formula.choices for row in choice.rows)]
    monomials = all_within(monomial for row in rows for monomial, _ in row.products)
    besides = {
        name.position for one in monomials for name in one.inner if isinstance(name, Variable) and name.kind == "X"
    }
    linked = tuple(sorted({position for row in rows for position, _ in row.inputs} | besides))
    _check(max(inputs, outputs), MAX_NUMBERS, f"{inputs} inputs and {outputs} outputs")
    names = Names(outputs, linked, monomials)
    outputs += len(linked) + len(monomials)
    always = len(formula.choices) * len(formula.always.rows)
    _check(always * outputs, MAX_COEFFICIENTS, f"{always} comparisons of {outputs} outputs")
    boxes = Boxes(formula.always.bounds, inputs)
    groups, faults = _grouped(formula, boxes, names)
    _check(len(groups) * inputs, MAX_NUMBERS, f"{len(groups)} boxes of {inputs} inputs")
    count = sum(len(rows) for disjuncts in groups.values() for rows in disjuncts)
    _check(count * outputs, MAX_COEFFICIENTS, f"{count} comparisons of {outputs} outputs")
    count = sum(len(ties) for _, ties in groups)
    _check(count * inputs, MAX_COEFFICIENTS, f"{count} comparisons between {inputs} inputs")
    regions = {group: tied(boxes.box(group[0]), group[1]) for group in groups}
    for group, region in regions.items():
        if isinstance(region, Polytope) and region.empty:
            why = f"no point of the box satisfies the comparisons between {_named(group[1])}"
            faults += [(why, boxes.narrowed(()))] * len(groups.pop(group))
    if not groups:
        why, own = faults[0] if faults else ("a comparison of constants is false", boxes.narrowed(()))
        changes = boxes.changes(own)
        box = boxes.crossed(changes) if boxes.empty(own) else boxes.box(changes)
        return Cases(((box, Spec(())),), linked, monomials, (f"there is no counterexample by definition: {why}",))
    specs = [unsafe_set(disjuncts, outputs) for disjuncts in groups.values()]
    made = tuple((regions[group], spec) for group, (spec, _) in zip(groups, specs, strict=True))
    warnings = _warnings(faults, len(formula.choices), sum(rounded for _, rounded in specs))
    return Cases(made, linked, monomials, tuple(warnings))


def _grouped(formula: Formula, boxes: Boxes, names: Names) -> tuple[dict[Group, list[Rows]], list[Fault]]:
    """The rows of each choice under its box and its comparisons between inputs, and the choices that contradict
    themselves."""
    groups: dict[Group, list[Rows]] = {}
    faults: list[Fault] = []
    for choice in formula.choices:
        own = boxes.narrowed(choice.bounds)
        rows = formula.always.rows + choice.rows
        if names.behind:
            rows = tuple(names.joined(row) for row in rows)
        ties = formula.always.ties + choice.ties
        why = (
            boxes.empty(own)
            or contradiction(rows, names.at)
            or contradiction(tuple(row._replace(terms=row.inputs) for row in ties), lambda i: f"X_{i}")
        )
        if why is None:
            groups.setdefault((boxes.changes(own), ties), []).append(rows)
        else:
            faults.append((why, own))
    return groups, faults


class Names:
    """What stands behind so many outputs: inputs, by position, and monomials."""

    def __init__(self, outputs: int, linked: Sequence[int], monomials: Sequence[Monomial]) -> None:
        self.outputs, self.behind = outputs, (*(f"X_{i}" for i in linked), *map(str, monomials))
        self.inputs = {position: outputs + i for i, position in enumerate(linked)}
        self.products = {monomial: outputs + len(linked) + i for i, monomial in enumerate(monomials)}

    def at(self, column: int) -> str:
        """The name of a column."""
        return f"Y_{column}" if column < self.outputs else self.behind[column - self.outputs]

    def joined(self, row: Row) -> Row:
        """A row as one of outputs, with the others at their columns."""
        inputs = ((self.inputs[i], c) for i, c in row.inputs)
        products = ((self.products[monomial], c) for monomial, c in row.products)
        return Row((*row.terms, *inputs, *products), row.limit, row.strict)


def _named(ties: Rows) -> str:
    positions = sorted({position for row in ties for position, _ in row.inputs})
    few = ", ".join(f"X_{position}" for position in positions[:4])
    return f"{few} and others" if len(positions) > 4 else few


def _warnings(faults: list[Fault], choices: int, rounded: int) -> list[str]:
    warnings = []
    if faults:
        warnings.append(
            f"{counted(len(faults), 'disjunct')} of {choices} left out, being empty; the first: {faults[0][0]}"
        )
    if rounded:
        warnings.append(
            f"coefficients were rounded to the nearest float64 in {counted(rounded, 'comparison')} of outputs"
        )
    return warnings


def _check(number: int, cap: int, what: str) -> None:
    if number > cap:
        raise ResourceError(f"the property has {what}: too many")
