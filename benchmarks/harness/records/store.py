"""Records of a run in one SQLite file: a row per problem and method, committed as it is decided.

Any number of processes may write to one file at once (write-ahead log, one short transaction per batch). A row is
found again by its key: the problem's content, the method with all its options, the seed, the device, and the code
that decided it. A decided row is never replaced by an undecided or a contrary one, an undecided one never by one
that had less time. Rows that cannot be read are moved to the table ``quarantine``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from assay.benchmarks.harness.records.database import UNREADABLE, Database, now
from assay.benchmarks.harness.records.noted import Noted
from assay.benchmarks.harness.records.origin import source_hash, version
from assay.verify.core.result import Reason, Result, Verdict

REST = "method = ? AND seed = ? AND device = ? AND version = ? AND source = ?"
KEY = f"problem = ? AND {REST}"
AT_ONCE = 500  # problems that are looked up by one statement, and rows that are held at once


@dataclass(frozen=True)
class Key:
    """What makes two records records of the same thing: problem id, repr of the method, seed, device, and the code."""

    problem: str
    method: str
    seed: int = 0
    device: str = "cpu"
    version: str = field(default_factory=version)
    source: str = field(default_factory=source_hash)

    @property
    def values(self) -> tuple[str, str, int, str, str, str]:
        """The columns of the primary key."""
        return self.problem, self.method, self.seed, self.device, self.version, self.source


@dataclass(frozen=True)
class Record:
    """A result with its key and what a query wants to know of the problem; ``budget``: seconds it was given."""

    key: Key
    result: Result
    role: str = "method"
    sample: int | None = None
    label: int | None = None
    eps: float | None = None
    norm: float | None = None
    budget: float | None = None


@dataclass(frozen=True)
class Total:
    """So many rows of a run with the same verdict, and their seconds; ``reason``: of open ones."""

    run: int | None
    role: str
    method: str
    norm: float | None
    eps: float | None
    verdict: str
    reason: str | None
    count: int
    seconds: float


def settled(record: Record, seconds: float) -> bool:
    """Whether asking again with a budget of ``seconds`` could not change the answer of ``record``.

    A verdict is final, and so is what is no question of time: an incomplete method that had time to spare, numerical
    doubt, an empty question. What time may have cut short (a timeout, a solver's failure, an incomplete answer that
    took half of its time or more) is worth another try with more time only. A lack of memory and of support, and what
    was lost with its process or failed, belong to the moment and the machine: they are always tried again.
    """
    result, given = record.result, record.budget or 0.0
    if result.reason in (Reason.MEMORY, Reason.UNSUPPORTED) or "exit_code" in result.stats:
        return False
    timeless = result.reason is Reason.INCOMPLETE and result.seconds < given / 2
    final = result.verdict is not Verdict.UNKNOWN or result.reason in (Reason.NUMERICAL, Reason.VACUOUS)
    return final or timeless or seconds <= given


class Store:
    """The records in the file at ``path``, made if it is not there, and what is ``noted`` beside them. Raises
    :class:`InputError` for a file that is no sound store.

    ``read_only``: nothing is made, and nothing is ever written, while others may write.
    """

    def __init__(self, path: Path | str, *, read_only: bool = False) -> None:
        self.path = Path(path)
        self.run: int | None = None
        self.file = Database(self.path, read_only=read_only)
        self.noted = Noted(self.file)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; every record put is in it already."""
        self.file.close()

    def begin(self, command: str, model: str, data: str, started: str | None = None) -> None:
        """Note a run, ``started`` now if nothing else is said: the records that follow belong to it."""
        with self.file.transaction():
            run = (started or now(), command, model, data)
            cursor = self.file.execute("INSERT INTO runs (started, command, model, data) VALUES (?, ?, ?, ?)", run)
            self.run = cursor.lastrowid

    def put(self, records: Sequence[Record]) -> list[Record]:
        """Commit ``records`` in one transaction; returns the stored ones that they contradict, which are kept.

        Raises :class:`ResourceError` on a full disk: what was put before stays.
        """
        contradicted, written = [], dict[Key, Record]()
        with self.file.transaction():
            there = self.find([record.key for record in records])
            for record in records:
                old = written.get(record.key) or there.get(record.key)
                after = record.result.verdict
                if old is None or old.result.verdict is after is not Verdict.UNKNOWN:
                    written[record.key] = record
                elif old.result.verdict is Verdict.UNKNOWN:
                    if after is not Verdict.UNKNOWN or (record.budget or 0) >= (old.budget or 0):
                        written[record.key] = record
                elif after is not Verdict.UNKNOWN:
                    contradicted.append(old)
            decided = now()
            self.file.executemany(INSERT, (self._row(record, decided) for record in written.values()))
        return contradicted

    def get(self, key: Key) -> Record | None:
        """The record of ``key``; None if there is none, or none that can be read."""
        return self.find([key]).get(key)

    def find(self, keys: Sequence[Key]) -> dict[Key, Record]:
        """The records of these keys, but for those that are not there or cannot be read."""
        found: dict[Key, Record] = {}
        by: dict[tuple[object, ...], list[str]] = {}  # keys of a run differ in their problems and in little else
        for key in keys:
            by.setdefault(key.values[1:], []).append(key.problem)
        for rest, problems in by.items():
            for start in range(0, len(problems), AT_ONCE):
                some = problems[start : start + AT_ONCE]
                marks = ",".join("?" * len(some))
                for row in self.file.execute(f"{SELECT} WHERE problem IN ({marks}) AND {REST}", (*some, *rest)):
                    with suppress(*UNREADABLE):
                        record = _read(row)
                        found[record.key] = record
        return found

    def seconds(self, method: str) -> dict[str, float]:
        """By problem, the most seconds that a method has taken, whatever the seed, the device and the code."""
        most = "SELECT problem, max(seconds) FROM results WHERE method = ? GROUP BY problem"
        return dict(self.file.execute(most, (method,)))

    def decided(self, run: int) -> dict[str, int]:
        """By verdict, how many rows a run wrote."""
        return dict(self.file.execute("SELECT verdict, count(*) FROM results WHERE run = ? GROUP BY verdict", (run,)))

    def read(self) -> tuple[list[Record], list[str]]:
        """All records in the order of problem and method, and one line for each row that cannot be trusted."""
        records, faults = [], []
        for row in self.file.execute(SELECT):
            try:
                records.append(_read(row))
            except UNREADABLE as error:
                faults.append(_fault(row, error))
        return records, faults

    def flat(self) -> Iterator[list[tuple[Any, ...]]]:
        """What stands in the ``COLUMNS`` of all rows, in the order of their keys, a few rows at a time: none is held
        longer, however many there are. The results themselves are not read."""
        rows = self.file.execute(f"SELECT {', '.join(COLUMNS)} FROM results")
        while some := rows.fetchmany(AT_ONCE):
            yield some

    def of_run(self, run: int | None) -> Iterator[list[Record]]:
        """The records that a run wrote, or of no run, a few at a time, but for rows that cannot be trusted."""
        rows = self.file.execute(f"{SELECT} WHERE run IS ?", (run,))
        while some := rows.fetchmany(AT_ONCE):
            records = []
            for row in some:
                with suppress(*UNREADABLE):
                    records.append(_read(row))
            yield records

    @property
    def size(self) -> int:
        """How many rows there are."""
        (count,) = self.file.execute("SELECT count(*) FROM results").fetchone()
        return int(count)

    def totals(self) -> list[Total]:
        """Counts of verdicts and seconds by method, norm and eps, without reading the results themselves."""
        by = "run, role, method, norm, eps, verdict, reason"
        told = self.file.execute(f"SELECT {by}, count(*), total(seconds) FROM results GROUP BY {by} ORDER BY {by}")
        return [Total(*row) for row in told]

    def of_samples(self, samples: Sequence[int]) -> Iterator[Record]:
        """The records of some samples, but for rows that cannot be trusted."""
        wanted = ",".join(str(int(sample)) for sample in samples)
        for row in self.file.execute(f"{SELECT} WHERE sample IN ({wanted})"):
            with suppress(*UNREADABLE):
                yield _read(row)

    def quarantine(self) -> list[str]:
        """Move the rows that cannot be read out of the way, into a table of their own; returns one line for each."""
        bad: list[tuple[tuple[object, ...], str]] = []
        for row in self.file.execute(SELECT):
            try:
                _read(row)
            except UNREADABLE as error:
                bad.append((row[:6], _fault(row, error)))
        if bad:
            with self.file.transaction():
                self.file.execute(
                    f"CREATE TABLE IF NOT EXISTS quarantine AS SELECT {QUARANTINED} FROM results WHERE 0", ("", "")
                )
                for key, fault in bad:
                    move = f"INSERT INTO quarantine SELECT {QUARANTINED} FROM results WHERE {KEY}"
                    self.file.execute(move, (fault, now(), *key))
                    self.file.execute(f"DELETE FROM results WHERE {KEY}", key)
        return [fault for _, fault in bad]

    def strangers(self) -> int:
        """How many rows other code than today's has decided; they are kept, and never found by a key of today's."""
        other = "SELECT count(*) FROM results WHERE version != ? OR source != ?"
        (count,) = self.file.execute(other, (version(), source_hash())).fetchone()
        return int(count)

    def meta(self) -> dict[str, str]:
        """Schema version, date and version of assay of the store's making."""
        return dict(self.file.execute("SELECT key, value FROM meta ORDER BY key"))

    def runs(self) -> list[dict[str, str]]:
        """The runs that wrote here, the first of them number 1: started, command, model, data."""
        columns = ("started", "command", "model", "data")
        rows = self.file.execute(f"SELECT {', '.join(columns)} FROM runs ORDER BY id")
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def _row(self, record: Record, decided: str) -> tuple[object, ...]:
        result = record.result
        return (
            *record.key.values,
            self.run,
            *(record.role, record.sample, record.label, record.eps, record.norm, record.budget),
            *(result.verdict.value, result.reason and result.reason.value, result.guarantee.value),
            *(result.margin, result.seconds, decided, result.to_json()),
        )


COLUMNS = (
    *("problem", "method", "seed", "device", "version", "source", "run", "role", "sample", "label", "eps", "norm"),
    *("budget", "verdict", "reason", "guarantee", "margin", "seconds", "decided"),
)
INSERT = f"INSERT OR REPLACE INTO results VALUES ({', '.join('?' * (len(COLUMNS) + 1))})"  # and the result
SELECT = (
    "SELECT problem, method, seed, device, version, source, result, verdict, "
    "role, sample, label, eps, norm, budget FROM results"
)


QUARANTINED = "*, ? AS fault, ? AS noticed"


def _fault(row: Sequence[object], error: Exception) -> str:
    return f"problem {row[0]}, {row[1]}: unreadable record ({type(error).__name__}: {error})"


def _read(row: tuple[str, str, int, str, str, str, str, str, str, int, int, float, float, float]) -> Record:
    """The record of a row. Raises ValueError, KeyError, TypeError or AttributeError for one that is not sound."""
    key, result = Key(*row[:6]), Result.from_json(row[6])
    if result.problem_id != key.problem or result.verdict.value != row[7]:
        raise ValueError("its columns and its result disagree")
    return Record(key, result, *row[8:])
