"""Programs brought to one scale by powers of two, so that a solver's absolute tolerances mean the same everywhere.

Columns come to lie within [-1, 1] or so and the largest coefficient of a row near 1, which changes no number but its
exponent. Many solvers drop coefficients below 1e-9; on this scale such a coefficient moves a row by less than 1e-9 of
its size, and it is moved into the row's bounds, outward, before a solver can drop it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from assay.verify.programs.program import Answer, Program, Vector

DROPPED = 1e-9


@dataclass(frozen=True, eq=False)
class Scaled:
    """``program`` in units of its own: a column is ``columns`` times the new one, a new row ``rows`` times the row."""

    program: Program
    columns: Vector
    rows: Vector

    def cost(self, cost: Vector) -> tuple[Vector, float]:
        """A cost vector (columns) on the new scale, and what one unit of the new cost is worth."""
        scaled = cost * self.columns
        unit = float(_power(np.abs(scaled).max(initial=0.0)))
        return scaled / unit, unit

    def back(self, answer: Answer, unit: float, offset: float) -> Answer:
        """A solver's answer to the new program as one to the old program."""
        return replace(
            answer,
            value=answer.value * unit + offset,
            bound=answer.bound * unit + offset,
            x=None if answer.x is None else answer.x * self.columns,
            duals=None if answer.duals is None else answer.duals * self.rows * unit,
        )


@np.errstate(all="ignore")  # what overflows makes a program that the solver refuses
def scaled(program: Program, dropped: float = DROPPED) -> Scaled:
    """``program`` at scale, without coefficients below ``dropped``; whole-numbered columns and those of a ball keep
    theirs."""
    columns = _power(program.reach)
    columns[program.integer] = 1.0
    if program.ball is not None:
        columns[program.ball.columns] = 1.0
    matrix = program.matrix.copy()
    matrix.data *= columns[matrix.indices]
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    largest = np.zeros(matrix.shape[0])
    np.maximum.at(largest, row, np.abs(matrix.data))
    rows = 1 / _power(largest)
    matrix.data *= rows[row]
    lower, upper = program.lower / columns, program.upper / columns
    row_lower, row_upper = program.row_lower * rows, program.row_upper * rows
    small = np.abs(matrix.data) < dropped
    if small.any():
        # Only what is not zero moves a bound, by at least an ulp, which covers the rounding of the sums.
        part, at = matrix.data[small], row[small]
        ends = np.stack([part * lower[matrix.indices[small]], part * upper[matrix.indices[small]]])
        np.subtract.at(row_lower, at, ends.max(0))
        np.subtract.at(row_upper, at, ends.min(0))
        moved = np.unique(at)
        row_lower[moved] = np.nextafter(row_lower[moved] - 1e-15 * np.abs(row_lower[moved]), -np.inf)
        row_upper[moved] = np.nextafter(row_upper[moved] + 1e-15 * np.abs(row_upper[moved]), np.inf)
        matrix.data[small] = 0.0
        matrix.eliminate_zeros()
    change = Scaled(program, columns, rows)
    return replace(
        change,
        program=replace(
            program,
            matrix=sparse.csr_array(matrix),
            row_lower=row_lower,
            row_upper=row_upper,
            lower=lower,
            upper=upper,
            cost=change.cost(program.cost)[0],
            offset=0.0,
        ),
    )


def _power(values: Vector) -> Vector:
    """The power of two next to each value; 1 for 0 and for what is not finite."""
    exponent = np.frexp(np.where(np.isfinite(values) & (values > 0), values, 0.75))[1]
    powers: Vector = np.ldexp(1.0, np.clip(exponent, -900, 900))
    return powers
