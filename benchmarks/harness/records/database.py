"""The SQLite file of a store: looked at before anything is written, and written in short transactions.

Any number of processes may write to one file at once (write-ahead log): the lock to write is taken at once and held for
one transaction.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from assay.benchmarks.harness.records.origin import version
from assay.verify.core.errors import AssayError, InputError, ResourceError

APPLICATION_ID = 0x41535359  # "ASSY": marks a SQLite file as a store of ours
SCHEMA = 1
BUSY_SECONDS = 60.0
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)  # what reading a row that is not sound raises

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


class Database:
    """The file at ``path``, made if it is not there. Raises :class:`InputError` for a file that is no sound store.

    ``read_only``: nothing is made, and nothing is ever written, while others may write.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._read_only = read_only
        where = f"{path.absolute().as_uri()}?mode=ro" if read_only else path
        try:
            # Autocommit: transactions are opened by hand, so that none stays open between two batches.
            self.db = sqlite3.connect(where, timeout=BUSY_SECONDS, isolation_level=None, uri=read_only)
        except sqlite3.Error as error:
            raise InputError(f"cannot open the store {str(path)!r}: {error}") from None
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            self.db.close()
            raise self._explained(error) from None
        except InputError:
            self.db.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self.db.close()

    def execute(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        """One statement."""
        return self.db.execute(statement, values)

    def executemany(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """One statement for each of the rows."""
        self.db.executemany(statement, rows)

    def has(self, table: str) -> bool:
        """Whether there is such a table."""
        return self.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone() is not None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction whose failures are the user's errors."""
        try:
            with _Transaction(self.db):
                yield
        except sqlite3.DatabaseError as error:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise self._explained(error) from error

    def _open(self) -> None:
        """Look before writing: only an empty file becomes a store, only a sound store is touched."""
        if not self._read_only and self._is_empty():
            _patiently_use_wal(self.db)
            with _Transaction(self.db):
                if self._is_empty():  # another process may have been first
                    self._create()
        (application,) = self.db.execute("PRAGMA application_id").fetchone()
        if application != APPLICATION_ID:
            raise self._unsound("a SQLite file of another program")
        (schema,) = self.db.execute("PRAGMA user_version").fetchone()
        if schema != SCHEMA:
            raise self._unsound(f"its schema is version {schema}, this assay reads version {SCHEMA}")
        (health,) = self.db.execute("PRAGMA quick_check(1)").fetchone()
        if health != "ok":
            raise self._unsound(f"damaged: {health}")
        if not self._read_only:
            self.db.execute("PRAGMA synchronous = NORMAL")
        self.db.execute("SELECT 1 FROM results LIMIT 1").fetchone()

    def _is_empty(self) -> bool:
        (tables,) = self.db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (application,) = self.db.execute("PRAGMA application_id").fetchone()
        return bool(tables == 0 and application == 0)

    def _create(self) -> None:
        for statement in TABLES.split(";"):
            self.db.execute(statement)
        self.db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self.db.execute(f"PRAGMA user_version = {SCHEMA}")
        facts = {"schema": str(SCHEMA), "created": now(), "version": version()}
        self.db.executemany("INSERT INTO meta VALUES (?, ?)", facts.items())

    def _explained(self, error: sqlite3.DatabaseError) -> AssayError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the lowest byte of codes that tell more
        if code == sqlite3.SQLITE_FULL or "disk is full" in str(error):
            return ResourceError(f"no space is left on the disk of {str(self.path)!r}; what was finished is in it")
        if code == sqlite3.SQLITE_IOERR:  # its shared memory that found no space, for one
            return ResourceError(f"cannot use the store {str(self.path)!r}: {error} (is there space on its disk?)")
        if isinstance(error, sqlite3.OperationalError):
            return InputError(f"cannot use the store {str(self.path)!r}: {error}")
        return self._unsound(str(error))

    def _unsound(self, why: str) -> InputError:
        return InputError(
            f"{str(self.path)!r} is not a store of results ({why}); it is left as it is: move it away, or name another"
        )


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


def now() -> str:
    """The time as stores write it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
