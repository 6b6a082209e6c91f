"""SCIP through pyscipopt, for mixed-integer programs."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite
from typing import Any, ClassVar

import numpy as np

from assay.verify.programs.program import Answer, Program, Status, Vector
from assay.verify.programs.start import Begin

STATUS = {
    "optimal": Status.OPTIMAL,
    "infeasible": Status.INFEASIBLE,
    "inforunbd": Status.INFEASIBLE,  # every column has bounds
    "timelimit": Status.TIMEOUT,
    "primallimit": Status.TARGET,
    "userinterrupt": Status.FAILED,
}


@dataclass(frozen=True, eq=False)
class Model:
    """A program, written out for SCIP and solved from scratch each time."""

    program: Program
    seed: int

    def solve(self, cost: Vector, seconds: float, target: float, begin: Begin) -> Answer:
        """``cost``: (columns). One thread; ends at the first point of value ``target`` or less."""
        model, x = self._written(cost)
        model.setParam("limits/time", min(seconds, 1e9))
        if isfinite(target):
            model.setParam("limits/primal", target)
        model.optimize()
        text = model.getStatus()
        status = STATUS.get(text, Status.FAILED)
        message = text if status is Status.FAILED else ""
        bound = float(model.getDualbound())
        if not model.getNSols():
            return Answer(status, bound=bound, nodes=int(model.getNNodes()), message=message)
        best = model.getBestSol()
        point = np.array([model.getSolVal(best, v) for v in x], dtype=np.float64)
        return Answer(status, float(cost @ point), point, None, bound, int(model.getNNodes()), message)

    def _written(self, cost: Vector) -> tuple[Any, list[Any]]:
        import pyscipopt

        program, model = self.program, pyscipopt.Model()
        model.hideOutput()
        for name, value in {
            "numerics/feastol": SCIP.tolerance,
            "numerics/dualfeastol": SCIP.tolerance,
            "limits/gap": 0.0,
            "randomization/randomseedshift": self.seed % 2**31,
        }.items():
            model.setParam(name, value)
        columns = zip(program.lower.tolist(), program.upper.tolist(), program.integer.tolist(), cost, strict=True)
        x = [model.addVar(vtype="I" if whole else "C", lb=low, ub=high, obj=c) for low, high, whole, c in columns]
        matrix = program.matrix
        for i, (low, high) in enumerate(zip(program.row_lower.tolist(), program.row_upper.tolist(), strict=True)):
            part = slice(matrix.indptr[i], matrix.indptr[i + 1])
            entries = zip(matrix.indices[part].tolist(), matrix.data[part].tolist(), strict=True)
            row = pyscipopt.quicksum(value * x[j] for j, value in entries)
            if low == high:
                model.addCons(row == low)
                continue
            if low > -inf:
                model.addCons(row >= low)
            if high < inf:
                model.addCons(row <= high)
        return model, x


@dataclass(frozen=True)
class SCIP:
    """SCIP (Bolusani et al. 2024, arXiv:2402.17702)."""

    tolerance: ClassVar[float] = 1e-9
    punctual: ClassVar[bool] = True
    drops: ClassVar[float] = 1e-9

    def load(self, program: Program, threads: int, seed: int) -> Model:
        """Nothing is loaded before it is solved; it always runs on one thread."""
        return Model(program, seed)
