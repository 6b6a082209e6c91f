"""A linear program inside HiGHS (Huangfu, Hall 2018, doi:10.1007/s12532-017-0130-5), solved again and again within
other bounds: each solve is the dual simplex method from a basis of the caller's choice.

What is passed in and out is on the program's own scale; inside it is that of :mod:`assay.verify.programs.scaling`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Any

import numpy as np

from assay.verify.backends.bab.splits import ACTIVE, INACTIVE, OPEN, Phases, Splits
from assay.verify.programs.program import Vector
from assay.verify.programs.scaling import scaled
from assay.verify.programs.solvers import highs
from assay.verify.programs.start import Start

# What pays off in long solves costs more than a solve of a few steps: exact edge weights for the basis that it begins
# from, and costs that are perturbed and put right again.
FEW_STEPS = {"simplex_dual_edge_weight_strategy": 1, "dual_simplex_cost_perturbation_multiplier": 0.0}


class End(Enum):
    """How a solve ended: at an optimum, at a dual objective beyond the cutoff, without a point, or otherwise."""

    OPTIMAL = "optimal"
    CUTOFF = "cutoff"
    EMPTY = "empty"
    TIMEOUT = "timeout"
    FAILED = "failed"


@dataclass(frozen=True, eq=False)
class Objective:
    """What is minimised: ``unit`` times the solver's objective, ``cost`` (columns) at scale, and ``offset``."""

    cost: Vector
    unit: float
    offset: float


class Simplex:
    """The program of ``splits``, loaded once. ``nothing``: duals that are all 0 (rows)."""

    def __init__(self, splits: Splits, threads: int, seed: int) -> None:
        program = splits.program
        self._splits, self._change = splits, scaled(program)
        self._highs = highs.made(highs.settings(False, threads, seed) | FEW_STEPS)
        self._highs.passModel(highs.as_lp(self._change.program))
        self._ends = _ends()
        self._all = np.arange(len(program.lower), dtype=np.int32)
        self._parts = np.concatenate([splits.a, splits.p]).astype(np.int32)
        self._most, self._least = self._change.program.upper[self._parts], np.zeros(len(self._parts))
        self._phases = np.full(len(splits), OPEN, dtype=np.int8)
        self._objective = Objective(np.zeros(len(program.lower)), 1.0, 0.0)
        self.nothing = np.zeros(len(program.row_lower))

    def objective(self, cost: Vector, offset: float) -> Objective:
        """``cost @ x + offset``, cost (columns)."""
        return Objective(*self._change.cost(cost), offset)

    def aim(self, objective: Objective) -> None:
        """Minimise this from now on."""
        if objective is not self._objective:
            self._objective = objective
            self._highs.changeColsCost(len(self._all), self._all, objective.cost)

    def within(self, phases: Phases) -> None:
        """Put the unstable neurons into these phases: (neurons)."""
        if phases is not self._phases:
            self._phases = phases
            upper = self._most.copy()
            upper[: len(phases)][phases == INACTIVE] = 0.0
            upper[len(phases) :][phases == ACTIVE] = 0.0
            self._highs.changeColsBounds(len(upper), self._parts, self._least, upper)

    def solve(self, basis: Any, cutoff: float, seconds: float) -> End:
        """Minimise, from ``basis`` if there is one, until the dual objective passes ``cutoff``."""
        handle = self._highs
        if basis is not None:
            handle.setBasis(basis)
        handle.setOptionValue("objective_bound", (cutoff - self._objective.offset) / self._objective.unit)
        end = self._run(seconds)
        if end is End.FAILED:  # once more, from scratch, and whatever the number of threads was before
            handle.clearSolver()
            handle.resetGlobalScheduler(True)
            end = self._run(seconds)
        return end

    def _run(self, seconds: float) -> End:
        if seconds < inf:
            self._highs.setOptionValue("time_limit", self._highs.getRunTime() + max(seconds, 0.0))
        self._highs.run()
        return self._ends.get(self._highs.getModelStatus(), End.FAILED)

    @staticmethod
    def as_basis(begin: Start) -> Any:
        """As HiGHS has it."""
        return highs.as_basis(begin)

    @property
    def basis(self) -> Any:
        """The basis that the last solve ended with."""
        return self._highs.getBasis()

    @property
    def value(self) -> float:
        """The objective at the point that the last solve ended with."""
        value: float = self._highs.getObjectiveValue() * self._objective.unit + self._objective.offset
        return value

    def solution(self) -> tuple[Vector, Vector]:
        """Point (columns) and duals (rows) of the last solve."""
        solution = self._highs.getSolution()
        x, duals = np.array(solution.col_value), np.array(solution.row_dual)
        return x * self._change.columns, duals * self._change.rows * self._objective.unit

    def duals(self) -> Vector:
        """The duals alone (rows)."""
        duals: Vector = np.array(self._highs.getSolution().row_dual) * self._change.rows * self._objective.unit
        return duals

    def ray(self) -> Vector | None:
        """Multipliers of the rows (rows) that show that there is no point, if the last solve has found such."""
        _, exists, ray = self._highs.getDualRay()
        return np.array(ray) * self._change.rows if exists else None


def _ends() -> dict[Any, End]:
    import highspy

    status = highspy.HighsModelStatus
    return {
        status.kOptimal: End.OPTIMAL,
        status.kObjectiveBound: End.CUTOFF,
        status.kInfeasible: End.EMPTY,
        status.kUnboundedOrInfeasible: End.EMPTY,  # every column has bounds
        status.kTimeLimit: End.TIMEOUT,
    }
