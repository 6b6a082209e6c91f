"""The solvers that PuLP brings along, for mixed-integer programs: CBC, in a process of its own, and HiGHS."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any, ClassVar

import numpy as np

from assay.verify.programs.program import Answer, Program, Status, Vector
from assay.verify.programs.start import Begin


@dataclass(frozen=True, eq=False)
class Model:
    """A program, written out for PuLP and solved from scratch each time."""

    program: Program
    name: str
    threads: int
    seed: int

    def solve(self, cost: Vector, seconds: float, target: float, begin: Begin) -> Answer:
        """``cost``: (columns). Neither the target nor a basis is used."""
        import pulp

        begun = time.monotonic()
        problem, x = self._written(cost)
        try:
            problem.solve(self._solver(max(seconds, 0.01)))
        except pulp.PulpSolverError as error:
            return Answer(Status.FAILED, message=str(error))
        status = Status.TIMEOUT if time.monotonic() - begun >= seconds else Status.FAILED
        if problem.sol_status == pulp.LpSolutionOptimal:
            status = Status.OPTIMAL
        elif problem.status == pulp.LpStatusInfeasible:
            status = Status.INFEASIBLE
        feasible = problem.sol_status in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible)
        if not feasible:
            return Answer(status, message=pulp.LpStatus[problem.status] if status is Status.FAILED else "")
        # A column that occurs nowhere is not passed on, and has no value.
        values = [low if v.varValue is None else v.varValue for v, low in zip(x, self.program.lower, strict=True)]
        point = np.array(values, dtype=np.float64)
        value = float(cost @ point)
        return Answer(status, value, point, bound=value if status is Status.OPTIMAL else -inf)

    def _written(self, cost: Vector) -> tuple[Any, list[Any]]:
        import pulp

        program = self.program
        problem = pulp.LpProblem("program", pulp.LpMinimize)
        columns = zip(program.lower.tolist(), program.upper.tolist(), program.integer.tolist(), strict=True)
        x = [
            problem.add_variable(f"x{j}", low, high, "Integer" if whole else "Continuous")
            for j, (low, high, whole) in enumerate(columns)
        ]
        problem += pulp.LpAffineExpression({x[j]: float(cost[j]) for j in np.flatnonzero(cost)})
        matrix = program.matrix
        for i, (low, high) in enumerate(zip(program.row_lower.tolist(), program.row_upper.tolist(), strict=True)):
            part = slice(matrix.indptr[i], matrix.indptr[i + 1])
            entries = zip(matrix.indices[part].tolist(), matrix.data[part].tolist(), strict=True)
            row = pulp.LpAffineExpression({x[j]: value for j, value in entries})
            if low == high:
                problem += row == low
                continue
            if isfinite(low):
                problem += row >= low
            if isfinite(high):
                problem += row.copy() <= high
        return problem, x

    def _solver(self, seconds: float) -> Any:
        import pulp

        limit = seconds if isfinite(seconds) else None
        shared = {"msg": False, "gapAbs": 1e-9, "gapRel": 0.0, "threads": self.threads, "timeLimit": limit}
        if self.name == "highs":
            tolerances = dict.fromkeys(
                ("primal_feasibility_tolerance", "dual_feasibility_tolerance", "mip_feasibility_tolerance"),
                PuLP.tolerance,
            )
            return pulp.HiGHS(**shared, **tolerances, random_seed=self.seed % 2**31)
        fine = [f"{name} {PuLP.tolerance}" for name in ("primalTolerance", "dualTolerance", "integerTolerance")]
        bundled = pulp.PULP_CBC_CMD.pulp_cbc_path
        return pulp.COIN_CMD(**shared, path=bundled, options=[*fine, f"randomCbcSeed {self.seed % 2**31}"])


@dataclass(frozen=True)
class PuLP:
    """PuLP with the solver called ``name``, ``cbc`` or ``highs``."""

    name: str
    tolerance: ClassVar[float] = 1e-9
    punctual: ClassVar[bool] = False
    drops: ClassVar[float] = 1e-9

    def load(self, program: Program, threads: int, seed: int) -> Model:
        """Nothing is loaded before it is solved."""
        return Model(program, self.name, threads, seed)
