"""A linear or mixed-integer program in one neutral form, the draft that it grows from, and a solver's answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from functools import cached_property
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Vector = NDArray[np.float64]
Index = NDArray[np.int64]
Matrix = Any  # scipy.sparse.csr_array, which has no types

# Row, column and value of some coefficients; rows are counted from the first of those that are added together.
Entries = tuple[Index, Index, Vector]


@dataclass(frozen=True, eq=False)
class Ball:
    """``||x[columns] - centre||_2 <= radius``, the one constraint that is not linear."""

    columns: Index
    centre: Vector
    radius: float


@dataclass(frozen=True, eq=False)
class Rests:
    """Where each column comes to lie when it is pushed down or up: on the row ``floor`` or ``ceiling``, -1 for its own
    bound (columns). In these rows its coefficient is 1, and they hold no later columns, and none of its own block;
    ``blocks`` (blocks + 1) are the first columns of the blocks, and the end.
    """

    floor: Index
    ceiling: Index
    blocks: Index


@dataclass(frozen=True, eq=False)
class Program:
    """Minimise ``cost @ x + offset`` where ``row_lower <= matrix @ x <= row_upper``, ``lower <= x <= upper`` and
    ``x[integer]`` is whole.

    ``matrix``: sparse, (rows x columns), compressed by rows. Bounds of columns are finite, those of rows need not be.
    """

    matrix: Matrix
    row_lower: Vector
    row_upper: Vector
    lower: Vector
    upper: Vector
    integer: NDArray[np.bool_]
    cost: Vector
    offset: float = 0.0
    ball: Ball | None = None
    rests: Rests | None = None

    def relaxed(self) -> Program:
        """The linear program without integrality."""
        return replace(self, integer=np.zeros_like(self.integer))

    def limited(self, most: float) -> Program:
        """The program with one more row, which holds its objective at ``most`` or less."""
        return replace(
            self,
            matrix=sparse.vstack([self.matrix, sparse.csr_array(self.cost[None])], format="csr"),
            row_lower=np.append(self.row_lower, -inf),
            row_upper=np.append(self.row_upper, most - self.offset),
        )

    @cached_property
    def transposed(self) -> Matrix:
        """The matrix, (columns x rows)."""
        return self.matrix.T.tocsr()

    @cached_property
    def magnitudes(self) -> Matrix:
        """Absolute values of the transposed matrix."""
        return abs(self.transposed)

    @cached_property
    def longest(self) -> int:
        """The most rows that a column is in."""
        return int(np.diff(self.transposed.indptr).max(initial=0))

    @cached_property
    def widest(self) -> int:
        """The most columns that a row holds."""
        return int(np.diff(self.matrix.indptr).max(initial=0))

    @cached_property
    def reach(self) -> Vector:
        """The largest absolute value of each column within its bounds: (columns)."""
        return np.maximum(np.abs(self.lower), np.abs(self.upper))

    @cached_property
    def row_reach(self) -> Vector:
        """The largest absolute value of a single term of each row: (rows)."""
        terms = abs(self.matrix)
        terms.data *= self.reach[terms.indices]
        return _largest_by_row(terms)


class Status(StrEnum):
    """What a solver says of its answer; only OPTIMAL and INFEASIBLE are claims."""

    OPTIMAL = "optimal"
    INFEASIBLE = "infeasible"
    TARGET = "target"  # a point at least as good as the target was found, and the search ended
    CUTOFF = "cutoff"  # the dual objective passed the cutoff, and the search ended
    TIMEOUT = "timeout"
    FAILED = "failed"  # anything else: inaccurate, unknown, an error


@dataclass(frozen=True, eq=False)
class Answer:
    """``value`` at the point ``x``, if there is one; ``duals`` of the rows of a linear program, if there are any.

    Nothing here is proved: ``duals`` become a bound through :func:`dual.safe_bounds`. ``bound`` is the
    solver's own lower bound of a mixed-integer program; ``message`` what it says of a failure.
    """

    status: Status
    value: float = inf
    x: Vector | None = None
    duals: Vector | None = None
    bound: float = -inf
    nodes: int = 0
    message: str = ""


@dataclass(frozen=True, eq=False)
class Sides:
    """Rows by the kind of their bounds: ``equal`` ones, those bounded from ``below``, those from ``above``; numbers
    of rows. A row with two different finite bounds is of both of the latter kinds."""

    equal: Index
    below: Index
    above: Index

    @classmethod
    def of(cls, program: Program) -> Sides:
        """The rows of ``program``."""
        equal = program.row_lower == program.row_upper
        below, above = (~equal & np.isfinite(side) for side in (program.row_lower, program.row_upper))
        return cls(*(np.flatnonzero(kind) for kind in (equal, below, above)))


@dataclass(eq=False)
class Draft:
    """A program under construction: columns and rows are added in blocks and never change places."""

    lower: list[Vector] = field(default_factory=list)
    upper: list[Vector] = field(default_factory=list)
    integer: list[NDArray[np.bool_]] = field(default_factory=list)
    row_lower: list[Vector] = field(default_factory=list)
    row_upper: list[Vector] = field(default_factory=list)
    entries: list[Entries] = field(default_factory=list)
    floor: list[Index] = field(default_factory=list)
    ceiling: list[Index] = field(default_factory=list)
    width: int = 0
    height: int = 0
    ball: Ball | None = None

    def columns(self, lower: Vector, upper: Vector, integer: bool = False) -> Index:
        """Add columns with these bounds (new columns); returns their numbers: (new columns)."""
        self.lower.append(lower)
        self.upper.append(upper)
        self.integer.append(np.full(len(lower), integer))
        self.floor.append(np.full(len(lower), -1))
        self.ceiling.append(np.full(len(lower), -1))
        self.width += len(lower)
        return np.arange(self.width - len(lower), self.width)

    def rest(self, floor: Index, ceiling: Index) -> None:
        """Say on which rows the columns added last come to lie (:class:`Rests`): (new columns) each."""
        self.floor[-1], self.ceiling[-1] = floor, ceiling

    def rows(self, entries: Sequence[Entries], lower: Vector, upper: Vector) -> Index:
        """Add rows with these bounds (new rows); returns their numbers: (new rows)."""
        self.entries += [(row + self.height, column, value) for row, column, value in entries]
        self.row_lower.append(lower)
        self.row_upper.append(upper)
        self.height += len(lower)
        return np.arange(self.height - len(lower), self.height)

    def copy(self) -> Draft:
        """An independent copy."""
        lists: dict[str, Any] = {f.name: list(v) for f in fields(self) if isinstance(v := getattr(self, f.name), list)}
        return replace(self, **lists)

    def bounds(self) -> tuple[Vector, Vector]:
        """Lower and upper bounds of all columns: (columns) each."""
        return _joined(self.lower), _joined(self.upper)

    def program(self, cost: Vector | None = None, offset: float = 0.0) -> Program:
        """The program as it stands; ``cost`` (first columns, any number), the others cost 0."""
        row, column, value = map(np.concatenate, zip(EMPTY, *self.entries, strict=True))
        shape = (self.height, self.width)
        return Program(
            sparse.csr_array((value, (row, column)), shape=shape),
            _joined(self.row_lower),
            _joined(self.row_upper),
            *self.bounds(),
            np.concatenate(self.integer) if self.integer else np.zeros(0, dtype=bool),
            widened(np.zeros(0) if cost is None else cost, self.width),
            offset,
            self.ball,
            Rests(_numbers(self.floor), _numbers(self.ceiling), np.cumsum([0, *map(len, self.lower)])),
        )


EMPTY: Entries = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))


def widened(cost: Vector, width: int) -> Vector:
    """``cost`` (its columns) with zeros up to ``width`` columns: (width)."""
    return np.concatenate([cost, np.zeros(width - len(cost))])


def _joined(parts: Sequence[Vector]) -> Vector:
    return np.concatenate(parts) if parts else np.zeros(0)


def _numbers(parts: Sequence[Index]) -> Index:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _largest_by_row(matrix: Matrix) -> Vector:
    """The largest entry of each row of a matrix without negative entries; 0 for an empty row."""
    largest = np.zeros(matrix.shape[0])
    full = np.diff(matrix.indptr) > 0
    largest[full] = np.maximum.reduceat(matrix.data, matrix.indptr[:-1][full]) if full.any() else 0
    return largest
