"""A formula as cases: boxes of inputs, each with the unsafe set of the outputs that goes with it."""

from __future__ import annotations

from assay.verify.core.errors import ResourceError
from assay.verify.core.region import Box
from assay.verify.core.spec import Spec
from assay.verify.frontends.vnnlib.boxes import Boxes, Changes, Ends
from assay.verify.frontends.vnnlib.formula import Formula
from assay.verify.frontends.vnnlib.unsafe import Rows, contradiction, unsafe_set
from assay.verify.support.plain import counted

MAX_NUMBERS = 2**24  # in all boxes together
MAX_COEFFICIENTS = 2**26  # in all specifications together

Case = tuple[Box, Spec]
Fault = tuple[str, Ends[int]]  # why a choice contradicts itself, and its bounds


def cases(formula: Formula, inputs: int, outputs: int) -> tuple[tuple[Case, ...], tuple[str, ...]]:
    """Boxes (inputs) with their specifications, and warnings; what has the same box is one case.

    Choices that contradict themselves are left out; where all do, one case remains, which is vacuous: its box is
    crossed, or its unsafe set empty.

    Raises :class:`InputError` for an input that lacks a bound, :class:`ResourceError` beyond the caps.
    """
    _check(max(inputs, outputs), MAX_NUMBERS, f"{inputs} inputs and {outputs} outputs")
    always = len(formula.choices) * len(formula.always.rows)
    _check(always * outputs, MAX_COEFFICIENTS, f"{always} comparisons of {outputs} outputs")
    boxes = Boxes(formula.always.bounds, inputs)
    groups, faults = _grouped(formula, boxes)
    _check(len(groups) * inputs, MAX_NUMBERS, f"{len(groups)} boxes of {inputs} inputs")
    count = sum(len(rows) for disjuncts in groups.values() for rows in disjuncts)
    _check(count * outputs, MAX_COEFFICIENTS, f"{count} comparisons of {outputs} outputs")
    if not groups:
        why, own = faults[0] if faults else ("a comparison of constants is false", boxes.narrowed(()))
        changes = boxes.changes(own)
        box = boxes.crossed(changes) if boxes.empty(own) else boxes.box(changes)
        return ((box, Spec(())),), (f"there is no counterexample by definition: {why}",)
    specs = [unsafe_set(disjuncts, outputs) for disjuncts in groups.values()]
    made = tuple((boxes.box(changes), spec) for changes, (spec, _) in zip(groups, specs, strict=True))
    return made, tuple(_warnings(faults, len(formula.choices), sum(rounded for _, rounded in specs)))


def _grouped(formula: Formula, boxes: Boxes) -> tuple[dict[Changes, list[Rows]], list[Fault]]:
    """The rows of each choice under its box, and the choices that contradict themselves."""
    groups: dict[Changes, list[Rows]] = {}
    faults: list[Fault] = []
    for choice in formula.choices:
        own = boxes.narrowed(choice.bounds)
        rows = formula.always.rows + choice.rows
        why = boxes.empty(own) or contradiction(rows)
        if why is None:
            groups.setdefault(boxes.changes(own), []).append(rows)
        else:
            faults.append((why, own))
    return groups, faults


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
