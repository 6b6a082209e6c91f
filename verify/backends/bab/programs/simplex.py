"""A linear program inside HiGHS, solved again and again within other bounds: each solve is the dual simplex method
from a basis of the caller's choice.

What is passed in and out is on the program's own scale; inside it is that of :mod:`assay.verify.programs.scaling`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from assay.verify.backends.bab.programs.splits import ACTIVE, INACTIVE, OPEN, Phases, Splits
from assay.verify.programs.program import Status, Vector
from assay.verify.programs.scaling import scaled
from assay.verify.programs.solvers.highs import Model

# What pays off in long solves costs more than a solve of a few steps: exact edge weights for the basis that it begins
# from, and costs that are perturbed and put right again.
FEW_STEPS = {"simplex_dual_edge_weight_strategy": 1, "dual_simplex_cost_perturbation_multiplier": 0.0}


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
        self._model = Model(self._change.program, threads, seed, FEW_STEPS)
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
            self._model.aim(objective.cost)

    def within(self, phases: Phases) -> None:
        """Put the unstable neurons into these phases: (neurons)."""
        if phases is not self._phases:
            self._phases = phases
            upper = self._most.copy()
            upper[: len(phases)][phases == INACTIVE] = 0.0
            upper[len(phases) :][phases == ACTIVE] = 0.0
            self._model.highs.changeColsBounds(len(upper), self._parts, self._least, upper)

    def solve(self, basis: Any, cutoff: float, seconds: float) -> Status:
        """Minimise, from ``basis`` if there is one, until the dual objective passes ``cutoff``."""
        highs = self._model.highs
        if basis is not None:
            highs.setBasis(basis)
        highs.setOptionValue("objective_bound", (cutoff - self._objective.offset) / self._objective.unit)
        return self._model.run(max(seconds, 0.0))

    @property
    def basis(self) -> Any:
        """The basis that the last solve ended with."""
        return self._model.highs.getBasis()

    @property
    def value(self) -> float:
        """The objective at the point that the last solve ended with."""
        value: float = self._model.highs.getObjectiveValue() * self._objective.unit + self._objective.offset
        return value

    def solution(self) -> tuple[Vector, Vector]:
        """Point (columns) and duals (rows) of the last solve."""
        solution = self._model.highs.getSolution()
        return np.array(solution.col_value) * self._change.columns, self._own(solution.row_dual)

    def duals(self) -> Vector:
        """The duals alone (rows)."""
        return self._own(self._model.highs.getSolution().row_dual)

    def _own(self, duals: Any) -> Vector:
        own: Vector = np.array(duals) * self._change.rows * self._objective.unit
        return own

    def ray(self) -> Vector | None:
        """Multipliers of the rows (rows) that show that there is no point, if the last solve has found such."""
        _, exists, ray = self._model.highs.getDualRay()
        return np.array(ray) * self._change.rows if exists else None
