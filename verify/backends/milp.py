"""Exact verification by mixed-integer programs (Tjeng, Xiao, Tedrake 2019, arXiv:1711.07356)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from math import inf, isfinite, nan
from typing import Any, ClassVar

import torch
from torch import Tensor

from assay.verify.bounds.verdicts import concluded, unanswerable, without_bounds
from assay.verify.core.budget import UNLIMITED, Budget, Expired, running
from assay.verify.core.errors import InputError
from assay.verify.core.ops import Step
from assay.verify.core.problem import Problem
from assay.verify.core.region import LpBall
from assay.verify.core.result import Guarantee, Reason, Result
from assay.verify.programs.encode import Encoding, encode, without_encoding
from assay.verify.programs.loading import check_name, get_solver, load, missing
from assay.verify.programs.program import Answer, Program, Status, Vector
from assay.verify.programs.relaxation import Known, Relaxation, attempt, known
from assay.verify.programs.witness import by_disjunct, confirmed, descend

# A solver's tolerance is charged so many times over, to what the duals of the relaxation say that it can be worth.
CAUTION = 10.0
FINE = 1e-9  # tolerances up to which an optimum is taken as it is
SAME = 1e-6  # between an optimum and the margin at a point, relative to 1 and to it
INSET = 1e-4  # of a jump's interval, from which a counterexample keeps away
DEEP = 1e-6  # how far below zero a point should lie that ends the search, so that it survives rounding


@dataclass(frozen=True)
class MILP:
    """One mixed-integer program for each disjunct that linear bounds and its relaxation leave open.

    ``solver``: ``highs``, ``scipy``, ``pulp:cbc``, ``pulp:highs``, ``cvxpy:NAME``, ``scip`` or ``gurobi``;
    ``optimum``: find the least margin itself, and where it is, not its sign alone; ``steps``: of a descent that looks
    for a counterexample before a program is solved.
    """

    solver: str = "highs"
    optimum: bool = False
    steps: int = 20
    name: ClassVar[str] = "milp"
    complete: ClassVar[bool] = True
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def __post_init__(self) -> None:
        check_name(self.solver, integer=True)
        if self.steps < 0:
            raise InputError(f"steps of milp must be at least 0, got {self.steps}")

    def supports(self, problem: Problem) -> str | None:
        """Operations linear or constant in pieces, over boxes and balls in l1 and linf, and a solver that is there."""
        region = problem.region
        if isinstance(region, LpBall) and region.p == 2:
            return "a ball in l2, which is not linear"
        network = problem.network
        return without_bounds(network) or without_encoding(network) or missing(self.solver, integer=True)

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """Decide every disjunct, the one that linear bounds leave the most room first, until one is within reach."""
        begun, budget = time.monotonic(), running(budget)
        declined = unanswerable(self, problem)
        if declined is not None:
            return declined
        search = Search(self, problem, budget)
        with torch.no_grad():
            reason = attempt(search.run)
        margin, reason = search.outcome(reason)
        return concluded(self, problem, margin, reason, time.monotonic() - begun, search.witness, search.stats)


@dataclass(eq=False)
class Search:
    """One problem on its way.

    ``lower``: a bound of each disjunct's least margin; ``seen``: the least that it has at a point of the region that
    was looked at, and ``at`` the point where the least of all is; ``doubts``: why disjuncts stay open.
    """

    method: MILP
    problem: Problem
    budget: Budget
    lower: list[float] = field(default_factory=lambda: [nan])
    grain: float = inf
    seen: Tensor = field(init=False)
    at: Tensor | None = None
    bounded: Known | None = None
    witness: Tensor | None = None
    doubts: list[Reason] = field(default_factory=list)
    stats: dict[str, Any] = field(default_factory=lambda: {"programs": 0, "nodes": 0})

    def __post_init__(self) -> None:
        self.seen = torch.full((len(self.problem.spec.disjuncts),), inf, dtype=torch.float64)

    def run(self) -> None:
        """Bounds, then a descent, then programs for the disjuncts that are still open."""
        problem = self.problem
        bounded = known(problem.network, problem.region, problem.spec.A, self.budget, sides=problem.spec.b)
        self.bounded = bounded
        self.grain, self.lower = bounded.grain, bounded.by_disjunct(problem.spec)
        order = sorted(range(len(self.lower)), key=self.lower.__getitem__)
        self._look(order, problem.region.centre.expand(len(order), *problem.network.input_shape), 0.5)
        if any(map(self._open, order)):
            self._decide(order, bounded)
        least = self.seen.min().item()
        if self.method.optimum and not self.doubts and min(self.lower) >= least - SAME * (1 + abs(least)):
            self.stats |= {"optimum": least, "minimiser": self.at}

    def _decide(self, order: list[int], bounded: Known) -> None:
        """The relaxation of each disjunct that is open, then a program for each that is still, the lowest first."""
        problem = self.problem
        relaxation = Relaxation(
            encode(problem.network, problem.region, bounded.bounds), get_solver("highs"), self.budget
        )
        doubts = {d: self._relaxed(d, relaxation) for d in order if self._open(d)}
        exact: Encoding | None = None
        for d in sorted(doubts, key=self.lower.__getitem__):
            if self._open(d):
                exact = exact or encode(problem.network, problem.region, bounded.bounds, exact=True)
                self._solve(d, exact, doubts[d])

    def outcome(self, reason: Reason) -> tuple[float, Reason]:
        """The margin that is claimed, and why the problem is open if that does not decide it."""
        margin = torch.tensor(self.lower, dtype=torch.float64).amin().item()  # NaN stays NaN
        if reason is Reason.INCOMPLETE:
            reason = next(iter(self.doubts), Reason.NUMERICAL)
        return (nan, Reason.NUMERICAL) if 0 < margin <= self.grain else (margin, reason)

    def _open(self, d: int) -> bool:
        """Whether more about disjunct ``d`` would change the answer; one without rows is everywhere."""
        if not len(self.problem.spec.disjuncts[d].b):
            return False
        if self.method.optimum:
            return not self.lower[d] >= self.seen.min().item()
        return self.witness is None and not self.lower[d] > self.grain

    def _look(self, disjuncts: list[int], points: Tensor, first: float) -> None:
        """Descend from a point (n x input shape) for each of these disjuncts, and see where that leads."""
        problem = self.problem
        points = problem.region.project(points.double())
        points = descend(problem, torch.tensor(disjuncts), points, self.method.steps, first, self.budget)
        margins = by_disjunct(problem, points)
        if margins.min() < self.seen.min():
            self.at = points[int(margins.amin(1).argmin())]
        self.seen = torch.minimum(self.seen, margins.amin(0))
        if self.witness is None and bool((margins <= 0).any()):
            self.witness = confirmed(problem, points)

    def _relaxed(self, d: int, relaxation: Relaxation) -> float:
        """Bound disjunct ``d`` by the relaxation and look where its optimum is; what tolerances can be worth there."""
        disjunct = self.problem.spec.disjuncts[d]
        relaxed = relaxation.disjunct(disjunct.A, disjunct.b)
        self.lower[d] = max(self.lower[d], relaxed.bound)
        if relaxed.x is not None and self._open(d):
            self._look([d], self._point(relaxation.encoding, relaxed.x), 0.25)
        return CAUTION * get_solver(self.method.solver).tolerance * relaxed.sensitivity

    def _solve(self, d: int, encoding: Encoding, doubt: float) -> None:
        """Search below a limit: zero and what tolerances and rounding can be worth, or the least margin seen."""
        disjunct = self.problem.spec.disjuncts[d]
        program = encoding.disjunct(disjunct.A.numpy(), disjunct.b.numpy())
        optimum = self.method.optimum
        limit = 2 * doubt + 3 * self.grain + (self.seen.min().item() if optimum else 0.0)
        target = -inf if optimum else -DEEP - doubt
        answer = self._answer(program.limited(limit) if isfinite(limit) else program, target)
        if answer.x is not None:
            self._look([d], self._point(encoding, answer.x), 0.02)
        if answer.status is Status.TARGET and self.witness is None:
            # The point is too shallow to survive its rounding: the deepest one may.
            answer = self._answer(program, -inf)
            if answer.x is not None:
                self._look([d], self._point(encoding, answer.x), 0.02)
        if answer.status in (Status.TARGET, Status.OPTIMAL) and self.witness is None:
            self._inside(d, target)
        if answer.status is Status.TIMEOUT:
            # What was proved of the program so far, as a bound; a verdict takes a search that has come to its end.
            self.lower[d] = max(self.lower[d], min(answer.bound - doubt, limit, self.seen[d].item(), 0.0))
            raise Expired
        if answer.status is Status.FAILED:
            self.doubts.append(Reason.SOLVER)
            self.stats["solver"] = answer.message
        elif not self._concluded(d, answer, limit, doubt):
            self.doubts.append(Reason.NUMERICAL)

    def _inside(self, d: int, target: float) -> None:
        """Look for a counterexample at which nothing jumps: the best points of a program lie where something does."""
        network, disjunct = self.problem.network, self.problem.spec.disjuncts[d]
        if not any(isinstance(node.op, Step) for node in network.nodes) or self.bounded is None:
            return
        encoding = encode(network, self.problem.region, self.bounded.bounds, exact=True, inset=INSET)
        answer = self._answer(encoding.disjunct(disjunct.A.numpy(), disjunct.b.numpy()), target)
        if answer.x is not None:
            self._look([d], self._point(encoding, answer.x), 0.02)

    def _concluded(self, d: int, answer: Answer, limit: float, doubt: float) -> bool:
        """Draw from a claim of the solver what it is worth; whether the points that were seen agree with it.

        No claim is taken that tolerances could explain.
        """
        if answer.status is Status.INFEASIBLE:
            if not (isfinite(limit) and limit < self.seen[d]):
                return False
            self.lower[d] = max(self.lower[d], limit - doubt - self.grain)
            return True
        if not self.method.optimum:
            return self.witness is not None
        value = min(answer.value, answer.bound if isfinite(answer.bound) else inf)
        if not (isfinite(value) and abs(value - self.seen[d].item()) <= doubt + SAME * (1 + abs(value))):
            return False
        exact = get_solver(self.method.solver).tolerance <= FINE and not 0 < value <= doubt
        # No bound passes what has been seen, and what was seen is as coarse as the network's rounding.
        proved = min(value if exact else value - doubt, self.seen[d].item())
        self.lower[d] = max(self.lower[d], proved - self.grain)
        return True

    def _answer(self, program: Program, target: float) -> Answer:
        self.budget.check()
        loaded = load(get_solver(self.method.solver), program, self.budget.threads, self.budget.seed)
        answer = loaded.solve(seconds=self.budget.remaining, target=target)
        self.stats["programs"] += 1
        self.stats["nodes"] += answer.nodes
        return answer

    def _point(self, encoding: Encoding, x: Vector) -> Tensor:
        """The network's input at a point of the program: (1 x input shape)."""
        return torch.from_numpy(encoding.input(x)).view(1, *self.problem.network.input_shape)
