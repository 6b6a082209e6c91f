"""A search for radii by several processes: each gets samples with what the store knows of them, and tells what it found
and what is to be stored. One process alone writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from assay.benchmarks.harness.alarms import Case
from assay.benchmarks.harness.lost import Lost, reason
from assay.benchmarks.harness.participants import Participant
from assay.benchmarks.harness.preloaded import SAMPLES
from assay.benchmarks.harness.progress import SILENT
from assay.benchmarks.harness.questions import Question, Records
from assay.benchmarks.harness.radii.radius_search import Sample, Search
from assay.benchmarks.harness.sources import Source, checked
from assay.models.data import Dataset
from assay.verify.core.budget import Budget
from assay.verify.core.network import Network, to_network
from assay.verify.core.result import Result
from assay.verify.support.executors import Ended, Hiring, Job, Task, run_parted

Known = Mapping[tuple[str, str], Result]  # by the keys of participants and the ids of problems


@dataclass(frozen=True)
class Said:
    """What the participant with this name said of a sample within eps; the problem is made again by who needs it."""

    name: str
    sample: int
    eps: float
    result: Result


@dataclass(eq=False)
class Carried:
    """What a process knows instead of a store, and what is to be stored of its work."""

    settled: Known
    questions: list[tuple[int, float]] = field(default_factory=list)
    kept: list[Said] = field(default_factory=list)

    def known(self, participant: Participant, asked: Sequence[Question]) -> dict[str, Result]:
        """See :class:`assay.benchmarks.harness.questions.Recording`."""
        found = ((q.problem.id, self.settled.get((participant.key, q.problem.id))) for q in asked)
        return {problem: result for problem, result in found if result is not None}

    def asked(self, asked: Sequence[Question]) -> None:
        """See :class:`assay.benchmarks.harness.questions.Recording`."""
        self.questions += [(question.sample, question.eps) for question in asked]

    def keep(self, participant: Participant, new: Sequence[Case]) -> list[Case]:
        """See :class:`assay.benchmarks.harness.questions.Recording`: who stores it sees what it contradicts."""
        self.kept += [Said(participant.name, case.sample, case.eps, case.result) for case in new]
        return []


@dataclass(frozen=True, eq=False)
class Ground:
    """What all shares have in common."""

    source: Source
    identity: str
    data: Dataset
    participants: Sequence[Participant]
    norm: float
    tolerance: float
    share: float
    budget: Budget

    @cached_property
    def network(self) -> Network:
        """The network. Raises :class:`InputError` where another one is found under the same name."""
        return checked(to_network(self.source.load(), self.data.shape), self.identity)


@dataclass(frozen=True, eq=False)
class Found:
    """What came of a share: its samples without their cases, these, what is to be stored, and who was refused."""

    samples: list[Sample]
    cases: list[Said]
    questions: list[tuple[int, float]]
    kept: list[Said]
    refused: Mapping[str, str]
    recalled: int


def seek(ground: Ground, asked: tuple[Sequence[int], Known]) -> Found:
    """Search around some samples, in a process of its own."""
    chunk, known = asked
    records = Carried(known)
    terms = ground.norm, ground.tolerance, ground.share, ground.budget
    search = Search(ground.network, ground.data, ground.participants, *terms, records, SILENT)
    samples = search.judge(chunk)
    cases = [Said(case.name, case.sample, case.eps, case.result) for sample in samples for case in sample.cases]
    bare = [replace(sample, cases=[]) for sample in samples]
    return Found(bare, cases, records.questions, records.kept, search.refused, search.recalled)


def _alone(ended: Ended) -> list[Task]:
    """Each sample of a share that was lost."""
    chunk, known = ended.task.argument
    return [Task(([sample], known)) for sample in chunk] if len(chunk) > 1 else []


def shared_out(
    search: Search, records: Records, chosen: Sequence[int], batch: int, hiring: Hiring, source: Source
) -> Iterator[list[Sample]]:
    """What :meth:`Search.judge` says of all samples, in no order, with the work done by an executor.

    ``search`` asks nobody itself; what is found goes through its ``records``, and to its counts.
    """
    terms = search.norm, search.tolerance, search.share, search.budget
    ground = Ground(source, search.network.id, search.data, search.participants, *terms)
    everybody = {participant.name: participant for participant in search.participants}
    with hiring(Job(seek, ground, SAMPLES)) as executor:
        # The very batches that one process has: where a search begins may depend on them, by rounding.
        chunks = [list(chosen[start : start + batch]) for start in range(0, len(chosen), batch)]
        tasks = (Task((chunk, records.settled(search.participants, chunk))) for chunk in chunks)
        for ended in run_parted(executor, tasks, _alone):
            chunk, _ = ended.task.argument
            what = f"the search for the radii of samples {chunk[0]} to {chunk[-1]}"
            if ended.lost:
                search.lost.append(Lost.of(ended, what))
                found = Found(search.unsought(chunk, reason(ended)), [], [], [], {}, 0)
            else:
                found = ended.value(what)
            samples = {sample.index: sample for sample in found.samples}

            def case(said: Said, samples: Mapping[int, Sample] = samples) -> Case:
                return Case(
                    said.name, said.sample, said.eps, search.problem(samples[said.sample], said.eps), said.result
                )

            records.asked([Question(i, eps, search.problem(samples[i], eps)) for i, eps in found.questions])
            for said in found.cases:
                samples[said.sample].cases.append(case(said))
            for said in found.kept:
                for earlier in records.keep(everybody[said.name], [case(said)]):
                    samples[said.sample].cases.append(earlier)
            search.refused |= found.refused
            search.recalled += found.recalled
            for participant in search.participants:
                search.progress.running(participant.name)
                search.progress.advance(len(found.samples))
            yield found.samples
