"""Resuming: what is settled is never asked again, what time cut short is asked again under a larger budget only."""

import sqlite3
from collections import Counter
from dataclasses import dataclass
from math import inf
from typing import ClassVar

import pytest

from assay.benchmarks.harness.compare import compare
from assay.benchmarks.harness.records.store import Key, Record, Store, settled
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError, ResourceError
from assay.verify.core.result import Reason, Result, Verdict
from tests.benchmarks.harness_fakes import POINTS, Exact, Timid, dataset, identity

ASKED: Counter = Counter()


@dataclass(frozen=True)
class Counted(Exact):
    """Counts how often it is asked about each problem; may be killed after some."""

    kill_after: int = 10**9
    name: ClassVar[str] = "counted"

    def __repr__(self):
        return "Counted()"

    def verify(self, problem, budget):
        if sum(ASKED.values()) >= self.kill_after:
            raise KeyboardInterrupt
        ASKED[problem.id] += 1
        return super().verify(problem, budget)


@dataclass(frozen=True)
class CountedTimid(Timid):
    """Undecided for want of time, and counts, in batches."""

    name: ClassVar[str] = "counted-timid"

    def verify_many(self, problems, budget):
        ASKED.update(p.id for p in problems)
        return super().verify_many(problems, budget)


@pytest.fixture(autouse=True)
def _fresh():
    ASKED.clear()


def run(path, methods, seconds=inf, resume=True, data=None):
    with Store(path) as store:
        points = dataset(POINTS) if data is None else data
        return compare(
            identity(), points, [0.04, 0.08], methods, [], budget=Budget(seconds), batch=2, store=store, resume=resume
        )


def table(path):
    with Store(path) as store:
        return {(r.key, r.result.verdict, r.result.reason, r.result.margin) for r in store.read()[0]}


def rows(comparison):
    return [(r.name, r.eps, r.verified, r.falsified, r.unknown, r.reasons) for r in comparison.rows]


@pytest.mark.parametrize("after", range(7))
def test_an_interrupted_run_goes_on_where_it_was(tmp_path, after):
    whole = run(tmp_path / "whole", [Exact()])
    assert whole.resumed == 0
    try:
        run(tmp_path / "s", [Counted(kill_after=after)])
    except KeyboardInterrupt:
        assert after < 6
    assert sum(ASKED.values()) == min(after, 6)
    comparison = run(tmp_path / "s", [Counted()])
    assert set(ASKED.values()) == {1}
    assert len(ASKED) == 6
    assert comparison.resumed == min(after, 6)
    assert [r[1:] for r in rows(comparison)] == [r[1:] for r in rows(whole)]


def test_without_resume_everything_is_asked_again(tmp_path):
    run(tmp_path / "s", [Counted()])
    assert run(tmp_path / "s", [Counted()], resume=False).resumed == 0
    assert set(ASKED.values()) == {2}


def test_undecided_rows_are_asked_again_under_a_larger_budget_only(tmp_path):
    for seconds, times in ((2.0, 1), (2.0, 1), (1.0, 1), (3.0, 2), (2.5, 2), (inf, 3), (inf, 3)):
        comparison = run(tmp_path / "s", [CountedTimid()], seconds)
        assert set(ASKED.values()) == {times}
        assert comparison.rows[-1].reasons == {"timeout": 3}
    with Store(tmp_path / "s") as store:
        assert {r.budget for r in store.read()[0]} == {inf}


def test_other_data_and_other_radii_are_other_problems(tmp_path):
    run(tmp_path / "s", [Counted()])
    comparison = run(tmp_path / "s", [Counted()], data=dataset([*POINTS[:2], [0.9, 0.1]]))
    assert comparison.resumed == 4
    assert set(ASKED.values()) == {1}
    assert len(ASKED) == 8


def test_rows_of_other_code_are_kept_and_not_used(tmp_path):
    run(tmp_path / "s", [Counted()])
    db = sqlite3.connect(tmp_path / "s")
    db.execute("UPDATE results SET source = 'older'")
    db.commit()
    db.close()
    with Store(tmp_path / "s") as store:
        assert store.strangers() == 6
    assert run(tmp_path / "s", [Counted()]).resumed == 0
    assert len(table(tmp_path / "s")) == 12


def test_alarms_are_found_among_resumed_rows(tmp_path):
    from tests.benchmarks.harness_fakes import Claims, Liar, needle

    data = dataset([[0.6, 0.4]])
    with Store(tmp_path / "s") as store:
        compare(needle(), data, [0.05], [Liar()], [], store=store)
        comparison = compare(needle(), data, [0.05], [Liar()], [Claims()], store=store, resume=True)
    assert (comparison.resumed, len(comparison.alarms)) == (1, 1)


