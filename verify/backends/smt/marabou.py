"""What Marabou (Wu et al. 2024, arXiv:2401.14461) is asked, in a process of its own.

It works in floating point with absolute tolerances. The question is exact until it is handed over, and is scaled by
powers of two then, so that every variable is of size 1 and the tolerances mean the same for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from importlib import import_module
from math import ceil, isfinite
from typing import Any

from assay.verify.backends.smt.question import Form, Point, Question, power_of_two
from assay.verify.backends.smt.z3search import Answer

Centred = tuple[Fraction, Fraction]  # middle and unit of a variable: what Marabou sees is (value - middle) / unit


@dataclass(eq=False)
class Query:
    """An input query under construction, with the middle and unit of each of the question's variables."""

    core: Any
    query: Any
    units: dict[int, Centred] = field(default_factory=dict)
    columns: dict[int, int] = field(default_factory=dict)
    size: int = 0  # of the variables; a fresh query's own count of them is not 0, but whatever was in memory

    def column(self, low: Fraction, high: Fraction) -> int:
        """A new variable within bounds."""
        new, self.size = self.size, self.size + 1
        self.query.setNumberOfVariables(self.size)
        self.query.setLowerBound(new, float(low))
        self.query.setUpperBound(new, float(high))
        return new

    def equal(self, form: Form, column: int, middle: Fraction, unit: Fraction) -> None:
        """``column`` times its unit, and its middle, is the form."""
        equation = self.core.Equation()
        constant = form.constant - middle
        for j, c in form.terms:
            shift, scale = self.units[j]
            constant += c * shift
            equation.addAddend(float(c * scale / unit), self.columns[j])
        equation.addAddend(-1.0, column)
        equation.setScalar(float(-constant / unit))
        self.query.addEquation(equation)


def first_violation(question: Question, order: Sequence[int], above: Sequence[Fraction], seconds: float) -> Answer:
    """The disjuncts in this order, until one can be reached at a margin of at most ``above`` (by disjunct)."""
    deadline, answer = time.monotonic() + seconds, Answer()
    for disjunct in order:
        left = deadline - time.monotonic()
        status, point = ("TIMEOUT", None) if left <= 0 else _solve(question, disjunct, above[disjunct], left)
        answer.queries += 1
        if status == "unsat":
            answer.proven[disjunct] = above[disjunct]
            continue
        if status == "sat" and point is not None:
            answer.point, answer.disjunct, answer.margin = point, disjunct, question.margin(disjunct, point)
        else:
            answer.stopped = status.lower()
        break
    return answer


def _solve(question: Question, disjunct: int, threshold: Fraction, seconds: float) -> tuple[str, Point | None]:
    """Marabou's answer, and a point of the box if that is "sat"."""
    core = import_module("maraboupy.MarabouCore")
    query = Query(core, core.InputQuery())
    rows, bounds, inputs = question.disjuncts[disjunct], question.bounds, len(question.box)
    for j in question.concerned([*rows, *question.limits]):
        low, high = bounds[j]
        if j < inputs:
            query.units[j] = ((low + high) / 2, (high - low) / 2)
            query.columns[j] = query.column(Fraction(-1), Fraction(1))
            query.query.markInputVariable(query.columns[j], len(query.columns) - 1)
        else:
            neuron = question.neurons[j - inputs]
            unit = power_of_two(max(neuron.upper, -neuron.lower))
            z = query.column(neuron.lower / unit, neuron.upper / unit)
            query.units[j], query.columns[j] = (Fraction(0), unit), query.column(Fraction(0), neuron.upper / unit)
            query.equal(neuron.z, z, Fraction(0), unit)
            core.addReluConstraint(query.query, z, query.columns[j])
    for row, most in [*((row, threshold) for row in rows), *((limit, Fraction(0)) for limit in question.limits)]:
        low, high = row.range(bounds)
        if low > most:
            return "unsat", None
        unit = power_of_two(max(abs(low), abs(high), Fraction(1, 2**200)))
        query.equal(row, query.column(low / unit, min(high, most) / unit), Fraction(0), unit)
    options = core.Options()
    options._verbosity, options._numWorkers, options._numBlasThreads = 0, 1, 1
    options._timeoutInSeconds = max(1, ceil(seconds)) if isfinite(seconds) else 0
    status, values, _ = core.solve(query.query, options, "")
    if status != "sat":
        return status, None
    point = []
    for j, (low, high) in enumerate(question.box):
        middle, unit = query.units.get(j, ((low + high) / 2, Fraction(0)))
        at = middle + unit * Fraction(values[query.columns[j]]) if j in query.columns else middle
        point.append(min(max(at, low), high))
    return status, tuple(point)
