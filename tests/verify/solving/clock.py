"""A clock that stands still but for what the work of a test costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from assay.verify.core import budget
from assay.verify.core.budget import Budget
from assay.verify.core.problem import Problem
from assay.verify.core.result import Guarantee, Reason, Result, Verdict


@dataclass(eq=False)
class Clock:
    """Seconds since the test began."""

    now: float = 0.0

    @classmethod
    def installed(cls, monkeypatch: pytest.MonkeyPatch) -> Clock:
        """The clock that all budgets go by from here."""
        clock = cls()
        monkeypatch.setattr(budget.time, "monotonic", lambda: clock.now)
        return clock


@dataclass(frozen=True, eq=False)
class Worker:
    """A method that works for ``cost`` seconds, or until its time is over, and finds nothing; ``asked``: with how many
    seconds it was, each time."""

    clock: Clock = field(repr=False)
    cost: float
    label: str = "worker"
    beyond: str | None = None
    reason: Reason = Reason.INCOMPLETE
    asked: list[float] = field(default_factory=list, repr=False)
    name: ClassVar[str] = "worker"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def supports(self, problem: Problem) -> str | None:
        return self.beyond

    def verify(self, problem: Problem, budget: Budget) -> Result:
        self.asked.append(budget.remaining)
        late = self.cost > budget.remaining
        self.clock.now += min(self.cost, budget.remaining)
        reason = Reason.TIMEOUT if late else self.reason
        return Result(problem.id, self.label, Verdict.UNKNOWN, reason, self.guarantee, seconds=1.0)


@dataclass(frozen=True, eq=False)
class Searcher(Worker):
    """The same, as an attack."""

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
