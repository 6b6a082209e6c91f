"""Gurobi through gurobipy, for mixed-integer programs; its free licence takes 2000 columns and rows at most."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar

import numpy as np

from assay.verify.programs.program import Answer, Program, Sides, Status, Vector
from assay.verify.programs.start import Begin


@dataclass(frozen=True, eq=False)
class Model:
    """A program, solved from scratch each time."""

    program: Program
    threads: int
    seed: int

    def solve(self, cost: Vector, seconds: float, target: float, begin: Begin) -> Answer:
        """``cost``: (columns). Ends at the first point of value ``target`` or less."""
        import gurobipy

        try:
            with gurobipy.Env(params={"OutputFlag": 0}) as env, gurobipy.Model(env=env) as model:
                x = self._written(model, cost)
                model.Params.TimeLimit = min(seconds, 1e9)
                model.Params.BestObjStop = max(target, -1e99)
                model.optimize()
                return _answer(model, x, cost)
        except gurobipy.GurobiError as error:
            return Answer(Status.FAILED, message=str(error))

    def _written(self, model: Any, cost: Vector) -> Any:
        program, sides, matrix = self.program, Sides.of(self.program), self.program.matrix
        for name in ("FeasibilityTol", "IntFeasTol", "OptimalityTol", "MIPGapAbs"):
            model.setParam(name, Gurobi.tolerance)
        for name, value in {"MIPGap": 0.0, "Threads": self.threads, "Seed": self.seed % 2_000_000_000}.items():
            model.setParam(name, value)
        kinds = np.where(program.integer, "I", "C")
        x = model.addMVar(len(cost), lb=program.lower, ub=program.upper, obj=cost, vtype=kinds)
        for index, sense, side in (
            (sides.equal, "=", program.row_lower),
            (sides.above, "<", program.row_upper),
            (sides.below, ">", program.row_lower),
        ):
            if len(index):
                model.addMConstr(matrix[index], x, sense, side[index])
        return x


def _answer(model: Any, x: Any, cost: Vector) -> Answer:
    from gurobipy import GRB

    known = {
        GRB.OPTIMAL: Status.OPTIMAL,
        GRB.INFEASIBLE: Status.INFEASIBLE,
        GRB.INF_OR_UNBD: Status.INFEASIBLE,  # every column has bounds
        GRB.TIME_LIMIT: Status.TIMEOUT,
        GRB.USER_OBJ_LIMIT: Status.TARGET,
    }
    status = known.get(model.Status, Status.FAILED)
    point = np.asarray(x.X, dtype=np.float64) if model.SolCount else None
    return Answer(
        status,
        inf if point is None else float(cost @ point),
        point,
        None,
        float(model.ObjBound) if status is not Status.INFEASIBLE else -inf,
        int(model.NodeCount),
        f"status {model.Status}" if status is Status.FAILED else "",
    )


@dataclass(frozen=True)
class Gurobi:
    """Gurobi, where a licence is found."""

    tolerance: ClassVar[float] = 1e-9
    punctual: ClassVar[bool] = True
    drops: ClassVar[float] = 1e-9

    def load(self, program: Program, threads: int, seed: int) -> Model:
        """Nothing is loaded before it is solved."""
        return Model(program, threads, seed)
