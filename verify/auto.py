"""The method for those who do not want to choose one: attacks and bounds in turn, every verdict checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from attacks.fgsm import FGSM
from attacks.pgd import PGD
from verify import pipeline
from verify.backends.bab.input_split import InputSplit
from verify.backends.crown import CROWN
from verify.backends.ibp import IBP
from verify.core.budget import Budget
from verify.core.problem import Problem
from verify.core.result import Guarantee, Result
from verify.core.verifier import Verifier


@dataclass(frozen=True)
class Auto:
    """FGSM, IBP, CROWN, PGD, the cheapest first, so that easy problems never meet a dear stage; then, for boxes of few
    inputs, the search over sub-boxes until all is decided, and for others a longer attack.

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
        _ = self.stages(narrow=False)  # the attacks refuse what cannot be, now and not later

    def stages(self, narrow: bool) -> list[Verifier]:
        """The stages in order, for ``narrow`` problems, those of few inputs, and for others."""
        quick = PGD(steps=self.steps, restarts=self.restarts, loss="margin")
        strong = PGD(steps=100, step_size=0.1, momentum=0.9, loss="margin", random_start=True, diversify=10)
        last = InputSplit() if narrow else pipeline.Falsifier(strong, rounds=self.rounds, targeted=True)
        return [pipeline.Falsifier(FGSM()), IBP(), CROWN(), pipeline.Falsifier(quick), last]

    def supports(self, problem: Problem) -> str | None:
        """What none of the stages supports."""
        reasons = [stage.supports(problem) for stage in self.stages(narrow=False)]
        return None if None in reasons else "; ".join(reason for reason in reasons if reason)

    def verify(self, problem: Problem, budget: Budget) -> Result:
        """The first checked verdict of the stages."""
        return self.verify_many([problem], budget)[0]

    def verify_many(self, problems: Sequence[Problem], budget: Budget) -> list[Result]:
        """One result per problem; each stage sees only what is still undecided."""
        return self._run(problems, budget, union=False)

    def verify_union(self, problems: Sequence[Problem], budget: Budget) -> list[Result]:
        """The same of problems that are parts of one property: once one is falsified, the rest stays open."""
        return self._run(problems, budget, union=True)

    def _run(self, problems: Sequence[Problem], budget: Budget, union: bool) -> list[Result]:
        budget, results = budget.started(), dict[int, Result]()
        split = InputSplit()
        for narrow in (False, True):
            members = [i for i, problem in enumerate(problems) if (split.supports(problem) is None) is narrow]
            found = pipeline.run([problems[i] for i in members], self.stages(narrow), budget, union)
            results |= zip(members, found, strict=True)
        return [replace(results[i], verifier=repr(self)) for i in range(len(problems))]


def solve(problem: Problem, budget: Budget | None = None) -> Result:
    """The ``auto`` method on one problem, with no limit of time unless a budget sets one."""
    return Auto().verify(problem, budget or Budget())
