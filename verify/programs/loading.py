"""A program at scale inside a solver chosen by name, and which solvers there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from math import inf
from typing import Any, cast

import numpy as np

from assay.verify.core.errors import InputError, unknown_name
from assay.verify.programs.apart import Apart
from assay.verify.programs.program import Answer, Program, Status, Vector
from assay.verify.programs.scaling import Scaled, scaled
from assay.verify.programs.solver import Model, Solver
from assay.verify.programs.start import Begin, start


@dataclass(frozen=True)
class Entry:
    """Where a solver's class is, the package that it needs, how to get it, and what it is for."""

    place: str
    package: str
    install: str
    linear: bool
    integer: bool


SOLVERS = {
    "highs": Entry("assay.verify.programs.solvers.highs:Highs", "highspy", "pip install highspy", True, True),
    "scipy": Entry("assay.verify.programs.solvers.scipy:SciPy", "scipy", "pip install scipy", True, True),
    "cvxpy": Entry("assay.verify.programs.solvers.cvxpy:CVXPY", "cvxpy", "pip install cvxpy", True, True),
    "pulp": Entry("assay.verify.programs.solvers.pulp:PuLP", "pulp", "pip install 'pulp>=3.3,<4'", False, True),
    "scip": Entry("assay.verify.programs.solvers.scip:SCIP", "pyscipopt", "pip install pyscipopt", False, True),
    "gurobi": Entry("assay.verify.programs.solvers.gurobi:Gurobi", "gurobipy", "pip install gurobipy", False, True),
}

# Packages through which several solvers are reached are followed by the solver's own name: ``cvxpy:CLARABEL``.
PULP = ("cbc", "highs")
WAYS = {"cvxpy": "cvxpy:NAME", "pulp": "pulp:cbc or pulp:highs"}


def listed() -> list[dict[str, Any]]:
    """Every solver: how it is named, the methods that take it, and the command that installs it, None if it is here."""
    return [
        {
            "name": WAYS.get(name, name),
            "methods": [m for m, takes in (("lp", entry.linear), ("milp", entry.integer)) if takes],
            "missing": None if find_spec(entry.package) else entry.install,
        }
        for name, entry in SOLVERS.items()
    ]


def check_name(text: str, integer: bool) -> None:
    """Refuse the name of a solver that is none, or none for such programs."""
    name, _, through = text.partition(":")
    usable = [key for key, entry in SOLVERS.items() if (entry.integer if integer else entry.linear)]
    if name not in usable:
        raise unknown_name("solver", text, usable)
    if (name in WAYS) != bool(through) or (name == "pulp" and through not in PULP):
        raise InputError(f"expected {WAYS.get(name, name)}, got solver {text!r}")


def missing(text: str, integer: bool) -> str | None:
    """Why the solver cannot be used here, for programs with integers or without, and how to get it; None if it can."""
    name, _, through = text.partition(":")
    entry = SOLVERS[name]
    if find_spec(entry.package) is None:
        return f"the solver {text} needs {entry.package}: {entry.install}"
    if name == "cvxpy":
        known: Sequence[str] = import_module("cvxpy").installed_solvers()
        from assay.verify.programs.solvers.cvxpy import FINE, TIME_LIMITS

        usable = sorted(FINE if integer else TIME_LIMITS)
        if through not in known:
            return f"cvxpy finds no solver {through!r} here (it finds {', '.join(sorted(known))})"
        if through not in usable:
            return f"cvxpy's {through} is not used for such programs, only {', '.join(usable)}"
    return None


def get_solver(text: str) -> Solver:
    """The solver called ``highs``, ``cvxpy:CLARABEL``, ``pulp:cbc`` and so on (:func:`check_name`)."""
    name, _, through = text.partition(":")
    module, _, attribute = SOLVERS[name].place.partition(":")
    made = getattr(import_module(module), attribute)
    return cast("Solver", made(through) if through else made())


@dataclass(eq=False)
class Loaded:
    """A program inside a solver; answers are on the program's own scale."""

    program: Program
    change: Scaled
    model: Model

    def solve(
        self, cost: Vector | None = None, offset: float = 0.0, seconds: float = inf, target: float = -inf
    ) -> Answer:
        """Minimise ``cost @ x + offset``, cost (columns) or the program's own, within ``seconds``.

        With integers the search may end at a point of value ``target`` or less.
        """
        if cost is None:
            cost, offset = self.program.cost, self.program.offset
        at_scale, unit = self.change.cost(cost)
        wanted = (target - offset) / unit
        answer = self.model.solve(at_scale, max(seconds, 0.0), wanted, lambda: start(self.program, cost))
        pointless = answer.x is None or not np.isfinite(answer.x).all()
        if pointless and answer.status in (Status.OPTIMAL, Status.TARGET):
            answer = Answer(Status.FAILED, message="an optimum without a point")
        return self.change.back(answer, unit, offset)


@dataclass(frozen=True, eq=False)
class WithoutColumns:
    """A program of a region that is one point: its rows hold or they do not, and solvers need not see it; they differ
    in what they make of nothing."""

    program: Program

    def solve(self, cost: Vector, seconds: float, target: float, begin: Begin) -> Answer:
        """The one point there is, if it fits; ``cost`` (columns, of which there are none)."""
        if bool((self.program.row_lower > 0).any() or (self.program.row_upper < 0).any()):
            return Answer(Status.INFEASIBLE)
        return Answer(Status.OPTIMAL, 0.0, np.zeros(0), np.zeros(len(self.program.row_lower)), 0.0)


def load(solver: Solver, program: Program, threads: int = 1, seed: int = 0) -> Loaded:
    """``program`` brought to scale and loaded, into another process where the solver may overrun its time."""
    if not len(program.lower):
        return Loaded(program, scaled(program, solver.drops), WithoutColumns(program))
    change = scaled(program, solver.drops)
    place = solver.load if solver.punctual else partial(Apart, solver)
    return Loaded(program, change, place(change.program, threads, seed))
