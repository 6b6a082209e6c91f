"""Satisfiability modulo linear real arithmetic (Katz et al. 2017, arXiv:1702.01135; Ehlers 2017, arXiv:1705.01320)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from importlib.metadata import version
from importlib.util import find_spec
from math import inf, nextafter
from sys import float_info
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from assay.verify.backends.smt import marabou, z3search
from assay.verify.backends.smt.encode import encode, unsupported
from assay.verify.backends.smt.question import Question
from assay.verify.backends.smt.z3search import ZERO, Answer
from assay.verify.bounds import rigorous
from assay.verify.bounds.verdicts import concluded, unanswerable
from assay.verify.core.budget import UNLIMITED, Budget, Expired, running
from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.ops import Step
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall
from assay.verify.core.result import Guarantee, Reason, Result
from assay.verify.programs.witness import confirmed, descend
from assay.verify.support.child import ChildError, in_child
from assay.verify.support.floats import down

# Distribution and module of each solver.
SOLVERS = {"z3": ("z3-solver", "z3"), "marabou": ("maraboupy", "maraboupy")}

# The positive margin that is asked for, as a share of what the rows of a disjunct can be.
SHARE = {"z3": Fraction(1, 2**30), "marabou": Fraction(1, 2**18)}

# Of descent from a solver's point, which often lies on the boundary of the unsafe set: how many, and the first one as
# a share of the region's radius.
STEPS, NEAR = 20, 0.1

# Times the bound on rounding errors is more than rounding can hide; and what an infinite bound counts for.
CLEAR, MOST = 4, 1e30


@dataclass(frozen=True)
class SMT:
    """The network in real arithmetic, exactly, by an SMT solver; for small networks or few free inputs.

    Weights and bounds are taken as the rational numbers that they are (folded ones as rounded once); "verified" is a
    proof of z3's in rational arithmetic, over bounds of the neurons that hold in real arithmetic. With Marabou, which
    is faster and works in floating point, it is as good as its tolerances. ``bits``: of the numbers in a relaxed form
    that z3 tries first, 0: none; ``optimum``: the least margin itself, by z3; ``steps``: of a descent that looks for a
    counterexample before the solver does. Regions are boxes, linf balls and polytopes.
    """

    solver: Literal["z3", "marabou"] = "z3"
    bits: int = 10
    optimum: bool = False
    steps: int = 20
    name: ClassVar[str] = "smt"
    complete: ClassVar[bool] = True
    guarantee: ClassVar[Guarantee] = Guarantee.RIGOROUS

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise InputError(f"solver must be one of {', '.join(SOLVERS)}, got {self.solver!r}")
        if self.bits < 0:
            raise InputError(f"bits must be at least 0, got {self.bits}")
        if self.steps < 0:
            raise InputError(f"steps must be at least 0, got {self.steps}")
        if self.optimum and self.solver != "z3":
            raise InputError(f"the optimum is found by z3 only, not by {self.solver}")

    def supports(self, problem: Problem) -> str | None:
        """Networks linear or constant in pieces over bounded boxes, and an installed solver."""
        if missing := unsupported(problem.network):
            return f"{', '.join(missing)} is neither linear nor constant in pieces"
        if any(isinstance(node.op, Step) for node in problem.network.nodes):
            if self.solver == "marabou":
                return "Marabou is not asked about what jumps"
            if self.optimum:
                return "what jumps need not have a least margin"
        if isinstance(problem.region, LpBall) and problem.region.p != inf:
            return f"an l{problem.region.p:g} ball is no box"
        box = problem.region.box()
        if not bool((box.lower.isfinite() & box.upper.isfinite()).all()):
            return "the region is unbounded"
        distribution, module = SOLVERS[self.solver]
        return None if find_spec(module) else f"{distribution} is not installed: pip install {distribution}"

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """VERIFIED or FALSIFIED, given time."""
        budget = running(budget)
        if declined := unanswerable(self, problem):
            return declined
        work = _Work(self, problem, budget)
        try:
            return work.run()
        except Expired:
            return work.result(Reason.TIMEOUT)
        except MemoryError as error:
            return work.result(Reason.MEMORY, str(error))
        except UnsupportedError as error:
            return work.result(Reason.UNSUPPORTED, str(error))
        except ChildError as error:
            return work.result(Reason.SOLVER, str(error))


@dataclass(eq=False)
class _Work:
    """One problem; ``lower``: what is proven of each disjunct's margin."""

    method: SMT
    problem: Problem
    budget: Budget
    lower: list[float] = field(init=False)
    stats: dict[str, Any] = field(init=False)
    begun: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.lower = [-inf] * len(self.problem.spec.disjuncts)
        self.stats = {"solver": f"{self.method.solver} {version(SOLVERS[self.method.solver][0])}", "queries": 0}

    def run(self) -> Result:
        """Bounds first, then the solver for the disjuncts that they leave open, the most likely unsafe one first."""
        network, spec, box = self.problem.network, self.problem.spec, self.problem.region.box()
        batch = Box(box.lower[None], box.upper[None])
        bounds, lowest = rigorous.linear_bounds(network, batch, spec.A[None], self.budget)
        rows = down(lowest[0] - spec.b)
        parts = torch.split(rows, [len(d.b) for d in spec.disjuncts])
        self.lower = [part.max().item() if len(part) else -inf for part in parts]
        order = sorted(range(len(parts)), key=self.lower.__getitem__)
        if not self.method.optimum:
            order = [k for k in order if self.lower[k] <= 0]
        if not order:
            return self.result(Reason.INCOMPLETE)
        question = encode(network, bounds, spec, self.budget, self.problem.region)
        self.stats |= {"inputs": len(question.box), "neurons": len(question.neurons)}
        if not self.method.optimum and (nearby := self.look(question, order)) is not None:
            return self.result(Reason.INCOMPLETE, witness=nearby)
        answer = self.ask(question, order)
        witness = self.witness(question, answer)
        if witness is None and answer.point is not None and self.proves and not self.method.optimum:
            answer = self.settle(question, [k for k in order if k not in answer.proven])
            witness = self.witness(question, answer)
        if self.method.optimum and not answer.stopped:
            self.stats |= {"optimum": _float_below(answer.margin), "minimiser": self.start(question, answer)[0]}
        return self.result(*self.open_because(answer), witness)

    @property
    def proves(self) -> bool:
        """Whether the solver's answers are exact."""
        return self.method.solver == "z3"

    def look(self, question: Question, order: Sequence[int]) -> Tensor | None:
        """A counterexample on the way down from the centre of the region towards each of these disjuncts."""
        region = self.problem.region
        centre = region.project(region.centre.double()[None]).expand(len(order), *region.shape)
        down = descend(self.problem, torch.tensor(order), centre, self.method.steps, budget=self.budget)
        return self.shown(question, down)

    def ask(self, question: Question, order: Sequence[int]) -> Answer:
        """The solver's answer about these disjuncts."""
        if self.method.optimum:
            return self.child(z3search.optimum, question, order, self.lower, self.method.bits)
        if self.method.solver == "marabou":
            return self.child(marabou.first_violation, question, order, self.above(question))
        return self.child(z3search.first_reached, question, order, self.above(question), self.method.bits)

    def above(self, question: Question) -> list[Fraction]:
        """The positive margins that are asked for, by disjunct."""
        return [SHARE[self.method.solver] * question.size(k) for k in range(len(self.lower))]

    def child(self, function: Callable[..., Answer], *arguments: Any) -> Answer:
        """The function's answer, from a process of its own, in the time that is left; what it proves is kept."""
        seconds = self.budget.remaining
        answer = in_child(function, (*arguments, seconds), seconds, self.budget.memory)
        self.stats["queries"] += answer.queries
        for disjunct, proven in answer.proven.items():
            if not len(self.problem.spec.disjuncts[disjunct].b):
                continue  # every output is unsafe, to no measurable extent
            self.lower[disjunct] = max(self.lower[disjunct], _float_below(proven))
        return answer

    def settle(self, question: Question, order: Sequence[int]) -> Answer:
        """z3's answer about disjuncts that seem to be reached at a point that shows nothing."""
        network, spec = self.problem.network, self.problem.spec
        error, _ = network.rounding_error(self.problem.region.box().centre[None], network.dtype)
        rows = (CLEAR * error.flatten(1) @ spec.A.abs().T)[0].nan_to_num(posinf=MOST).clamp(max=MOST)
        sizes = [len(d.b) for d in spec.disjuncts]
        beyond = [Fraction(part.max().item()) if len(part) else ZERO for part in torch.split(rows, sizes)]
        return self.child(z3search.settled, question, order, self.above(question), beyond, self.method.bits)

    def witness(self, question: Question, answer: Answer) -> Tensor | None:
        """A counterexample at the solver's point or a few steps of descent from it."""
        if answer.point is None or min(self.lower) > 0:
            return None
        start = self.start(question, answer)
        near = descend(self.problem, torch.tensor([answer.disjunct]), start, STEPS, first=NEAR)
        return self.shown(question, torch.cat([start, near]))

    def start(self, question: Question, answer: Answer) -> Tensor:
        """The solver's point, rounded to float64: (1 x input shape)."""
        x = self.problem.region.box().lower.flatten().clone()
        x[self.free] = torch.tensor([float(v) for v in answer.point or ()], dtype=torch.float64)
        return x.view(1, *self.problem.region.shape)

    @property
    def free(self) -> Tensor:
        """Which inputs, flattened, are the question's variables."""
        box = self.problem.region.box()
        return (box.lower < box.upper).flatten()

    def shown(self, question: Question, points: Tensor) -> Tensor | None:
        """A counterexample among points (n x input shape), in the model's own arithmetic, in float64, and exactly."""
        point = confirmed(self.problem, points)
        if point is None:
            return None
        exact = tuple(Fraction(v) for v in point.double().flatten()[self.free].tolist())
        return point if question.unsafe(exact) else None

    def open_because(self, answer: Answer) -> tuple[Reason, str]:
        """What leaves the problem open, if it is."""
        if answer.stopped in (z3search.TIMEOUT, "canceled"):
            return Reason.TIMEOUT, ""
        if answer.stopped:
            return Reason.MEMORY if "memory" in answer.stopped else Reason.SOLVER, answer.stopped
        told = (
            f"the margin is {_float_below(answer.margin):g} at the point that {self.method.solver} found, in real "
            f"arithmetic, but neither it nor a point nearby shows a violation in {self.problem.network.dtype}"
        )
        return Reason.NUMERICAL, told if answer.point is not None and min(self.lower) <= 0 else ""

    def result(self, reason: Reason, explanation: str = "", witness: Tensor | None = None) -> Result:
        """The verdict that what is proven so far amounts to; the rest is told where it is none."""
        decided = witness is not None or min(self.lower) > 0
        stats = self.stats | ({"explanation": explanation} if explanation and not decided else {})
        seconds = time.monotonic() - self.begun
        result = concluded(self.method, self.problem, min(self.lower), reason, seconds, witness, stats)
        return result if self.proves else replace(result, guarantee=Guarantee.NUMERICAL)


def _float_below(value: Fraction) -> float:
    """The largest float64 that is at most ``value``, or the one below it."""
    if abs(value) > float_info.max:
        return float_info.max if value > 0 else -inf
    nearest = float(value)
    return nearest if Fraction(nearest) <= value else nextafter(nearest, -inf)
