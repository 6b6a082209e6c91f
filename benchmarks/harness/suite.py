"""A run over instances: each in a process under limits, each row in the store as it is decided."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from assay.benchmarks.harness import lost
from assay.benchmarks.harness.answer import Reply, Request, Word, answer, exit_code, reason, word
from assay.benchmarks.harness.instances import Instance, Name, hasher
from assay.benchmarks.harness.preloaded import INSTANCES
from assay.benchmarks.harness.progress import SILENT, Progress
from assay.benchmarks.harness.records.store import Key, Record, Store, settled
from assay.verify.core.errors import AssayError, InputError, InternalError, ResourceError
from assay.verify.core.result import Reason, Result, Verdict
from assay.verify.registry import get_verifier
from assay.verify.support import executors
from assay.verify.support.executors import Ended, Hiring, Job, Task
from assay.verify.support.executors.processes import side_by_side
from assay.verify.support.plain import plain

DECIDED = (Word.SAT, Word.UNSAT)
# The worst comes first: bad data makes everything else doubtful, then comes doubt about what is ours.
WORST_FIRST = (InputError.exit_code, InternalError.exit_code, 50, ResourceError.exit_code)


@dataclass(frozen=True)
class Row:
    """What was said of an instance, in how many seconds of wall clock, and what is expected, if anything is."""

    instance: Instance
    word: Word
    exit_code: int
    seconds: float
    reason: str = ""
    expected: str | None = None

    @property
    def contradicts(self) -> bool:
        """Whether both verdicts are decided, and differ."""
        return self.word in DECIDED and self.expected in DECIDED and self.word != self.expected

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "benchmark": self.instance.benchmark,
            "onnx": self.instance.onnx,
            "vnnlib": self.instance.vnnlib,
            "verdict": self.word.value,
            "seconds": round(self.seconds, 3),
            "expected": self.expected,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Outcome:
    """One row per instance, in their order; ``contradictions``: one line each; ``resumed``: rows from the store."""

    rows: tuple[Row, ...]
    contradictions: tuple[str, ...]
    resumed: int
    seconds: float

    @property
    def exit_code(self) -> int:
        """The worst of what went wrong: bad data, then a contradiction or a fault of ours, then the rest; else 0."""
        codes = {row.exit_code for row in self.rows}
        if self.contradictions:
            codes.add(InternalError.exit_code)
        return next((code for code in WORST_FIRST if code in codes), 0)


@dataclass(frozen=True)
class Limits:
    """How much may run at once, the bytes that one process may hold, and the seed of whatever is random; ``check``:
    verdicts by their certificates."""

    workers: int = 1
    memory: float = inf
    seed: int = 0
    check: bool = True


def run(
    instances: Sequence[Instance],
    method: str,
    store: Store,
    limits: Limits = Limits(),
    *,
    resume: bool = False,
    expected: Mapping[Name, str] | None = None,
    progress: Progress = SILENT,
    hiring: Hiring | None = None,
) -> Outcome:
    """Ask ``method``, written as the command takes it, about every instance; ``expected``: verdicts by name;
    ``hiring``: where the work runs, if not in processes of this machine. What took long in an earlier run in the store,
    of whatever code, begins first, so that all processes end together.

    With ``resume`` the rows that are settled in the store are taken from there. Raises :class:`InputError` for a
    method that does not exist, and where the files of a stored row have changed since.
    """
    began = time.monotonic()
    ledger = Ledger(store, repr(get_verifier(method)), limits.seed, expected or {})
    progress.begin(len(instances))
    ledger.open(instances, resume)
    progress.recall(len(ledger.rows))

    def open_tasks() -> Iterator[Task]:
        for instance in ledger.longest_first(instances):
            if resume and instance not in ledger.rows and ledger.recall(instance):
                progress.recall(1)
            if instance not in ledger.rows:
                progress.running(f"{instance.benchmark} {instance.vnnlib}")
                how = (instance.seconds, limits.seed, limits.memory, limits.check)
                request = Request(instance.net, instance.prop, method, *how)
                yield Task(request, instance.seconds, instance)

    with (hiring or side_by_side(limits.workers, limits.memory))(Job(answer, preload=INSTANCES)) as executor:
        for ended in executors.run(executor, open_tasks()):
            ledger.take(ended)
            progress.so_far(ledger.counts)
            progress.advance(1)
    rows = tuple(ledger.rows[instance] for instance in instances)
    return Outcome(rows, tuple(ledger.contradictions), ledger.recalled, time.monotonic() - began)


@dataclass
class Ledger:
    """The rows so far, and the store that they come from and go to. ``key``: repr of the method."""

    store: Store
    key: str
    seed: int
    expected: Mapping[Name, str]
    problems: dict[Instance, str] = field(default_factory=dict)
    rows: dict[Instance, Row] = field(default_factory=dict)
    contradictions: list[str] = field(default_factory=list)
    recalled: int = 0

    def open(self, instances: Sequence[Instance], resume: bool) -> None:
        """Hash the files: a row for each instance whose files cannot be read, an error where resuming meets others."""
        content = hasher()
        earlier = self.store.noted.enrolled() if resume else {}
        for instance in instances:
            try:
                self.problems[instance] = content(instance)
            except AssayError as error:
                self.rows[instance] = self._row(instance, word(error.exit_code), error.exit_code, 0.0, plain(error))
                continue
            if earlier.get(instance.place, self.problems[instance]) != self.problems[instance]:
                raise InputError(
                    f"{' '.join(instance.name)}: network or property changed since it was stored in "
                    f"{str(self.store.path)!r}; restore it, name another store, or run without --resume"
                )
        self.store.noted.enrol({instance.place: problem for instance, problem in self.problems.items()})

    def longest_first(self, instances: Sequence[Instance]) -> list[Instance]:
        """Each instance once, by what it took before; what is new in its order, at the end."""
        took = self.store.seconds(self.key)
        return sorted(dict.fromkeys(instances), key=lambda one: -took.get(self.problems.get(one, ""), 0.0))

    @property
    def counts(self) -> str:
        """How many instances have which answer."""
        said = Counter(row.word.value for row in self.rows.values())
        return ", ".join(f"{count} {answer}" for answer, count in said.most_common())

    def recall(self, instance: Instance) -> bool:
        """Take the row from the store, if asking again could not change it."""
        record = self.store.get(self._key(instance))
        if record is None or not settled(record, instance.seconds):
            return False
        self._enter(instance, record.result)
        self.recalled += 1
        return True

    def take(self, ended: Ended) -> None:
        """Store what became of a task, and make its row."""
        instance, key = ended.task.tag, self._key(ended.task.tag)
        result = replace(_result(ended, key), problem_id=key.problem, seconds=ended.seconds)
        for old in self.store.put([Record(key, result, budget=instance.seconds)]):
            now, then = (word(exit_code(each)) for each in (result, old.result))
            self.contradictions.append(f"{' '.join(instance.name)}: {now}, but {then} in {self.store.path}")
        self._enter(instance, result)

    def _enter(self, instance: Instance, result: Result) -> None:
        code = exit_code(result)
        self.rows[instance] = self._row(instance, word(code), code, result.seconds, plain(reason(result)))

    def _row(self, instance: Instance, said: Word, code: int, seconds: float, why: str) -> Row:
        row = Row(instance, said, code, seconds, why, self.expected.get(instance.name))
        if row.contradicts:
            self.contradictions.append(f"{' '.join(instance.name)}: {row.word}, but {row.expected} is expected")
        return row

    def _key(self, instance: Instance) -> Key:
        return Key(self.problems[instance], self.key, self.seed)


def _result(ended: Ended, key: Key) -> Result:
    """The result that came back, or one that says why there is none."""
    reply = ended.reply
    if isinstance(reply, Reply) and not reply.error:
        return Result.from_json(reply.result)
    if isinstance(reply, Reply):
        why, code = reply.error, reply.exit_code
    elif ended.lost:
        return lost.result(ended, key.problem, key.method)
    else:
        failure = ended.failure()
        why, code = str(failure), failure.exit_code
    what = {40: Reason.UNSUPPORTED, 50: Reason.UNSUPPORTED, 60: Reason.MEMORY}.get(code, Reason.SOLVER)
    return Result(key.problem, key.method, Verdict.UNKNOWN, what, stats={"exit_code": code, "explanation": why})
