"""What methods that speak of a smoothed classifier answer: one form of results, and the questions that they leave."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from assay.verify.core.budget import Budget
from assay.verify.core.problem import Problem
from assay.verify.core.result import Reason, Result, Verdict
from assay.verify.core.verifier import OtherSubject


def declined(method: OtherSubject, problem: Problem, budget: Budget, begun: float) -> Result | None:
    """The result for a problem that is empty, beyond the method, or asked too late; None for one to be worked on."""
    if problem.region.empty or not problem.spec.disjuncts:
        return stated(method, problem, begun, Reason.VACUOUS)
    if why := method.supports(problem):
        return stated(method, problem, begun, Reason.UNSUPPORTED, {"explanation": why})
    return stated(method, problem, begun, Reason.TIMEOUT) if budget.expired else None


def stated(
    method: OtherSubject,
    problem: Problem,
    begun: float,
    reason: Reason | None,
    stats: Mapping[str, Any] | None = None,
    alpha: float | None = None,
    certificate: dict[str, Any] | None = None,
    counterexample: Tensor | None = None,
) -> Result:
    """The result of a method that began then: open for a ``reason``, else FALSIFIED with a counterexample, VERIFIED
    without one; ``alpha``: the chance that it is wrong, where something is drawn."""
    decided = Verdict.VERIFIED if counterexample is None else Verdict.FALSIFIED
    return Result(
        problem.id,
        repr(method),
        decided if reason is None else Verdict.UNKNOWN,
        reason,
        guarantee=method.guarantee,
        counterexample=counterexample,
        certificate=certificate,
        confidence=None if alpha is None else 1 - alpha,
        seconds=time.monotonic() - begun,
        subject=method.subject,
        stats=dict(stats or {}),
    )
