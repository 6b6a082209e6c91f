"""The method for those who do not want to choose one: attacks and bounds in turn, every verdict checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from assay.attacks.fgsm import FGSM
from assay.attacks.pgd import PGD
from assay.verify.backends.bab.input_split import InputSplit
from assay.verify.backends.crown import CROWN
from assay.verify.backends.ibp import IBP
from assay.verify.bounds.relax import relaxes
from assay.verify.core.budget import UNLIMITED, Budget
from assay.verify.core.ops import LeakyRelu, Relu
from assay.verify.core.problem import Problem
from assay.verify.core.region import LpBall
from assay.verify.core.result import Guarantee, Result
from assay.verify.core.verifier import Verifier
from assay.verify.solving import stages
from assay.verify.solving.falsifier import Falsifier

# ``narrow``: of few inputs; ``small``: of few ReLUs, over regions with flat sides; ``wide``: all others.
Size = Literal["narrow", "small", "wide"]
NEURONS = 8000  # beyond this many ReLUs a single linear program takes seconds


@dataclass(frozen=True)
class Auto:
    """FGSM, IBP, CROWN, PGD, the cheapest first, so that easy problems never meet a dear stage; then, for boxes of few
    inputs, the search over sub-boxes until all is decided, and for others a longer attack. Where ReLUs are not too many
    to be split in linear programs, these are tried before it for a while, and again after half of the time.

    ``restarts``, ``steps``: of the first PGD; ``rounds``: of the longer one, which has momentum, starts from
    diversified outputs, and takes each disjunct by itself.
    """

    restarts: int = 2
    steps: int = 40
    rounds: int = 20
    name: ClassVar[str] = "auto"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def __post_init__(self) -> None:
        _ = self.stages("wide")  # the attacks refuse what cannot be, now and not later

    def stages(self, size: Size) -> list[Verifier]:
        """The stages in order, for problems of a size."""
        quick = PGD(steps=self.steps, restarts=self.restarts, loss="margin")
        strong = PGD(steps=100, step_size=0.1, momentum=0.9, loss="margin", random_start=True, diversify=10)
        long = Falsifier(strong, rounds=self.rounds, targeted=True)
        splits = stages.Late("lp-bab(proof=false)")
        last: dict[Size, list[Verifier]] = {
            "narrow": [InputSplit()],
            "small": [stages.Share(splits, 0.1, most=5.0), stages.Share(long, 0.5), splits],
            "wide": [long],
        }
        return [Falsifier(FGSM()), IBP(), CROWN(), Falsifier(quick), *last[size]]

    def supports(self, problem: Problem) -> str | None:
        """What none of the stages supports."""
        reasons = [stage.supports(problem) for stage in self.stages("wide")]
        return None if None in reasons else "; ".join(reason for reason in reasons if reason)

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """The first checked verdict of the stages."""
        return self.verify_many([problem], budget)[0]

    def verify_many(self, problems: Sequence[Problem], budget: Budget = UNLIMITED) -> list[Result]:
        """One result per problem; each stage sees only what is still undecided."""
        return self._run(problems, budget, union=False)

    def verify_union(self, problems: Sequence[Problem], budget: Budget = UNLIMITED) -> list[Result]:
        """The same of problems that are parts of one property: once one is falsified, the rest stays open."""
        return self._run(problems, budget, union=True)

    def _run(self, problems: Sequence[Problem], budget: Budget, union: bool) -> list[Result]:
        budget, results = budget.started(), dict[int, Result]()
        sizes = [_size(problem) for problem in problems]
        for size in sorted(set(sizes)):
            members = [i for i, here in enumerate(sizes) if here == size]
            found = stages.run([problems[i] for i in members], self.stages(size), budget, union)
            results |= zip(members, found, strict=True)
        return [replace(results[i], verifier=repr(self)) for i in range(len(problems))]


def _size(problem: Problem) -> Size:
    """Which search, if any, can decide the problem."""
    if InputSplit().supports(problem) is None:
        return "narrow"
    activations = [node for node in problem.network.nodes if relaxes(node.op)]
    hinges = all(isinstance(node.op, (Relu, LeakyRelu)) for node in activations)
    region, neurons = problem.region, sum(node.size for node in activations)
    linear = not (isinstance(region, LpBall) and region.p == 2)
    return "small" if linear and hinges and neurons <= NEURONS else "wide"


def solve(problem: Problem, budget: Budget | None = None) -> Result:
    """The ``auto`` method on one problem, with no limit of time unless a budget sets one."""
    return Auto().verify(problem, budget or Budget())
