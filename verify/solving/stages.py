"""Stages one after the other, from cheap to tight, and the check of every decided verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, ClassVar

from assay.verify.check.corroborate import corroborate
from assay.verify.check.replay import replay
from assay.verify.core.budget import UNLIMITED, Budget
from assay.verify.core.problem import Problem
from assay.verify.core.result import NETWORK, Guarantee, Reason, Result, Verdict
from assay.verify.core.verifier import BatchVerifier, Verifier
from assay.verify.registry import get_verifier


@dataclass(frozen=True)
class Share:
    """A stage that gets a ``part`` of the time that is left, and so many seconds at ``most``, so that there is some for
    the stages after it."""

    stage: Verifier
    part: float
    most: float = inf
    name: ClassVar[str] = "share"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def supports(self, problem: Problem) -> str | None:
        """What the stage supports."""
        return self.stage.supports(problem)

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """What the stage says in its time."""
        return self.verify_many([problem], budget)[0]

    def verify_many(self, problems: Sequence[Problem], budget: Budget = UNLIMITED) -> list[Result]:
        """One result per problem."""
        seconds = min(self.part * max(budget.started().remaining, 0.0), self.most)
        return _verified(self.stage, problems, replace(budget, seconds=seconds, deadline=None).started())


@dataclass(frozen=True)
class Late:
    """A method by its name, imported when its turn comes: packages that take long to load are not for every start."""

    text: str
    name: ClassVar[str] = "late"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def supports(self, problem: Problem) -> str | None:
        """Asked when its turn comes."""
        return None

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """What the method says."""
        return get_verifier(self.text).verify(problem, budget)


def check(problems: Sequence[Problem], results: Sequence[Result]) -> list[Result]:
    """Each result if it stands up to the second opinion; otherwise UNKNOWN(numerical) that says why.

    A verdict that fails is reported in ``stats["alarm"]`` unless the point is merely one on which float32 and real
    arithmetic differ. The model says nothing against a verdict on another subject; its counterexample must be a
    member of the region all the same.
    """
    checked = list(results)
    own = [i for i, result in enumerate(results) if result.subject == NETWORK]
    verified = [i for i in own if results[i].verdict is Verdict.VERIFIED]
    faults = corroborate([problems[i] for i in verified], [results[i] for i in verified])
    for i, fault in zip(verified, faults, strict=True):
        if fault is not None:
            checked[i] = _withdrawn(results[i], {"alarm": fault})
    for i, result in enumerate(results):
        if result.verdict is Verdict.FALSIFIED:
            checked[i] = (_replayed if result.subject == NETWORK else _member)(problems[i], result)
    return [_about_region(problem, result) for problem, result in zip(problems, checked, strict=True)]


def _about_region(problem: Problem, result: Result) -> Result:
    """The result with what is odd about its region: an input that was moved, or that no point of the dtype fits."""
    facts = {"moved": problem.moved} if problem.moved else {}
    if result.verdict is Verdict.UNKNOWN and problem.unreachable and "explanation" not in result.stats:
        facts["explanation"] = problem.unreachable
    return replace(result, stats={**result.stats, **facts}) if facts else result


def _member(problem: Problem, result: Result) -> Result:
    assert result.counterexample is not None
    if bool(problem.region.contains(result.counterexample[None])[0]):
        return result
    return _withdrawn(result, {"alarm": "the counterexample lies outside of the region"})


def _replayed(problem: Problem, result: Result) -> Result:
    assert result.counterexample is not None
    seen = replay(problem, result.counterexample)
    if seen.confirmed:
        return replace(result, stats={**result.stats, "counterexample_margin": seen.margin})
    return _withdrawn(result, {"alarm" if seen.alarm else "explanation": seen.explanation})


def decide(verifier: Verifier, problems: Sequence[Problem], budget: Budget) -> list[Result]:
    """``verifier`` on every problem, in one batch where it can, each decided verdict checked."""
    return check(problems, _verified(verifier, problems, budget.started()))


def _verified(verifier: Verifier, problems: Sequence[Problem], budget: Budget) -> list[Result]:
    if isinstance(verifier, BatchVerifier):
        return verifier.verify_many(problems, budget)
    return [verifier.verify(problem, budget) for problem in problems]


def run(problems: Sequence[Problem], stages: Sequence[Verifier], budget: Budget, union: bool = False) -> list[Result]:
    """Each stage on the problems still undecided; the first checked verdict of a problem stands.

    An undecided problem gets the largest margin that any stage proved, and the last stage's reason. With ``union``
    the problems are parts of one property, and the stage that falsifies one of them is the last.
    """
    budget = budget.started()
    results: list[Result | None] = [None] * len(problems)
    for stage in stages:
        open_ = [i for i, r in enumerate(results) if r is None or r.verdict is Verdict.UNKNOWN]
        if not open_ or (union and any(r is not None and r.verdict is Verdict.FALSIFIED for r in results)):
            break
        for i, new in zip(open_, decide(stage, [problems[i] for i in open_], budget), strict=True):
            results[i] = _merge(results[i], new)
    return [result for result in results if result is not None]


def _merge(old: Result | None, new: Result) -> Result:
    """The new result, with what the earlier stages had proved and spent; ``stats["tried"]`` tells it stage by stage."""
    step = {
        "stage": new.verifier,
        "outcome": (new.reason or new.verdict).value,
        "margin": new.margin,
        "seconds": new.seconds,
    }
    if old is None:
        return replace(new, stats={**new.stats, "stages": [new.verifier], "tried": [step]})
    margins = [m for m in (old.margin, new.margin) if m is not None]
    why: dict[str, Any] = {key: old.stats[key] for key in ("alarm", "explanation") if key in old.stats}
    trail = {"stages": [*old.stats["stages"], new.verifier], "tried": [*old.stats["tried"], step]}
    stats = {**why, **new.stats, **trail}
    # That a later stage merely found nothing says less than why an earlier one could not begin.
    reason = old.reason if new.reason is Reason.INCOMPLETE else new.reason
    return replace(
        new, reason=reason, margin=max(margins, default=None), seconds=old.seconds + new.seconds, stats=stats
    )


def _withdrawn(result: Result, why: dict[str, Any]) -> Result:
    return replace(
        result,
        verdict=Verdict.UNKNOWN,
        reason=Reason.NUMERICAL,
        margin=None,
        counterexample=None,
        stats={**result.stats, **why},
    )
