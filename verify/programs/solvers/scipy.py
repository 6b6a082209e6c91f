"""scipy.optimize: ``linprog`` and ``milp``, which are HiGHS without warm starts and with tolerances of its own."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar

import numpy as np

from assay.verify.programs.program import Answer, Program, Sides, Status, Vector
from assay.verify.programs.start import Begin

STATUS = {0: Status.OPTIMAL, 1: Status.TIMEOUT, 2: Status.INFEASIBLE}


@dataclass(frozen=True, eq=False)
class Model:
    """A program, solved from scratch each time."""

    program: Program

    def solve(self, cost: Vector, seconds: float, target: float, begin: Begin) -> Answer:
        """``cost``: (columns). Neither the target nor a basis is used."""
        options = {"time_limit": min(seconds, 1e9)}
        return self._whole(cost, options) if self.program.integer.any() else self._linear(cost, options)

    def _linear(self, cost: Vector, options: dict[str, Any]) -> Answer:
        from scipy.optimize import linprog
        from scipy.sparse import vstack

        program = self.program
        sides, matrix = Sides.of(program), program.matrix
        result = linprog(
            cost,
            A_ub=vstack([matrix[sides.above], -matrix[sides.below]], format="csr"),
            b_ub=np.concatenate([program.row_upper[sides.above], -program.row_lower[sides.below]]),
            A_eq=matrix[sides.equal],
            b_eq=program.row_lower[sides.equal],
            bounds=np.stack([program.lower, program.upper], 1),
            method="highs-ds",
            options=options,
        )
        duals = None
        if result.x is not None and result.eqlin.marginals is not None:
            above, below = np.split(np.asarray(result.ineqlin.marginals, dtype=np.float64), [len(sides.above)])
            duals = np.zeros(matrix.shape[0])
            duals[sides.equal] = result.eqlin.marginals
            duals[sides.above] += above
            duals[sides.below] -= below
        return _answer(result, cost, duals)

    def _whole(self, cost: Vector, options: dict[str, Any]) -> Answer:
        from scipy.optimize import Bounds, LinearConstraint, milp

        program = self.program
        result = milp(
            cost,
            constraints=LinearConstraint(program.matrix, program.row_lower, program.row_upper),
            bounds=Bounds(program.lower, program.upper),
            integrality=program.integer.astype(int),
            options={**options, "mip_rel_gap": 0.0},
        )
        return _answer(result, cost, None)


def _answer(result: Any, cost: Vector, duals: Vector | None) -> Answer:
    status = STATUS.get(result.status, Status.FAILED)
    x = None if result.x is None else np.asarray(result.x, dtype=np.float64)
    bound = result.get("mip_dual_bound")
    return Answer(
        status,
        inf if x is None else float(cost @ x),
        x,
        duals,
        -inf if bound is None else float(bound),
        int(result.get("mip_node_count") or 0),
        "" if status is not Status.FAILED else str(result.message),
    )


@dataclass(frozen=True)
class SciPy:
    """scipy's own build of HiGHS."""

    tolerance: ClassVar[float] = 1e-6
    punctual: ClassVar[bool] = False
    drops: ClassVar[float] = 1e-9

    def load(self, program: Program, threads: int, seed: int) -> Model:
        """Nothing is loaded before it is solved; it always runs on one thread."""
        return Model(program)
