"""Records of a run in one SQLite file: a row per problem and method, committed as it is decided.

Any number of processes may write to one file at once (write-ahead log, one short transaction per batch). A row is
found again by its key: the problem's content, the method with all its options, the seed, the device, and the code
that decided it. A decided row is never replaced by an undecided or a contrary one, an undecided one never by one
that had less time. Rows that cannot be read are moved to the table ``quarantine``.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from assay.benchmarks.harness.origin import source_hash, version
from assay.verify.core.errors import AssayError, InputError, ResourceError
from assay.verify.core.result import Reason, Result, Verdict

APPLICATION_ID = 0x41535359  # "ASSY": marks a SQLite file as a store of ours
SCHEMA = 1
BUSY_SECONDS = 60.0

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, started TEXT NOT NULL, command TEXT NOT NULL, model TEXT NOT NULL, data TEXT NOT NULL);
CREATE TABLE results (
    problem TEXT NOT NULL, method TEXT NOT NULL, seed INTEGER NOT NULL, device TEXT NOT NULL,
    version TEXT NOT NULL, source TEXT NOT NULL,
    run INTEGER REFERENCES runs (id), role TEXT NOT NULL, sample INTEGER, label INTEGER, eps REAL, norm REAL,
    budget REAL, verdict TEXT NOT NULL, reason TEXT, guarantee TEXT NOT NULL, margin REAL, seconds REAL NOT NULL,
    decided TEXT NOT NULL, result TEXT NOT NULL,
    PRIMARY KEY (problem, method, seed, device, version, source)) WITHOUT ROWID;
CREATE INDEX results_by_verdict ON results (verdict, eps);
"""
# Which problem, by content, each instance of a benchmark in a folder was when it was last asked. Made on first use.
ENROLLED = """
CREATE TABLE IF NOT EXISTS enrolled (
    folder TEXT NOT NULL, onnx TEXT NOT NULL, vnnlib TEXT NOT NULL, problem TEXT NOT NULL,
    PRIMARY KEY (folder, onnx, vnnlib)) WITHOUT ROWID
"""
# What a run was about as a document of some form, its samples, and which problem each of its questions was: what a
# report needs beside the results. Made on first use, so that older stores are read as they are.
DESCRIBED = """
CREATE TABLE IF NOT EXISTS described (
    run INTEGER PRIMARY KEY REFERENCES runs (id), form INTEGER NOT NULL, document TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS points (id TEXT PRIMARY KEY, shape TEXT NOT NULL, x BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS samples (
    run INTEGER NOT NULL, sample INTEGER NOT NULL, label INTEGER NOT NULL, point TEXT REFERENCES points (id),
    PRIMARY KEY (run, sample)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS asked (
    run INTEGER NOT NULL, sample INTEGER NOT NULL, eps REAL NOT NULL, problem TEXT NOT NULL,
    PRIMARY KEY (run, sample, eps)) WITHOUT ROWID
"""
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
    """The file at ``path``, made if it is not there. Raises :class:`InputError` for a file that is no sound store.

    ``read_only``: nothing is made, and nothing is ever written, while others may write.
    """

    def __init__(self, path: Path | str, *, read_only: bool = False) -> None:
        self.path = Path(path)
        self.run: int | None = None
        self._read_only = read_only
        where = f"{self.path.absolute().as_uri()}?mode=ro" if read_only else self.path
        try:
            # Autocommit: transactions are opened by hand, so that none stays open between two batches.
            self._db = sqlite3.connect(where, timeout=BUSY_SECONDS, isolation_level=None, uri=read_only)
        except sqlite3.Error as error:
            raise InputError(f"cannot open the store {str(self.path)!r}: {error}") from None
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise self._explained(error) from None
        except InputError:
            self._db.close()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; every record put is in it already."""
        self._db.close()

    def begin(self, command: str, model: str, data: str, started: str | None = None) -> None:
        """Note a run, ``started`` now if nothing else is said: the records that follow belong to it."""
        with self._transaction():
            run = (started or _now(), command, model, data)
            cursor = self._db.execute("INSERT INTO runs (started, command, model, data) VALUES (?, ?, ?, ?)", run)
            self.run = cursor.lastrowid

    def put(self, records: Sequence[Record]) -> list[Record]:
        """Commit ``records`` in one transaction; returns the stored ones that they contradict, which are kept.

        Raises :class:`ResourceError` on a full disk: what was put before stays.
        """
        contradicted, written = [], dict[Key, Record]()
        with self._transaction():
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
            now = _now()
            self._db.executemany(INSERT, (self._row(record, now) for record in written.values()))
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
                for row in self._db.execute(f"{SELECT} WHERE problem IN ({marks}) AND {REST}", (*some, *rest)):
                    with suppress(*UNREADABLE):
                        record = _read(row)
                        found[record.key] = record
        return found

    def enrol(self, problems: Mapping[tuple[str, str, str], str]) -> None:
        """Note which problem each instance (folder, network, property) is."""
        with self._transaction():
            self._db.execute(ENROLLED)
            named = [(*name, problem) for name, problem in problems.items()]
            self._db.executemany("INSERT OR REPLACE INTO enrolled VALUES (?, ?, ?, ?)", named)

    def enrolled(self) -> dict[tuple[str, str, str], str]:
        """What was noted by :meth:`enrol`, of this run and of earlier ones."""
        if not self._has("enrolled"):
            return {}
        noted = self._db.execute("SELECT folder, onnx, vnnlib, problem FROM enrolled")
        return {(folder, onnx, vnnlib): problem for folder, onnx, vnnlib, problem in noted}

    def describe(self, form: int, document: str) -> None:
        """Note what this run is about, in place of what was noted before."""
        with self._transaction():
            for statement in DESCRIBED.split(";"):
                self._db.execute(statement)
            self._db.execute("INSERT OR REPLACE INTO described VALUES (?, ?, ?)", (self.run, form, document))

    def note_samples(self, x: Tensor, labels: Sequence[int]) -> None:
        """Keep the samples of this run, once :meth:`describe` was called: x (n x shape) float32; equal ones once."""
        shape = ",".join(map(str, x.shape[1:]))
        packed = [zlib.compress(one.contiguous().numpy().tobytes(), 1) for one in x]
        names = [hashlib.sha256(shape.encode() + part).hexdigest()[:32] for part in packed]
        with self._transaction():
            points = ((name, shape, part) for name, part in zip(names, packed, strict=True))
            self._db.executemany("INSERT OR IGNORE INTO points VALUES (?, ?, ?)", points)
            rows = ((self.run, i, label, name) for i, (label, name) in enumerate(zip(labels, names, strict=True)))
            self._db.executemany("INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?)", rows)

    def note_asked(self, asked: Sequence[tuple[int, float, str]]) -> None:
        """Note which problem (sample, eps, id) this run asks about, once :meth:`describe` was called."""
        with self._transaction():
            rows = [(self.run, *each) for each in asked]
            self._db.executemany("INSERT OR REPLACE INTO asked VALUES (?, ?, ?, ?)", rows)

    def described(self) -> dict[int, tuple[int, str]]:
        """By the number of the run, what :meth:`describe` noted; nothing in a store of before there was any."""
        if not self._has("described"):
            return {}
        noted = self._db.execute("SELECT run, form, document FROM described ORDER BY run")
        return {run: (form, document) for run, form, document in noted}

    def samples(self, run: int) -> dict[int, tuple[int, Tensor]]:
        """Label and float32 x of the samples of a run, as far as they are kept; what cannot be read is left out."""
        kept: dict[int, tuple[int, Tensor]] = {}
        if self._has("samples"):
            columns = "sample, label, shape, x FROM samples JOIN points ON point = points.id"
            for sample, label, shape, packed in self._db.execute(f"SELECT {columns} WHERE run = ?", (run,)):
                with suppress(zlib.error, RuntimeError, *UNREADABLE):
                    sizes = [int(size) for size in shape.split(",")]
                    flat = torch.frombuffer(bytearray(zlib.decompress(packed)), dtype=torch.float32)
                    kept[sample] = int(label), flat.reshape(sizes)
        return kept

    def asked(self, run: int) -> list[tuple[int, float, str]]:
        """What :meth:`note_asked` noted of a run, by sample and eps; what cannot be read is left out."""
        if not self._has("asked"):
            return []
        columns = "sample, eps, problem FROM asked WHERE run = ? ORDER BY sample, eps"
        noted = self._db.execute(f"SELECT {columns}", (run,))
        return [
            row for row in noted if isinstance(row[0], int) and isinstance(row[1], float) and isinstance(row[2], str)
        ]

    def counts(self, run: int, code: tuple[str, str]) -> list[tuple[str, int, float, str, float]]:
        """Method, sample, eps, verdict and seconds of what is known of the questions of a run, without reading the
        results themselves; ``code``: version and source hash of who decides."""
        if not self._has("asked"):
            return []
        columns = "method, asked.sample, asked.eps, verdict, seconds"
        joined = "asked JOIN results ON results.problem = asked.problem"
        mine = "asked.run = ? AND results.version = ? AND results.source = ?"
        return list(self._db.execute(f"SELECT {columns} FROM {joined} WHERE {mine}", (run, *code)))

    def decided(self, run: int) -> dict[str, int]:
        """By verdict, how many rows a run wrote."""
        return dict(self._db.execute("SELECT verdict, count(*) FROM results WHERE run = ? GROUP BY verdict", (run,)))

    def read(self) -> tuple[list[Record], list[str]]:
        """All records in the order of problem and method, and one line for each row that cannot be trusted."""
        records, faults = [], []
        for row in self._db.execute(SELECT):
            try:
                records.append(_read(row))
            except UNREADABLE as error:
                faults.append(_fault(row, error))
        return records, faults

    def flat(self) -> Iterator[list[tuple[Any, ...]]]:
        """What stands in the ``COLUMNS`` of all rows, in the order of their keys, a few rows at a time: none is held
        longer, however many there are. The results themselves are not read."""
        rows = self._db.execute(f"SELECT {', '.join(COLUMNS)} FROM results")
        while some := rows.fetchmany(AT_ONCE):
            yield some

    def of_run(self, run: int | None) -> Iterator[list[Record]]:
        """The records that a run wrote, or of no run, a few at a time, but for rows that cannot be trusted."""
        rows = self._db.execute(f"{SELECT} WHERE run IS ?", (run,))
        while some := rows.fetchmany(AT_ONCE):
            records = []
            for row in some:
                with suppress(*UNREADABLE):
                    records.append(_read(row))
            yield records

    @property
    def size(self) -> int:
        """How many rows there are."""
        (count,) = self._db.execute("SELECT count(*) FROM results").fetchone()
        return int(count)

    def totals(self) -> list[Total]:
        """Counts of verdicts and seconds by method, norm and eps, without reading the results themselves."""
        by = "run, role, method, norm, eps, verdict, reason"
        told = self._db.execute(f"SELECT {by}, count(*), total(seconds) FROM results GROUP BY {by} ORDER BY {by}")
        return [Total(*row) for row in told]

    def of_samples(self, samples: Sequence[int]) -> Iterator[Record]:
        """The records of some samples, but for rows that cannot be trusted."""
        wanted = ",".join(str(int(sample)) for sample in samples)
        for row in self._db.execute(f"{SELECT} WHERE sample IN ({wanted})"):
            with suppress(*UNREADABLE):
                yield _read(row)

    def quarantine(self) -> list[str]:
        """Move the rows that cannot be read out of the way, into a table of their own; returns one line for each."""
        bad: list[tuple[tuple[object, ...], str]] = []
        for row in self._db.execute(SELECT):
            try:
                _read(row)
            except UNREADABLE as error:
                bad.append((row[:6], _fault(row, error)))
        if bad:
            with self._transaction():
                self._db.execute(
                    f"CREATE TABLE IF NOT EXISTS quarantine AS SELECT {QUARANTINED} FROM results WHERE 0", ("", "")
                )
                for key, fault in bad:
                    move = f"INSERT INTO quarantine SELECT {QUARANTINED} FROM results WHERE {KEY}"
                    self._db.execute(move, (fault, _now(), *key))
                    self._db.execute(f"DELETE FROM results WHERE {KEY}", key)
        return [fault for _, fault in bad]

    def strangers(self) -> int:
        """How many rows other code than today's has decided; they are kept, and never found by a key of today's."""
        other = "SELECT count(*) FROM results WHERE version != ? OR source != ?"
        (count,) = self._db.execute(other, (version(), source_hash())).fetchone()
        return int(count)

    def meta(self) -> dict[str, str]:
        """Schema version, date and version of assay of the store's making."""
        return dict(self._db.execute("SELECT key, value FROM meta ORDER BY key"))

    def runs(self) -> list[dict[str, str]]:
        """The runs that wrote here, the first of them number 1: started, command, model, data."""
        columns = ("started", "command", "model", "data")
        rows = self._db.execute(f"SELECT {', '.join(columns)} FROM runs ORDER BY id")
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def _has(self, table: str) -> bool:
        return self._db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone() is not None

    def _open(self) -> None:
        """Look before writing: only an empty file becomes a store, only a sound store is touched."""
        if not self._read_only and self._is_empty():
            _patiently_use_wal(self._db)
            with _Transaction(self._db):
                if self._is_empty():  # another process may have been first
                    self._create()
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        if application != APPLICATION_ID:
            raise self._unsound("a SQLite file of another program")
        (schema,) = self._db.execute("PRAGMA user_version").fetchone()
        if schema != SCHEMA:
            raise self._unsound(f"its schema is version {schema}, this assay reads version {SCHEMA}")
        (health,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if health != "ok":
            raise self._unsound(f"damaged: {health}")
        if not self._read_only:
            self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("SELECT 1 FROM results LIMIT 1").fetchone()

    def _is_empty(self) -> bool:
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        return bool(tables == 0 and application == 0)

    def _create(self) -> None:
        for statement in TABLES.split(";"):
            self._db.execute(statement)
        self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self._db.execute(f"PRAGMA user_version = {SCHEMA}")
        facts = {"schema": str(SCHEMA), "created": _now(), "version": version()}
        self._db.executemany("INSERT INTO meta VALUES (?, ?)", facts.items())

    def _row(self, record: Record, now: str) -> tuple[object, ...]:
        result = record.result
        return (
            *record.key.values,
            self.run,
            *(record.role, record.sample, record.label, record.eps, record.norm, record.budget),
            *(result.verdict.value, result.reason and result.reason.value, result.guarantee.value),
            *(result.margin, result.seconds, now, result.to_json()),
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """A transaction whose failures are the user's errors."""
        try:
            with _Transaction(self._db):
                yield
        except sqlite3.DatabaseError as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise self._explained(error) from error

    def _explained(self, error: sqlite3.DatabaseError) -> AssayError:
        if "full" in str(error):
            return ResourceError(f"no space is left on the disk of {str(self.path)!r}; what was finished is in it")
        if isinstance(error, sqlite3.OperationalError):
            return InputError(f"cannot use the store {str(self.path)!r}: {error}")
        return self._unsound(str(error))

    def _unsound(self, why: str) -> InputError:
        return InputError(
            f"{str(self.path)!r} is not a store of results ({why}); it is left as it is: move it away, or name another"
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
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)


def _fault(row: Sequence[object], error: Exception) -> str:
    return f"problem {row[0]}, {row[1]}: unreadable record ({type(error).__name__}: {error})"


def _read(row: tuple[str, str, int, str, str, str, str, str, str, int, int, float, float, float]) -> Record:
    """The record of a row. Raises ValueError, KeyError, TypeError or AttributeError for one that is not sound."""
    key, result = Key(*row[:6]), Result.from_json(row[6])
    if result.problem_id != key.problem or result.verdict.value != row[7]:
        raise ValueError("its columns and its result disagree")
    return Record(key, result, *row[8:])


class _Transaction:
    """BEGIN IMMEDIATE ... COMMIT, or ROLLBACK on an exception: the lock to write is taken at once, never upgraded."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db

    def __enter__(self) -> None:
        self.db.execute("BEGIN IMMEDIATE")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.db.execute("COMMIT")
        elif self.db.in_transaction:  # SQLite may have rolled back by itself, on a full disk for one
            self.db.execute("ROLLBACK")


def _patiently_use_wal(db: sqlite3.Connection) -> None:
    """Switch to the write-ahead log; SQLite does not wait by itself while two processes do it at once."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
