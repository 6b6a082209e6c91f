"""Branch and bound on neurons, with bounds by slopes and split multipliers (beta-CROWN: Wang et al. 2021,
arXiv:2103.06624)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from math import inf, nan
from typing import Any, ClassVar

import torch
from torch import Tensor

from assay.verify.backends.bab.compact import Compact, unsplit
from assay.verify.backends.bab.multipliers import Climbing
from assay.verify.backends.bab.subtrees import Subtrees
from assay.verify.bounds import layers, raised
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.bounds.slopes import Ascent
from assay.verify.bounds.verdicts import concluded, unanswerable, without_bounds
from assay.verify.core.budget import UNLIMITED, Budget
from assay.verify.core.problem import Problem
from assay.verify.core.region import LpBall
from assay.verify.core.region.rounding import directed_sum
from assay.verify.core.result import Guarantee, Reason, Result, Verdict
from assay.verify.core.verifier import Bounds
from assay.verify.programs.relaxation import attempt
from assay.verify.programs.witness import by_disjunct, confirmed, descend


@dataclass(frozen=True)
class BaB:
    """Neurons are split until linear bounds prove every leaf."""

    batch: int = 256
    steps: int = 5
    slope: float = 0.1
    multiplier: float = 0.5
    output: bool = True
    below: int = 600
    together: int = 16
    candidates: int = 16
    tight: int = 10
    rows: int = 32
    passes: int = 4
    verbose: bool = False
    name: ClassVar[str] = "bab"
    complete: ClassVar[bool] = True
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def supports(self, problem: Problem) -> str | None:
        region = problem.region
        if isinstance(region, LpBall) and region.p != inf:
            return f"an l{region.p:g} ball, not a box"
        return unsplit(problem.network) or without_bounds(problem.network)

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        begun, budget = time.monotonic(), budget.started()
        declined = unanswerable(self, problem)
        if declined is not None:
            return declined
        work = Work(self, problem, budget)
        with torch.no_grad():
            reason = attempt(work.run)
        seconds = time.monotonic() - begun
        result = concluded(self, problem, min(work.lower), work.reason or reason, seconds, work.witness, work.stats)
        if work.closed and result.verdict is Verdict.UNKNOWN:
            return replace(result, verdict=Verdict.VERIFIED, reason=None, margin=None)
        return result


@dataclass(eq=False)
class Work:
    method: BaB
    problem: Problem
    budget: Budget
    lower: list[float] = field(default_factory=lambda: [nan])
    witness: Tensor | None = None
    best: float = inf
    closed: bool = False
    reason: Reason | None = None
    stats: dict[str, Any] = field(default_factory=lambda: {"domains": 0})

    def run(self) -> None:
        problem, spec = self.problem, self.problem.spec
        t=time.perf_counter()
        relaxed = self._relaxed()
        rows = directed_sum(raised.lower_rows(relaxed, spec.A[None], Ascent(20, 0.4, 0.9))[0], -spec.b, up=False)
        self.lower = [rows[spec.disjunct == d].max().item() if len(p.b) else -inf for d, p in enumerate(spec.disjuncts)]
        self.witness = self.look(problem.region.centre.reshape(1, -1))
        print("root", [round(x,3) for x in self.lower], time.perf_counter()-t)
        open_ = [d for d in range(len(self.lower)) if not self.lower[d] > 0]
        if self.witness is not None or not open_:
            return
        compact = Compact.of(relaxed)
        print("compact", [len(l.features) for l in compact.layers], [l.unstable for l in compact.layers], time.perf_counter()-t)
        how = Climbing(self.method.steps, self.method.slope, self.method.multiplier)
        trees = Subtrees(problem.spec, compact, open_, how, self.method, self.budget, self.look)
        trees.run()
        self.stats |= trees.stats
        self.witness, self.closed, self.reason = trees.witness, trees.account.complete, trees.reason

    def _relaxed(self) -> Relaxed:
        def further(relaxed: Relaxed, position: int, known: Bounds, wanted: Tensor) -> Bounds:
            return raised.tighten(relaxed, position, known, wanted, Ascent(20, 0.4, 0.9))

        problem = self.problem
        box = layers.batch_box(problem.region.box(), problem.network.input_shape)
        return layers.by_linear_bounds(problem.network, box, torch.float64, self.budget.on_cpu(), further=further)

    def look(self, points: Tensor) -> Tensor | None:
        problem = self.problem
        points = problem.region.project(points.view(-1, *problem.network.input_shape))
        margins = by_disjunct(problem, points)
        least = margins.min().item()
        if least < self.best:
            self.best = least
            where = int(margins.amin(1).argmin())
            d = margins.argmin(1)[where : where + 1]
            points = torch.cat([points, descend(problem, d, points[where : where + 1], 20, 0.05)])
            margins = by_disjunct(problem, points)
            self.best = margins.min().item()
        if bool((margins <= 0).any()):
            return confirmed(problem, points)
        return None
