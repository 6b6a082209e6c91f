"""Few changed pixels, or a patch anywhere, as the boxes whose union they are: each is asked about by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, ClassVar

from assay.verify.bounds.verdicts import unanswerable
from assay.verify.core.budget import UNLIMITED, Budget, running
from assay.verify.core.errors import InputError
from assay.verify.core.problem import Problem, check_problem
from assay.verify.core.region import Box, Sparse
from assay.verify.core.region.sparse import pixels
from assay.verify.core.result import Guarantee, Reason, Result, Verdict
from assay.verify.registry import get_verifier
from assay.verify.solving import stages, union

TOGETHER = 64  # boxes that are asked about at once


@dataclass(frozen=True)
class Pieces:
    """Asks ``method`` about every set of pixels that may change, which is a box: verified if all are (Chiang et al.
    2020, arXiv:2003.06693, by interval bounds), falsified if one is. More than ``most`` sets are refused.
    """

    method: str = "crown"
    most: int = 10_000
    name: ClassVar[str] = "pieces"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def __post_init__(self) -> None:
        if not isinstance(self.most, int) or self.most < 1:
            raise InputError(f"most of pieces must be a whole number of at least 1, got {self.most}")
        get_verifier(self.method)

    def supports(self, problem: Problem) -> str | None:
        """Sparse regions of not too many sets of pixels; of others, which are one piece, those of the method."""
        region = problem.region
        if not isinstance(region, Sparse):
            return get_verifier(self.method).supports(problem)
        count = region.support.count(*pixels(region.shape))
        if count > self.most:
            return f"{count} sets of pixels, more than the {self.most} that are asked about one by one"
        return None

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """VERIFIED if every set of pixels is, FALSIFIED if one is; the first that is not verified ends it."""
        check_problem(problem)
        budget = running(budget)
        region = problem.region
        if not isinstance(region, Sparse):
            return replace(get_verifier(self.method).verify(problem, budget), verifier=repr(self))
        if not problem.spec.disjuncts:
            return self._undecided(problem, Reason.VACUOUS, "the unsafe set is empty")
        if why := self.supports(problem):
            return self._undecided(problem, Reason.UNSUPPORTED, why)
        verifier, parts = get_verifier(self.method), self._parts(problem, region)
        proved: list[Result] = []
        while batch := [*islice(parts, TOGETHER)]:
            if budget.expired:
                break
            if declined := unanswerable(verifier, batch[0]):
                return replace(declined, problem_id=problem.id, verifier=repr(self))
            results = stages.decide(verifier, batch, budget, union=True)
            if any(result.verdict is not Verdict.VERIFIED for result in results):
                return self._answer(problem, union.combine(results), len(proved))
            proved += results
        count = region.support.count(*pixels(region.shape))
        if len(proved) < count:
            return Result(problem.id, repr(self), Verdict.UNKNOWN, Reason.TIMEOUT, stats={"proved": len(proved)})
        return self._answer(problem, union.combine(proved), count)

    def _parts(self, problem: Problem, region: Sparse) -> Iterator[Problem]:
        boxes = region.boxes()
        for low, high in zip(boxes.lower, boxes.upper, strict=True):
            yield Problem(problem.network, Box(low, high), problem.spec, problem.label)

    def _answer(self, problem: Problem, whole: Result, proved: int) -> Result:
        """What the parts say together, of the whole; a margin is one only where all parts have been asked."""
        kept = ("explanation", "counterexample_margin", "alarm")
        stats: dict[str, Any] = {key: whole.stats[key] for key in kept if key in whole.stats}
        return replace(
            whole,
            problem_id=problem.id,
            verifier=repr(self),
            margin=whole.margin if whole.verdict is Verdict.VERIFIED else None,
            stats={**stats, "proved": proved},
        )

    def _undecided(self, problem: Problem, reason: Reason, why: str) -> Result:
        return Result(problem.id, repr(self), Verdict.UNKNOWN, reason, stats={"explanation": why})