def record(verdict=Verdict.UNKNOWN, reason=Reason.TIMEOUT, seconds=1.0, budget=10.0, problem="p"):
    reason = reason if verdict is Verdict.UNKNOWN else None
    return Record(Key(problem, "M()"), Result(problem, "M()", verdict, reason, seconds=seconds), budget=budget)


@pytest.mark.parametrize(
    ("stored", "seconds", "final"),
    [
        (record(Verdict.VERIFIED), inf, True),
        (record(), 10, True),
        (record(), 9, True),
        (record(), 11, False),
        (record(budget=None), 1, False),
        (record(reason=Reason.SOLVER), 11, False),
        (record(reason=Reason.SOLVER), 10, True),
        (record(reason=Reason.INCOMPLETE), inf, True),
        (record(reason=Reason.INCOMPLETE, seconds=6), inf, False),
        (record(reason=Reason.INCOMPLETE, seconds=6), 10, True),
        (record(reason=Reason.INCOMPLETE, seconds=6, budget=inf), inf, True),
        (record(reason=Reason.NUMERICAL, seconds=6), inf, True),
        (record(reason=Reason.VACUOUS, seconds=6), inf, True),
        (record(reason=Reason.MEMORY), 1, False),
        (record(reason=Reason.UNSUPPORTED), 1, False),
    ],
)
def test_what_is_settled(stored, seconds, final):
    assert settled(stored, seconds) is final


def test_an_undecided_row_is_not_replaced_by_one_that_had_less_time(tmp_path):
    with Store(tmp_path / "s") as store:
        for budget, kept in ((5.0, 5.0), (2.0, 5.0), (7.0, 7.0)):
            store.put([record(budget=budget)])
            assert store.get(record().key).budget == kept


def damage(path, statement):
    db = sqlite3.connect(path)
    db.execute(statement)
    db.commit()
    db.close()


@pytest.mark.parametrize("what", ["result = substr(result, 1, 40)", "verdict = 'verified'", "result = '{}'"])
def test_unreadable_rows_go_to_quarantine_and_are_recomputed(tmp_path, what):
    path = tmp_path / "s"
    run(path, [Counted()])
    sound = table(path)
    damage(path, f"UPDATE results SET {what} WHERE eps = 0.08 AND verdict = 'falsified'")
    with Store(path) as store:
        (fault,) = store.quarantine()
        assert "unreadable record" in fault
        assert store.quarantine() == []
        assert len(store.read()[0]) == 5
    assert run(path, [Counted()]).resumed == 5
    assert sorted(ASKED.values()) == [1] * 5 + [2]
    assert table(path) == sound
    db = sqlite3.connect(path)
    ((kept, noticed),) = db.execute("SELECT fault, noticed FROM quarantine").fetchall()
    db.close()
    assert kept == fault
    assert noticed.startswith("20")


class Full:
    """A connection on a full disk: reads work, rows cannot be written."""

    def __init__(self, db):
        self.db = db

    def __getattr__(self, name):
        return getattr(self.db, name)

    def executemany(self, statement, rows):
        if statement.startswith("INSERT OR REPLACE INTO results"):
            raise sqlite3.OperationalError("database or disk is full")
        return self.db.executemany(statement, rows)


def test_a_full_disk_is_a_lack_of_resources_and_keeps_what_is_there(tmp_path):
    with Store(tmp_path / "s") as store:
        store.put([record(Verdict.VERIFIED, problem="a")])
        store.file.db = Full(store.file.db)
        with pytest.raises(ResourceError, match="no space is left on the disk of"):
            store.put([record(Verdict.VERIFIED, problem="b")])
        store.file.db = store.file.db.db
        assert [r.key.problem for r in store.read()[0]] == ["a"]
        store.put([record(Verdict.VERIFIED, problem="b")])  # once there is space again
    with Store(tmp_path / "s") as store:
        assert len(store.read()[0]) == 2


def test_a_file_that_sqlite_really_cannot_grow(tmp_path):
    with Store(tmp_path / "s") as store:
        store.put([record(Verdict.VERIFIED, problem="a")])
        (pages,) = store.file.db.execute("PRAGMA page_count").fetchone()
        store.file.db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(ResourceError, match="no space"):
            store.put([record(Verdict.VERIFIED, problem=f"{i:>5000}") for i in range(20)])
    with Store(tmp_path / "s") as store:
        assert [r.key.problem for r in store.read()[0]] == ["a"]


def test_a_half_written_store_is_refused_and_kept(tmp_path):
    path = tmp_path / "s"
    with Store(path) as store:
        store.put([record(Verdict.VERIFIED, problem=f"{i:>3000}") for i in range(30)])
    whole = path.read_bytes()
    for length in (50, 4096, len(whole) // 2, len(whole) - 4096):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="left as it is"):
            Store(path)
        assert path.read_bytes() == whole[:length]
