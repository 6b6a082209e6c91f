"""Linear programs: the triangle relaxation (Ehlers 2017, arXiv:1705.01320; Salman et al. 2019, arXiv:1902.08722), and
several lines about each curve and product."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from math import inf, nan
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from assay.verify.bounds.groups import lower_bounds
from assay.verify.bounds.verdicts import both_sides, concluded, unanswerable, without_bounds
from assay.verify.core.budget import UNLIMITED, Budget, Expired, running
from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.network import Network, check_network
from assay.verify.core.problem import Problem
from assay.verify.core.region import LpBall, Region
from assay.verify.core.result import Guarantee, Reason, Result, Verdict
from assay.verify.core.verifier import Bounds
from assay.verify.programs import encode
from assay.verify.programs.encode import UnstableNeurons, Wanted
from assay.verify.programs.hints import Array, Layer, Passed, document, leaky, recordable, single, tree
from assay.verify.programs.loading import check_name, get_solver, load, missing
from assay.verify.programs.program import Status, Vector, widened
from assay.verify.programs.relaxation import Known, Lower, Relaxation, attempt, known, lower
from assay.verify.programs.solver import Solver

# Takes the one constraint that is not linear, the ball in l2.
CONIC = "cvxpy:CLARABEL"


@dataclass(frozen=True)
class LP:
    """Linear programs over the triangle relaxation, with bounds that are proved from their duals.

    ``tighten``: ``last`` bounds the output alone, ``all`` every unstable neuron, layer by layer; ``intermediate``:
    bounds of the layers to begin with, ``crown`` or ``ibp``; ``solver``: ``highs``, ``scipy`` or ``cvxpy:NAME``. A
    ball in l2 is a cone, for which cvxpy's CLARABEL takes the place of the first two; ``proof``: keep the slopes that
    the duals come to, for a certificate.
    """

    tighten: Literal["last", "all"] = "last"
    intermediate: Literal["crown", "ibp"] = "crown"
    solver: str = "highs"
    proof: bool = False
    name: ClassVar[str] = "lp"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def __post_init__(self) -> None:
        for option, choices in (("tighten", ("last", "all")), ("intermediate", ("crown", "ibp"))):
            if getattr(self, option) not in choices:
                raise InputError(f"{option} of lp must be {' or '.join(choices)}, got {getattr(self, option)!r}")
        check_name(self.solver, integer=False)

    def supports(self, problem: Problem) -> str | None:
        """Operations with an encoding and with bounds, and a solver that is installed."""
        return self._why_not(problem.network, problem.region)

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """VERIFIED if no disjunct is within reach of the relaxation; the rows of a conjunction are taken together."""
        begun, budget = time.monotonic(), running(budget)
        declined = unanswerable(self, problem)
        if declined is not None:
            return declined
        least, grain = [nan], inf
        record = Record(problem) if self.proof and recordable(problem) else None

        def work() -> None:
            nonlocal grain
            spec = problem.spec
            bounded = self._known(problem.network, problem.region, spec.A, budget, spec.b)
            grain, least[:] = bounded.grain, bounded.by_disjunct(problem.spec)
            self._improve(problem, bounded, least, budget, record)

        with torch.no_grad():
            reason = attempt(work)
        margin = torch.tensor(least, dtype=torch.float64).amin().item()  # NaN stays NaN
        if 0 < margin <= grain:
            margin, reason = nan, Reason.NUMERICAL
        result = concluded(self, problem, margin, reason, time.monotonic() - begun)
        if record is not None and result.verdict is Verdict.VERIFIED:
            return replace(result, certificate=record.document())
        return result

    def bound(self, network: Network, region: Region, objective: Tensor, budget: Budget = UNLIMITED) -> Bounds:
        """Bounds of ``objective @ network(x)`` over the region: (batch x rows).

        Raises :class:`UnsupportedError` for an operation without an encoding and a solver that is not installed.
        """
        check_network(network)
        why = self._why_not(network, region)
        if why is not None:
            raise UnsupportedError(why)
        return both_sides(self._rows, network, region, objective, budget, torch.float64)

    def _why_not(self, network: Network, region: Region) -> str | None:
        return (
            without_bounds(network)
            or encode.without_relaxation(network)
            or missing(self.solver, integer=False)
            or missing(self._solver_for(region), integer=False)
        )

    def _solver_for(self, region: Region) -> str:
        conic = isinstance(region, LpBall) and region.p == 2 and not self.solver.startswith("cvxpy:")
        return CONIC if conic else self.solver

    def _known(
        self, network: Network, region: Region, objective: Tensor, budget: Budget, sides: Tensor | None = None
    ) -> Known:
        return known(network, region, objective.double(), budget, self.intermediate == "crown", sides)

    def _improve(
        self, problem: Problem, bounded: Known, least: list[float], budget: Budget, record: Record | None
    ) -> None:
        """Raise the lower bounds of the disjuncts as far as it raises the least of them."""
        relaxation = self._relaxation(problem.network, problem.region, bounded, budget, record)
        lowest = inf
        for d in sorted(range(len(least)), key=least.__getitem__):
            disjunct = problem.spec.disjuncts[d]
            # What the bounds of the layers prove without a program, by intervals it may be, is no matter of lines.
            if (record is not None or least[d] < lowest) and len(disjunct.b):
                proved = relaxation.disjunct(disjunct.A, disjunct.b)
                self._raise(least, d, proved)
                if record is not None and proved.duals is not None:
                    record.duals(d, relaxation, proved.duals)
            lowest = min(lowest, least[d])

    def _rows(self, network: Network, region: Region, objective: Tensor, budget: Budget, dtype: torch.dtype) -> Tensor:
        @torch.no_grad()
        def of_one(network: Network, region: Region, objective: Tensor, budget: Budget) -> Tensor:
            bounded = self._known(network, region, objective[0], budget)
            least = bounded.rows.tolist()

            def work() -> None:
                relaxation = self._relaxation(network, region, bounded, budget)
                for i, row in enumerate(objective[0].double()):
                    self._raise(least, i, relaxation.disjunct(row[None], torch.zeros(1)))

            attempt(work)
            return torch.tensor([least], dtype=torch.float64)

        return lower_bounds(of_one, network, region, objective, budget, 1)

    def _raise(self, least: list[float], i: int, proved: Lower) -> None:
        """Note a bound that may be better. Raises :class:`Expired` if the solver ran out of time over it."""
        least[i] = max(least[i], proved.bound)
        if proved.status is Status.TIMEOUT:
            raise Expired

    def _relaxation(
        self, network: Network, region: Region, bounded: Known, budget: Budget, record: Record | None = None
    ) -> Relaxation:
        solver = get_solver(self._solver_for(region))
        refine = _Refinement(solver, budget, record) if self.tighten == "all" else None
        return Relaxation(encode.encode(network, region, bounded.bounds, refine=refine), solver, budget)


@dataclass(eq=False)
class Record:
    """What proves the bounds of a problem: slopes of the lines below its unstable neurons, for each disjunct, and for
    each bound of an operand that was refined."""

    problem: Problem
    trees: dict[int, dict[str, Array]] = field(default_factory=dict)
    layers: dict[int, Layer] = field(default_factory=dict)
    neurons: UnstableNeurons | None = None

    def duals(self, d: int, relaxation: Relaxation, duals: Vector) -> None:
        """A disjunct is proved by these (rows of its program)."""
        disjunct = self.problem.spec.disjuncts[d]
        passed, weights = relaxation.passed(disjunct.A, disjunct.b, duals)
        self.neurons = neurons = relaxation.encoding.neurons
        left = leaky(self.problem, neurons)
        slopes = single(left + (1 - left) * passed.slopes())
        self.trees[d] = tree(np.array([-1]), slopes, np.zeros(0, np.float16), single(weights))

    def layer(self, wanted: Wanted, passed: Passed) -> None:
        """Operands are bounded by what is passed to the neurons before them (2 * operands x neurons)."""
        left = leaky(self.problem, wanted.neurons)
        slopes = single(left + (1 - left) * passed.slopes())
        self.layers[wanted.position] = Layer(wanted.position, wanted.feature, slopes)

    def document(self) -> dict[str, Any] | None:
        """All of it as plain data; None where a solver gave no duals."""
        if self.neurons is None or len(self.trees) < len(self.problem.spec.disjuncts):
            return None
        return document(self.problem, LP.name, self.neurons, self.trees, self.layers)


@dataclass(frozen=True, eq=False)
class _Refinement:
    """Bounds of neurons from the relaxation of all that lies before them."""

    solver: Solver
    budget: Budget
    record: Record | None

    def __call__(self, wanted: Wanted, low: Vector, high: Vector) -> tuple[Vector, Vector]:
        """``low`` and ``high`` where they are better, otherwise the optima over the draft."""
        values, draft = wanted.values, wanted.draft
        loaded = load(self.solver, draft.program(), self.budget.threads, self.budget.seed)
        cost = np.stack([widened(row, draft.width) for row in values.matrix.toarray()])
        below = [lower(loaded, self.budget, c, k) for c, k in zip(cost, values.constant, strict=True)]
        above = [lower(loaded, self.budget, -c, -k) for c, k in zip(cost, values.constant, strict=True)]
        if self.record is not None:
            none = np.zeros(draft.height)
            duals = np.stack([none if each.duals is None else each.duals for each in below + above])
            both = np.concatenate([cost, -cost])
            self.record.layer(wanted, Passed.of(wanted.neurons, loaded.program.matrix, duals, both))
        low = np.maximum(low, [each.bound for each in below])
        high = np.minimum(high, [-each.bound for each in above])
        # What rounding alone makes cross is put in order; the rest is refused by whoever asked.
        close = np.abs(low - high) <= 1e-9 * (1 + np.abs(low))
        return np.where(close, np.minimum(low, high), low), np.where(close, np.maximum(low, high), high)
