"""A comparison under way: batch by batch, what everybody is asked, what was said, and where that is a contradiction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from assay.benchmarks.harness import alarms, bracket, lost
from assay.benchmarks.harness.alarms import Alarm, Case
from assay.benchmarks.harness.asking import Asked, Ground
from assay.benchmarks.harness.bracket import Judged, Tally
from assay.benchmarks.harness.lost import Lost
from assay.benchmarks.harness.participants import Participant
from assay.benchmarks.harness.progress import Progress
from assay.benchmarks.harness.questions import Question, Records, one_by_one
from assay.verify.core.result import NETWORK
from assay.verify.support.executors import Ended, Executor, Fate, Task, run_parted

SLACK = 10.0  # seconds beyond its own before a process is ended: methods keep time themselves
TASK = 1.0  # seconds that a task lasts, roughly
TAPER, LEAST = 4, 8  # a batch is no more than one part in so many of what is left, but for as few as these


@dataclass(eq=False)
class Batch:
    """Samples that are judged together: what was said of them so far, and how many tasks are still to reply."""

    samples: tuple[int, ...]
    judged: list[Judged] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)
    owed: int = 0
    asked: bool = False  # whether there is nothing left to ask

    @property
    def over(self) -> bool:
        """Whether everything is said."""
        return self.asked and not self.owed


@dataclass(frozen=True, eq=False)
class Group:
    """What one task asks, and in which batch."""

    batch: Batch
    participant: Participant
    questions: Sequence[Question]

    def __str__(self) -> str:
        first, last = self.questions[0], self.questions[-1]
        which = f"sample {first.sample}" if first is last else f"samples {first.sample} to {last.sample}"
        return f"{self.participant.name} on {which} at eps {first.eps:g}"


@dataclass(eq=False)
class Run:
    """A comparison under way: who is asked what, and what was found so far. ``right``: of each subject's samples,
    those that it classifies rightly."""

    ground: Ground
    radii: Sequence[float]
    right: Mapping[str, set[int]]
    records: Records
    alarm_folder: Path | None
    progress: Progress
    batches: list[Batch] = field(default_factory=list)
    alarms: list[Alarm] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    resumed: int = 0
    pace: dict[str, Pace] = field(default_factory=dict)
    tally: Tally = field(init=False)
    lost: list[Lost] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tally = Tally(self.radii)

    @property
    def judged(self) -> list[Judged]:
        """What was said, in an order that does not depend on who was ready first."""
        places = {p.name: i for i, p in enumerate(self.ground.participants)}
        return sorted(
            (one for batch in self.batches for one in batch.judged),
            key=lambda one: (one.sample, one.eps, places[one.name]),
        )

    def judge(self, size: int, executor: Executor) -> None:
        """What everybody says of all samples, ``size`` of them at a time, and where that is a contradiction."""
        participants, right = self.ground.participants, self.right
        anybody = sorted(set().union(*(right[p.subject] for p in participants)))
        self.batches = [Batch(samples) for samples in tapered(anybody, size)]
        work = {_stage(p, radius): len(right[p.subject]) for radius in self.radii for p in participants}
        self.progress.begin(sum(work.values()), work)
        for ended in run_parted(executor, self._tasks(executor.capacity > 1), self._parts):
            self._take(ended)

    def _tasks(self, shared: bool) -> Iterator[Task]:
        """What is not known yet, as tasks, each about a second long where others wait for theirs; one question each
        where the participant takes no batches and nobody does, so that as little as possible is lost with a run. Where
        several run at once, who takes longest begins, so that they end together."""
        for batch in self.batches:
            for radius in self.radii:
                asked = self.ground.questions(radius, batch.samples)
                self.records.asked(asked)
                for participant in self._dearest_first() if shared else self.ground.participants:
                    mine = [q for q in asked if q.sample in self.right[participant.subject]]
                    rest = self._recalled(batch, participant, mine)
                    while rest:
                        count = self._pace(participant).count(shared) if one_by_one(participant) else len(rest)
                        group, rest = rest[:count], rest[count:]
                        self.progress.running(_stage(participant, radius))
                        batch.owed += 1
                        yield self._task(Group(batch, participant, group))
            batch.asked = True
            self._close(batch)

    def _parts(self, ended: Ended) -> list[Task]:
        """Each question of a task that was lost, alone; but for those that one batch had the time of all for."""
        group: Group = ended.task.tag
        late = ended.fate is Fate.TIMEOUT and not one_by_one(group.participant)
        if late or len(group.questions) == 1:
            return []
        group.batch.owed += len(group.questions) - 1
        return [self._task(Group(group.batch, group.participant, [question])) for question in group.questions]

    def _task(self, group: Group) -> Task:
        samples, place = tuple(q.sample for q in group.questions), self.ground.participants.index(group.participant)
        argument = Asked(place, group.batch.samples, samples, group.questions[0].eps)
        return Task(argument, len(samples) * self.ground.budget.seconds + SLACK, group)

    def _recalled(self, batch: Batch, participant: Participant, asked: list[Question]) -> list[Question]:
        """Take what the store knows; the questions that it does not answer."""
        known = self.records.known(participant, asked)
        said = [q.case(participant, known[q.problem.id]) for q in asked if q.problem.id in known]
        self.resumed += len(said)
        self.progress.recall(len(said))
        self._said(batch, participant, said)
        return [q for q in asked if q.problem.id not in known]

    def _take(self, ended: Ended) -> None:
        """What a task has said, and the stored verdicts that it contradicts. Raises what its participant did."""
        group: Group = ended.task.tag
        participant, questions = group.participant, group.questions
        if ended.lost and ended.fate is not Fate.TIMEOUT:
            self.lost.append(Lost.of(ended, str(group)))
        results = (
            [lost.result(ended, question.problem.id, participant.key) for question in questions]
            if ended.lost
            else ended.value(str(group))
        )
        fresh = [q.case(participant, result) for q, result in zip(questions, results, strict=True)]
        group.batch.cases += self.records.keep(participant, fresh)
        self._said(group.batch, participant, fresh)
        self._pace(participant).add(len(fresh), ended.seconds)
        self.progress.running(_stage(participant, questions[0].eps))
        self.progress.advance(len(fresh))
        group.batch.owed -= 1
        self._close(group.batch)

    def _said(self, batch: Batch, participant: Participant, said: list[Case]) -> None:
        batch.cases += said
        batch.judged += [bracket.judged(participant, case.sample, case.eps, case.result) for case in said]

    def _close(self, batch: Batch) -> None:
        """Once all is said of a batch: the contradictions, and both jaws."""
        if not batch.over:
            return
        contradictions = alarms.find(batch.cases)
        batch.cases = []
        self.alarms += contradictions
        self.folders += alarms.save_all(contradictions, self.alarm_folder)
        place = self.batches.index(batch)
        before = self.batches[place - 1].samples[-1] + 1 if place else 0
        right = len(self.right[NETWORK] & set(batch.samples))
        self.tally.add(batch.samples[-1] + 1 - before, right, batch.judged)
        self.progress.so_far(str(self.tally))

    def _dearest_first(self) -> list[Participant]:
        """By what an answer has taken so far."""
        return sorted(self.ground.participants, key=lambda each: self._pace(each).each, reverse=True)

    def _pace(self, participant: Participant) -> Pace:
        return self.pace.setdefault(participant.name, Pace())


@dataclass(eq=False)
class Pace:
    """How fast a participant answers."""

    answers: int = 0
    seconds: float = 0.0

    def add(self, answers: int, seconds: float) -> None:
        """So many more."""
        self.answers += answers
        self.seconds += seconds

    @property
    def each(self) -> float:
        """Seconds of an answer, inf where none is known."""
        return self.seconds / self.answers if self.answers else inf

    def count(self, shared: bool) -> int:
        """How many questions make a task."""
        if not shared or not self.answers:
            return 1
        return max(1, int(TASK * self.answers / max(self.seconds, 1e-6)))


def tapered(samples: Sequence[int], size: int) -> list[tuple[int, ...]]:
    """The samples in batches of ``size``, smaller ones towards the end of a run of several: who works side by side on
    them ends at about the same time. They depend on nothing else, so that nothing depends on how many work.

    >>> [len(batch) for batch in tapered(range(170), 50)]
    [43, 32, 24, 18, 14, 10, 8, 8, 8, 5]
    """
    batches, start = [], 0
    while (left := len(samples) - start) > 0:
        count = min(size, max(LEAST, -(-left // TAPER))) if len(samples) > size else left
        batches.append(tuple(samples[start : start + count]))
        start += count
    return batches


def _stage(participant: Participant, radius: float) -> str:
    """What takes its own time."""
    return f"{participant.name}, eps {radius:g}"
