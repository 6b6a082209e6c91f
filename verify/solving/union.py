"""Several problems that are one property: falsified if any of them is, verified only if all are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from assay.verify.core.budget import Budget
from assay.verify.core.network import content_hash
from assay.verify.core.problem import Problem
from assay.verify.core.result import Guarantee, Reason, Result, Verdict
from assay.verify.core.verifier import Verifier
from assay.verify.solving import stages

# Why a property stays open when its parts do for several reasons: what more time cannot mend comes first.
REASONS = (
    Reason.UNSUPPORTED,
    Reason.MEMORY,
    Reason.NUMERICAL,
    Reason.SOLVER,
    Reason.INCOMPLETE,
    Reason.TIMEOUT,
    Reason.VACUOUS,
)
WEAKEST_FIRST = tuple(reversed(Guarantee))


def verify(
    verifier: Verifier, problems: Sequence[Problem], budget: Budget, report: Callable[[Result], None] | None = None
) -> Result:
    """The checked answer to the property that ``problems`` are together, under one deadline; see :func:`combine`.

    ``report`` hears of the answer so far, after each stage of a verifier that has stages.
    """
    if not problems:
        why = {"explanation": "the property has no case: no input can be a counterexample"}
        return Result(content_hash("union"), repr(verifier), Verdict.UNKNOWN, Reason.VACUOUS, stats=why)

    def heard(parts: Sequence[Result]) -> None:
        if report is not None:
            report(combine(parts))

    return combine(stages.decide(verifier, problems, budget, union=True, report=heard))


def combine(parts: Sequence[Result]) -> Result:
    """One result from those of the parts, which it keeps in ``stats["parts"]``; a single part is the answer itself.

    Vacuous parts say nothing, and leave the property vacuous only where there is nothing else. The margin is the
    smallest; the guarantee of "verified" is the weakest of its parts', that of "falsified" the falsified part's.
    """
    if len(parts) == 1:
        return parts[0]
    real = [part for part in parts if part.reason is not Reason.VACUOUS] or list(parts)
    falsified = next((part for part in real if part.verdict is Verdict.FALSIFIED), None)
    undecided = sorted((p for p in real if p.reason is not None), key=lambda p: REASONS.index(p.reason))
    chief = falsified or next(iter(undecided), None)
    said = [falsified] if falsified else real
    margins = [part.margin for part in real if part.margin is not None]
    return Result(
        content_hash("union", *(part.problem_id for part in parts)),
        parts[0].verifier,
        chief.verdict if chief else Verdict.VERIFIED,
        chief.reason if chief else None,
        guarantee=min((part.guarantee for part in said), key=WEAKEST_FIRST.index),
        margin=min(margins) if len(margins) == len(real) else None,
        counterexample=chief.counterexample if chief else None,
        confidence=_confidence(said),
        seconds=sum(part.seconds for part in parts),
        subject=" and ".join(dict.fromkeys(part.subject for part in said)),
        semantics=" and ".join(dict.fromkeys(part.semantics for part in said)),
        stats=_facts(parts, chief) | {"parts": [_plain(part) for part in parts]},
    )


def _confidence(parts: Sequence[Result]) -> float | None:
    """That all parts are right at once, by Bonferroni's inequality; None where none of them is statistical."""
    doubts = [1 - part.confidence for part in parts if part.confidence is not None]
    return max(0.0, 1 - sum(doubts)) if doubts else None


def _facts(parts: Sequence[Result], chief: Result | None) -> dict[str, Any]:
    """What explains the whole: which part stands for it, what is told of that part, and any part's alarm."""
    facts: dict[str, Any] = {}
    if chief is not None:
        facts["part"] = parts.index(chief)
        facts |= {key: chief.stats[key] for key in ("counterexample_margin", "explanation") if key in chief.stats}
    alarms = [part.stats["alarm"] for part in parts if "alarm" in part.stats]
    return facts | {"alarm": alarms[0]} if alarms else facts


def _plain(part: Result) -> dict[str, Any]:
    """A part as data that a result's stats can hold."""
    data = {field.name: getattr(part, field.name) for field in fields(part)}
    return {
        **data,
        "verdict": part.verdict.value,
        "reason": part.reason and part.reason.value,
        "guarantee": part.guarantee.value,
    }
