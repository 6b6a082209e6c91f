"""What is put to the participants of a comparison, and what the store knows of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from assay.benchmarks.harness.alarms import Case
from assay.benchmarks.harness.participants import Participant
from assay.benchmarks.harness.store import Key, Record, Store, settled
from assay.verify.core.budget import Budget
from assay.verify.core.problem import Problem
from assay.verify.core.result import Result


@dataclass(frozen=True)
class Question:
    """Sample ``sample`` within ``eps``, as a problem."""

    sample: int
    eps: float
    problem: Problem

    def case(self, participant: Participant, result: Result) -> Case:
        """The question with an answer."""
        return Case(participant.name, self.sample, self.eps, self.problem, result)


@dataclass(frozen=True)
class Records:
    """What goes to the store, if there is one, and with ``resume`` comes from there."""

    store: Store | None
    resume: bool
    norm: float
    budget: Budget

    def known(self, participant: Participant, asked: Sequence[Question]) -> dict[str, Result]:
        """What is settled, by problem id. Asked batch by batch: another run may be at work on the store."""
        if self.store is None or not self.resume:
            return {}
        records = (self.store.get(self._key(question.problem, participant)) for question in asked)
        return {r.key.problem: r.result for r in records if r is not None and settled(r, self.budget.seconds)}

    def asked(self, asked: Sequence[Question]) -> None:
        """Note which problem each question is."""
        if self.store is not None and self.store.run is not None:
            self.store.note_asked([(question.sample, question.eps, question.problem.id) for question in asked])

    def keep(self, participant: Participant, new: Sequence[Case]) -> list[Case]:
        """Store new verdicts; the stored ones of the same participant that they contradict."""
        if self.store is None:
            return []
        by_problem = {case.problem.id: case for case in new}
        return [
            replace(by_problem[record.key.problem], name=f"{participant.name} (earlier)", result=record.result)
            for record in self.store.put([self._record(case, participant) for case in new])
        ]

    def _key(self, problem: Problem, participant: Participant) -> Key:
        return Key(problem.id, participant.key, self.budget.seed, self.budget.device)

    def _record(self, case: Case, participant: Participant) -> Record:
        key, label = self._key(case.problem, participant), case.problem.label
        role, seconds = participant.role.value, self.budget.seconds
        return Record(key, case.result, role, case.sample, label, case.eps, self.norm, seconds)
