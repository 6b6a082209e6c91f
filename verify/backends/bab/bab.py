"""Branch and bound on neurons, with bounds by slopes and split multipliers (beta-CROWN: Wang et al. 2021,
arXiv:2103.06624)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf, isfinite, nan
from typing import Any, ClassVar

import torch
from torch import Tensor

from assay.verify.backends.bab.compact import Compact, unsplit
from assay.verify.backends.bab.multipliers import Climbing, Multipliers, Splits, Tables, climb
from assay.verify.backends.bab.phases import PhaseTree, pooled
from assay.verify.backends.bab.search import Limits, search
from assay.verify.bounds import layers, raised
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.bounds.slopes import Ascent
from assay.verify.bounds.verdicts import concluded, unanswerable, without_bounds
from assay.verify.core.budget import UNLIMITED, Budget
from assay.verify.core.problem import Problem
from assay.verify.core.region import LpBall
from assay.verify.core.region.rounding import directed_sum
from assay.verify.core.result import Guarantee, Reason, Result
from assay.verify.core.verifier import Bounds
from assay.verify.programs.expressions import as_array
from assay.verify.programs.relaxation import attempt
from assay.verify.programs.witness import by_disjunct, confirmed, descend


@dataclass(frozen=True)
class BaB:
    """Neurons are split until linear bounds prove every leaf."""

    batch: int = 512
    steps: int = 5
    slope: float = 0.1
    multiplier: float = 0.5
    root: int = 40
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
        margin = min(work.lower)
        return concluded(self, problem, margin, reason, seconds, work.witness, work.stats)


@dataclass(eq=False)
class Work:
    method: BaB
    problem: Problem
    budget: Budget
    lower: list[float] = field(default_factory=lambda: [nan])
    witness: Tensor | None = None
    best: float = inf
    stats: dict[str, Any] = field(default_factory=lambda: {"domains": 0})

    def run(self) -> None:
        problem, spec = self.problem, self.problem.spec
        t=time.perf_counter()
        relaxed = self._relaxed()
        rows = directed_sum(raised.lower_rows(relaxed, spec.A[None], Ascent(20, 0.4, 0.9))[0], -spec.b, up=False)
        self.lower = [rows[spec.disjunct == d].max().item() if len(p.b) else -inf for d, p in enumerate(spec.disjuncts)]
        self.look(problem.region.centre.reshape(1, -1))
        print("root", [round(x,3) for x in self.lower], time.perf_counter()-t)
        compact = Compact.of(relaxed)
        print("compact", [len(l.features) for l in compact.layers], [l.unstable for l in compact.layers], time.perf_counter()-t)
        for d in sorted(range(len(self.lower)), key=self.lower.__getitem__):
            if not self.lower[d] > 0 and self.witness is None:
                self._search(compact, d)

    def _search(self, compact: Compact, d: int) -> None:
        t=time.perf_counter()
        tree = self._tree(compact, d)
        print("target", d, time.perf_counter()-t)
        limits = Limits(self.method.batch, 0, 0)
        outcome = search(tree, limits, self.budget)
        self.stats["domains"] += outcome.stats["domains"]
        t=time.perf_counter()-t
        print(outcome.complete, outcome.reason, outcome.margin, outcome.stats, f"{t:.2f} s, {outcome.stats['domains']/t:.0f}/s")
        self.witness = outcome.witness
        if outcome.complete:
            self.lower[d] = outcome.margin

    def _tree(self, compact: Compact, d: int) -> PhaseTree:
        disjunct = self.problem.spec.disjuncts[d]
        output = compact.output.weighed(as_array(disjunct.A), as_array(disjunct.b))
        single, double = (Tables(compact, output, dtype) for dtype in (torch.float32, torch.float64))
        lower, upper = compact.bounds()
        count = compact.unstable
        phase = torch.zeros(count, 1, dtype=torch.int8)
        splits = Splits.of(single, lower.float()[:, None], upper.float()[:, None], phase)
        alpha = (splits.slope > 0.5).float()
        weight = torch.full((len(disjunct.b), 1), 1.0 / len(disjunct.b))
        own = Multipliers(alpha, torch.zeros_like(alpha), weight)
        walk = climb(single, splits, own, Climbing(self.method.root), torch.ones(count, 1), inf)
        print("root f32", walk.bound)
        unit = torch.zeros(count, 1)
        starts = compact.starts
        for k in range(len(compact.layers)):
            here = slice(starts[k], starts[k + 1])
            unit[here] = walk.seen[here].abs().mean() if starts[k + 1] > starts[k] else 0
        start = pooled(phase.T.contiguous(), own, torch.full((1,), -1))
        how = Climbing(self.method.steps, self.method.slope, self.method.multiplier)
        return PhaseTree(single, double, lower, upper, start, how, unit, self.look, self.settle)

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

    def settle(self, phase: Tensor, budget: Budget) -> tuple[float, Tensor | None]:
        return -inf, None
