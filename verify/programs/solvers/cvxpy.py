"""The solvers that cvxpy reaches, by the names that it gives them; cost vectors are a parameter of one problem."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar

import numpy as np

from assay.verify.programs.program import Answer, Program, Sides, Status, Vector
from assay.verify.programs.start import Begin

# Those that can be told when to stop, and how; the others are not used.
TIME_LIMITS = {
    "CBC": "maximumSeconds",
    "CLARABEL": "time_limit",
    "COPT": "TimeLimit",
    "GUROBI": "TimeLimit",
    "HIGHS": "time_limit",
    "OSQP": "time_limit",
    "SCIP": "limits/time",
    "SCIPY": "time_limit",
    "SCS": "time_limit_secs",
}

# Options in which the names of solvers' own parameters are handed over.
NESTED = {"SCIP": "scip_params", "SCIPY": "scipy_options"}

# Tolerances and gaps as fine as they can be asked for. Solvers whose gap cannot be closed take no integers.
FINE: Mapping[str, Mapping[str, Any]] = {
    "GUROBI": {"FeasibilityTol": 1e-9, "IntFeasTol": 1e-9, "OptimalityTol": 1e-9, "MIPGap": 0, "MIPGapAbs": 1e-9},
    "HIGHS": {
        "primal_feasibility_tolerance": 1e-9,
        "dual_feasibility_tolerance": 1e-9,
        "mip_feasibility_tolerance": 1e-9,
        "mip_rel_gap": 0.0,
        "mip_abs_gap": 1e-9,
        "threads": 1,
    },
    "SCIP": {"numerics/feastol": 1e-9, "limits/gap": 0.0},
    "SCIPY": {"mip_rel_gap": 0.0},
}
COARSE = ("SCIPY",)  # whose tolerance is 1e-6 nevertheless


class Model:
    """A program as a problem of cvxpy that is compiled once."""

    def __init__(self, program: Program, name: str) -> None:
        import cvxpy

        self._name, self._program, self._sides = name, program, Sides.of(program)
        whole = [np.flatnonzero(program.integer)] if program.integer.any() else False
        self._x = cvxpy.Variable(len(program.lower), integer=whole)
        self._cost = cvxpy.Parameter(len(program.lower))
        sides, matrix = self._sides, program.matrix
        self._equal = matrix[sides.equal] @ self._x == program.row_lower[sides.equal]
        self._above = matrix[sides.above] @ self._x <= program.row_upper[sides.above]
        self._below = matrix[sides.below] @ self._x >= program.row_lower[sides.below]
        constraints = [self._x >= program.lower, self._x <= program.upper]
        rows = ((self._equal, sides.equal), (self._above, sides.above), (self._below, sides.below))
        constraints += [constraint for constraint, index in rows if len(index)]
        if (ball := program.ball) is not None:
            constraints.append(cvxpy.SOC(cvxpy.Constant(ball.radius), self._x[ball.columns] - ball.centre))
        self._problem: Any = cvxpy.Problem(cvxpy.Minimize(self._cost @ self._x), constraints)

    def solve(self, cost: Vector, seconds: float, target: float, begin: Begin) -> Answer:
        """``cost``: (columns). Neither the target nor a basis is used."""
        import cvxpy

        self._cost.value = cost
        begun = time.monotonic()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of inaccurate solutions, which the status tells as well
                self._problem.solve(solver=self._name, **self._options(seconds))
        except cvxpy.error.SolverError as error:
            late = time.monotonic() - begun >= seconds
            return Answer(Status.TIMEOUT if late else Status.FAILED, message=str(error))
        status = _status(self._problem.status)
        if status is Status.FAILED and time.monotonic() - begun >= seconds:
            status = Status.TIMEOUT  # some solvers call what they were stopped at inaccurate
        x = self._x.value if status in (Status.OPTIMAL, Status.TIMEOUT) else None
        return Answer(
            status,
            inf if x is None else float(cost @ x),
            x,
            None if self._program.integer.any() else self._duals(),
            message=self._problem.status if status is Status.FAILED else "",
        )

    def _options(self, seconds: float) -> dict[str, Any]:
        limit: dict[str, Any] = {TIME_LIMITS[self._name]: min(max(seconds, 1e-3), 1e9)}
        fine = FINE.get(self._name, {}) if self._name not in COARSE or self._program.integer.any() else {}
        options = {**fine, **limit}
        return {NESTED[self._name]: options} if self._name in NESTED else options

    def _duals(self) -> Vector | None:
        """cvxpy's multipliers push a constraint that is written as an excess: their signs are turned."""
        duals, known = np.zeros(self._program.matrix.shape[0]), False
        for constraint, index, sign in (
            (self._equal, self._sides.equal, -1.0),
            (self._above, self._sides.above, -1.0),
            (self._below, self._sides.below, 1.0),
        ):
            if len(index) and constraint.dual_value is not None:
                duals[index] += sign * constraint.dual_value
                known = True
        return duals if known or not len(duals) else None


def _status(text: str) -> Status:
    """Inaccurate answers are failures. No program here is unbounded: every column has bounds."""
    known = {
        "optimal": Status.OPTIMAL,
        "infeasible": Status.INFEASIBLE,
        "infeasible_or_unbounded": Status.INFEASIBLE,
        "user_limit": Status.TIMEOUT,
    }
    return known.get(text, Status.FAILED)


@dataclass(frozen=True)
class CVXPY:
    """cvxpy with the solver called ``name``."""

    name: str
    punctual: ClassVar[bool] = False
    drops: ClassVar[float] = 1e-9

    @property
    def tolerance(self) -> float:
        """Fine where it can be set."""
        return 1e-9 if self.name in FINE and self.name not in COARSE else 1e-6

    def load(self, program: Program, threads: int, seed: int) -> Model:
        """The program as a problem of cvxpy; threads and seed are the solver's own."""
        return Model(program, self.name)
