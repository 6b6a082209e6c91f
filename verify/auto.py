"""The method for those who do not want to choose one: attacks and bounds in turn, every verdict checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from attacks.fgsm import FGSM
from attacks.pgd import PGD
from verify import pipeline
from verify.backends.crown import CROWN
from verify.backends.ibp import IBP
from verify.core.budget import Budget
from verify.core.problem import Problem
from verify.core.result import Guarantee, Result
from verify.core.verifier import Verifier


@dataclass(frozen=True)
class Auto:
    """FGSM, IBP, CROWN, PGD: the cheapest first, so that easy problems never meet a dear stage."""

    restarts: int = 2
    steps: int = 40
    name: ClassVar[str] = "auto"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def __post_init__(self) -> None:
        _ = self.stages  # the attacks refuse what cannot be, now and not later

    @property
    def stages(self) -> list[Verifier]:
        """The stages in order."""
        strong = PGD(steps=self.steps, restarts=self.restarts, loss="margin")
        return [pipeline.Falsifier(FGSM()), IBP(), CROWN(), pipeline.Falsifier(strong)]

    def supports(self, problem: Problem) -> str | None:
        """What none of the stages supports."""
        reasons = [stage.supports(problem) for stage in self.stages]
        return None if None in reasons else "; ".join(reason for reason in reasons if reason)

    def verify(self, problem: Problem, budget: Budget) -> Result:
        """The first checked verdict of the stages."""
        return self.verify_many([problem], budget)[0]

    def verify_many(self, problems: Sequence[Problem], budget: Budget) -> list[Result]:
        """One result per problem; each stage sees only what is still undecided."""
        return [replace(result, verifier=repr(self)) for result in pipeline.run(problems, self.stages, budget)]

    def verify_union(self, problems: Sequence[Problem], budget: Budget) -> list[Result]:
        """The same of problems that are parts of one property: once one is falsified, the rest stays open."""
        results = pipeline.run(problems, self.stages, budget, union=True)
        return [replace(result, verifier=repr(self)) for result in results]


def solve(problem: Problem, budget: Budget | None = None) -> Result:
    """The ``auto`` method on one problem, with no limit of time unless a budget sets one."""
    return Auto().verify(problem, budget or Budget())
