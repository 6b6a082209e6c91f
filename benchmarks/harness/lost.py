"""Questions that were lost with their process, however often they were tried: they stay open, and the run goes on."""

from __future__ import annotations

from dataclasses import dataclass

from assay.verify.core.errors import ResourceError
from assay.verify.core.result import Reason, Result, Verdict
from assay.verify.support.executors import Ended, Fate


@dataclass(frozen=True)
class Lost:
    """What was asked, why there is no answer, and the exit code of such a failure."""

    what: str
    why: str
    exit_code: int

    @classmethod
    def of(cls, ended: Ended, what: str) -> Lost:
        """What became of the task that asked ``what``."""
        error = ended.failure(what)
        return cls(what, str(error), error.exit_code)


def reason(ended: Ended) -> Reason:
    """Why the question stays open."""
    if ended.fate is Fate.TIMEOUT:
        return Reason.TIMEOUT
    return Reason.MEMORY if isinstance(ended.failure(), ResourceError) else Reason.SOLVER


def result(ended: Ended, problem: str, method: str) -> Result:
    """The open answer to the problem with this id. One whose time was over is like any other; the others say by their
    exit code that asking again is worth it whatever the time
    (:func:`assay.benchmarks.harness.records.store.settled`)."""
    told: dict[str, object] = {"explanation": ended.detail or str(ended.failure())}
    if ended.fate is not Fate.TIMEOUT:
        told["exit_code"] = ended.failure().exit_code
    return Result(problem, method, Verdict.UNKNOWN, reason(ended), stats=told)
