"""A semidefinite program handed to cvxpy: an answer that the solver itself calls accurate, or none."""

from __future__ import annotations

import time
import warnings
from importlib.util import find_spec
from typing import Any

from assay.verify.core.budget import Budget, Expired
from assay.verify.core.errors import InputError
from assay.verify.support.silence import silence

TIME_LIMITS = {"CLARABEL": "time_limit", "SCS": "time_limit_secs"}

# What is proved rests on no tolerance: a coarse answer costs tightness alone, and SCS is slow to a fine one.
COARSE: dict[str, dict[str, float]] = {"CLARABEL": {}, "SCS": {"eps_abs": 1e-4, "eps_rel": 1e-4}}


class Unsolved(Exception):
    """The solver failed, or calls its answer inaccurate."""


def check_solver(name: str) -> None:
    """Refuse a solver that does not take semidefinite programs, or cannot be told when to stop."""
    if name not in TIME_LIMITS:
        raise InputError(f"solver must be {' or '.join(TIME_LIMITS)}, got {name!r}")


def missing() -> str | None:
    """The command that installs what is missing, in a sentence; None if nothing is."""
    return None if find_spec("cvxpy") else "semidefinite programs need cvxpy: pip install cvxpy"


def solve(problem: Any, solver: str, budget: Budget) -> None:
    """Solve in place. Raises :class:`Expired` when the time is over, :class:`Unsolved` for every other status than
    ``optimal``: what is inaccurate certifies nothing."""
    import cvxpy

    budget.check()
    begun, seconds = time.monotonic(), min(max(budget.remaining, 1e-3), 1e9)
    try:
        with silence(), warnings.catch_warnings():  # SCS prints what it fails at
            warnings.simplefilter("ignore")  # of inaccurate solutions: the status tells
            problem.solve(solver=solver, **{TIME_LIMITS[solver]: seconds, **COARSE[solver]})
    except (
        cvxpy.error.SolverError,
        ValueError,
        ArithmeticError,
    ) as error:  # solvers fail on numbers that are too large
        if time.monotonic() - begun >= seconds:
            raise Expired from error
        raise Unsolved(str(error).splitlines()[0]) from error
    if problem.status != cvxpy.OPTIMAL:
        if time.monotonic() - begun >= seconds:
            raise Expired
        raise Unsolved(f"status {problem.status}")
