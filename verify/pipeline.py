"""Stages one after the other, from cheap to tight, and the check of every decided verdict."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from attacks.base import Attack
from verify.check.corroborate import corroborate
from verify.check.replay import replay
from verify.core.budget import Budget
from verify.core.problem import Problem
from verify.core.result import Guarantee, Reason, Result, Verdict
from verify.core.verifier import BatchVerifier, Verifier


@dataclass(frozen=True)
class Falsifier:
    """An attack as a verifier: FALSIFIED with the point it found, or UNKNOWN."""

    attack: Attack
    name: ClassVar[str] = "attack"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL

    def supports(self, problem: Problem) -> str | None:
        """Attacks take every problem that has a differentiable model."""
        return None

    def verify(self, problem: Problem, budget: Budget) -> Result:
        """FALSIFIED if the attack breaks the problem."""
        return self.verify_many([problem], budget)[0]

    def verify_many(self, problems: Sequence[Problem], budget: Budget) -> list[Result]:
        """One result per problem."""
        begun = time.monotonic()
        found = self.attack.search(problems, seed=budget.seed)
        seconds = (time.monotonic() - begun) / max(len(problems), 1)
        return [
            Result(
                problem.id,
                repr(self.attack),
                Verdict.FALSIFIED if broken else Verdict.UNKNOWN,
                reason=None if broken else Reason.INCOMPLETE,
                guarantee=Guarantee.EMPIRICAL,
                counterexample=x.detach().clone() if broken else None,
                seconds=seconds,
                semantics="float32",
            )
            for problem, x, broken in zip(problems, found.adversarial, found.success.tolist(), strict=True)
        ]


def check(problems: Sequence[Problem], results: Sequence[Result]) -> list[Result]:
    """Each result if it stands up to the second opinion; otherwise UNKNOWN(numerical) that says why.

    A verdict that fails is reported in ``stats["alarm"]`` unless the point is merely one on which float32 and real
    arithmetic differ.
    """
    checked = list(results)
    verified = [i for i, result in enumerate(results) if result.verdict is Verdict.VERIFIED]
    faults = corroborate([problems[i] for i in verified], [results[i] for i in verified])
    for i, fault in zip(verified, faults, strict=True):
        if fault is not None:
            checked[i] = _withdrawn(results[i], {"alarm": fault})
    for i, result in enumerate(results):
        if result.verdict is Verdict.FALSIFIED:
            checked[i] = _replayed(problems[i], result)
    return checked


def _replayed(problem: Problem, result: Result) -> Result:
    assert result.counterexample is not None
    seen = replay(problem, result.counterexample)
    if seen.confirmed:
        return replace(result, stats={**result.stats, "counterexample_margin": seen.margin})
    return _withdrawn(result, {"explanation": seen.explanation})


def decide(verifier: Verifier, problems: Sequence[Problem], budget: Budget) -> list[Result]:
    """``verifier`` on every problem, in one batch where it can, each decided verdict checked."""
    budget = budget.started()
    if isinstance(verifier, BatchVerifier):
        results = verifier.verify_many(problems, budget)
    else:
        results = [verifier.verify(problem, budget) for problem in problems]
    return check(problems, results)


def run(problems: Sequence[Problem], stages: Sequence[Verifier], budget: Budget) -> list[Result]:
    """Each stage on the problems still undecided; the first checked verdict of a problem stands.

    An undecided problem gets the largest margin that any stage proved, and the last stage's reason.
    """
    budget = budget.started()
    results: list[Result | None] = [None] * len(problems)
    for stage in stages:
        open_ = [i for i, r in enumerate(results) if r is None or r.verdict is Verdict.UNKNOWN]
        if not open_:
            break
        for i, new in zip(open_, decide(stage, [problems[i] for i in open_], budget), strict=True):
            results[i] = _merge(results[i], new)
    return [result for result in results if result is not None]


def _merge(old: Result | None, new: Result) -> Result:
    """The new result, with what the earlier stages had proved and spent."""
    if old is None:
        return replace(new, stats={**new.stats, "stages": [new.verifier]})
    margins = [m for m in (old.margin, new.margin) if m is not None]
    alarm: dict[str, Any] = {key: old.stats[key] for key in ("alarm",) if key in old.stats}
    stats = {**alarm, **new.stats, "stages": [*old.stats["stages"], new.verifier]}
    return replace(new, margin=max(margins, default=None), seconds=old.seconds + new.seconds, stats=stats)


def _withdrawn(result: Result, why: dict[str, Any]) -> Result:
    return replace(
        result,
        verdict=Verdict.UNKNOWN,
        reason=Reason.NUMERICAL,
        margin=None,
        counterexample=None,
        stats={**result.stats, **why},
    )
