"""A basis to begin with, dual feasible and often nearly optimal: the lines that CROWN (Zhang et al. 2018,
arXiv:1811.00866) would choose.

Going backwards through the columns, each is pushed down where its reduced cost is positive and up where it is negative,
and comes to lie on the row that limits it there, which passes the cost on to earlier columns. The basis is triangular,
and its dual objective is CROWN's bound. On large programs the simplex method ends up to a hundred times sooner than
from the basis of slacks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assay.verify.programs.program import Program, Vector

LOWER, BASIC, UPPER = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Start:
    """The status of each column and of each row: LOWER, BASIC or UPPER; and the basis's ``duals`` (rows)."""

    columns: NDArray[np.int8]
    rows: NDArray[np.int8]
    duals: Vector


# What makes a basis for a solver that wants one.
Begin = Callable[[], Start | None]


def start(program: Program, cost: Vector) -> Start | None:
    """The basis for ``cost`` (columns); None for a program that does not tell where its columns rest."""
    rests = program.rests
    if rests is None:
        return None
    columns = np.full(len(cost), LOWER, dtype=np.int8)
    rows = np.full(len(program.row_lower), BASIC, dtype=np.int8)
    duals, reduced = np.zeros(len(rows)), cost
    for begin, end in zip(rests.blocks[-2::-1], rests.blocks[:0:-1], strict=True):
        part = reduced[begin:end]
        up = part < 0
        row = np.where(up, rests.ceiling[begin:end], rests.floor[begin:end])
        columns[begin:end] = np.where(row >= 0, BASIC, np.where(up, UPPER, LOWER))
        taken = row[row >= 0]
        if len(taken):
            rows[taken] = np.where(up[row >= 0], UPPER, LOWER)
            duals[taken] = part[row >= 0]
            reduced = cost - program.transposed @ duals
    return Start(columns, rows, duals)
