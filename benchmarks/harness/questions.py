"""What is put to the participants of a comparison, and what the store knows of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from assay.benchmarks.harness.alarms import Case
from assay.benchmarks.harness.participants import Participant
from assay.benchmarks.harness.records.store import Key, Record, Store, settled
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InternalError, ResourceError, UnsupportedError
from assay.verify.core.problem import Problem
from assay.verify.core.result import Reason, Result, Verdict
from assay.verify.core.verifier import BatchVerifier
from assay.verify.solving import stages


@dataclass(frozen=True)
class Question:
    """Sample ``sample`` within ``eps``, as a problem."""

    sample: int
    eps: float
    problem: Problem

    def case(self, participant: Participant, result: Result) -> Case:
        """The question with an answer."""
        return Case(participant.name, self.sample, self.eps, self.problem, result)


class Recording(Protocol):
    """Where verdicts are kept, and come from."""

    def known(self, participant: Participant, asked: Sequence[Question]) -> dict[str, Result]:
        """What is settled, by problem id."""
        ...

    def asked(self, asked: Sequence[Question]) -> None:
        """Note which problem each question is."""
        ...

    def keep(self, participant: Participant, new: Sequence[Case]) -> list[Case]:
        """Keep new verdicts; the earlier ones of the same participant that they contradict."""
        ...


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
        records = self.store.find([self._key(question.problem, participant) for question in asked]).values()
        return {r.key.problem: r.result for r in records if settled(r, self.budget.seconds)}

    def settled(self, participants: Sequence[Participant], samples: Sequence[int]) -> dict[tuple[str, str], Result]:
        """Everything that is settled of some samples, by the keys of participants and the ids of problems."""
        if self.store is None or not self.resume:
            return {}
        keys = {participant.key for participant in participants}
        mine = (r for r in self.store.of_samples(samples) if r.key.method in keys and settled(r, self.budget.seconds))
        code = Key("", "", self.budget.seed, self.budget.device).values[2:]
        return {(r.key.method, r.key.problem): r.result for r in mine if r.key.values[2:] == code}

    def asked(self, asked: Sequence[Question]) -> None:
        """Note which problem each question is."""
        if self.store is not None and self.store.run is not None:
            posed = [(question.sample, question.eps, question.problem.id) for question in asked]
            self.store.noted.note_asked(self.store.run, posed)

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


def one_by_one(participant: Participant) -> bool:
    """Whether the participant takes no batches."""
    return not isinstance(participant.verifier, BatchVerifier)


def grouped(participant: Participant, asked: list[Question]) -> list[list[Question]]:
    """What is asked at once: everything where the participant takes batches, else one by one."""
    if one_by_one(participant):
        return [[one] for one in asked]
    return [asked] if asked else []


def answers(participant: Participant, asked: Sequence[Question], budget: Budget) -> list[Result]:
    """Checked results, one per problem. Each problem has the budget's seconds; a batch shares the sum of them."""
    problems = [question.problem for question in asked]
    where = f"samples {asked[0].sample} to {asked[-1].sample} at eps {asked[0].eps:g}"
    try:
        limit = replace(budget, seconds=budget.seconds * len(problems))
        results = stages.decide(participant.verifier, problems, limit)
    except UnsupportedError as error:
        why = {"explanation": str(error)}
        return [
            Result(problem.id, participant.key, Verdict.UNKNOWN, Reason.UNSUPPORTED, stats=why) for problem in problems
        ]
    except (MemoryError, torch.OutOfMemoryError, ResourceError) as error:
        raise ResourceError(
            f"{participant.name} ran out of memory on {where}: take a smaller batch ({error})"
        ) from error
    except Exception as error:
        raise InternalError(f"{participant.name} failed on {where}: {type(error).__name__}: {error}") from error
    if [result.problem_id for result in results] != [problem.id for problem in problems]:
        raise InternalError(f"{participant.name} answered other problems than it was asked on {where}")
    return results
