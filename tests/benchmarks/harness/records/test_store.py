"""The store: what goes in comes out, from many processes at once, and what is damaged is said to be."""

import math
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from assay.benchmarks.harness.records import origin
from assay.benchmarks.harness.records.origin import source_hash, version
from assay.benchmarks.harness.records.store import Key, Record, Store
from assay.verify.core.errors import InputError, ResourceError
from assay.verify.core.result import Guarantee, Reason, Result, Verdict

POINT = torch.tensor([0.1, 0.7])
DECIDED = (Verdict.VERIFIED, Verdict.FALSIFIED)


def record(problem="p", method="m()", verdict=Verdict.VERIFIED, **key):
    reason = Reason.INCOMPLETE if verdict is Verdict.UNKNOWN else None
    point = POINT if verdict is Verdict.FALSIFIED else None
    result = Result(problem, method, verdict, reason, counterexample=point, margin=0.1)
    return Record(Key(problem, method, **key), result)


def test_a_record_comes_back_bit_for_bit(tmp_path):
    result = Result(
        "p",
        "m()",
        Verdict.FALSIFIED,
        guarantee=Guarantee.EMPIRICAL,
        margin=-0.1,
        counterexample=POINT,
        certificate={"alpha": torch.tensor([1 / 3], dtype=torch.float64)},
        seconds=0.25,
        stats={"nodes": 3, "bound": -math.inf},
    )
    written = Record(Key("p", "m()", 7, "cuda"), result, "attack", 3, 1, 0.1, math.inf, math.inf)
    with Store(tmp_path / "s.sqlite") as store:
        assert store.put([written]) == []
    with Store(tmp_path / "s.sqlite") as store:
        (read,), faults = store.read()
        assert store.get(written.key).result.to_json() == result.to_json()
    assert faults == []
    assert replace(read, result=result) == written
    assert read.result.to_json() == result.to_json()
    assert torch.equal(read.result.counterexample, POINT)


def test_columns_can_be_queried(tmp_path):
    with Store(tmp_path / "s") as store:
        store.begin("assay compare", "zoo:net", "digits")
        store.put([replace(record(verdict=Verdict.UNKNOWN), eps=0.05, sample=4)])
    with sqlite3.connect(tmp_path / "s") as db:
        rows = db.execute("SELECT verdict, reason, eps, sample, margin, run, version FROM results").fetchall()
    db.close()
    assert rows == [("unknown", "incomplete", 0.05, 4, 0.1, 1, version())]


@pytest.mark.parametrize(
    "other", [{"problem": "q"}, {"method": "m(1)"}, {"seed": 1}, {"device": "cuda"}, {"version": "9"}, {"source": "s"}]
)
def test_every_part_of_the_key_tells_records_apart(tmp_path, other):
    with Store(tmp_path / "s") as store:
        store.put([record(), record(**other), record()])
        assert len(store.read()[0]) == 2


def test_decided_replaces_undecided_and_never_the_reverse(tmp_path):
    unknown, verified = record(verdict=Verdict.UNKNOWN), record()
    with Store(tmp_path / "s") as store:
        for new, expected in ((unknown, "unknown"), (verified, "verified"), (unknown, "verified")):
            assert store.put([new]) == []
            assert [r.result.verdict for r in store.read()[0]] == [expected]


def test_a_contrary_verdict_is_handed_back_and_the_old_one_kept(tmp_path):
    with Store(tmp_path / "s") as store:
        store.put([record()])
        (old,) = store.put([record(verdict=Verdict.FALSIFIED)])
        assert old.result.verdict is Verdict.VERIFIED
        assert [r.result.verdict for r in store.read()[0]] == [Verdict.VERIFIED]


WRITER = """
import os, sys
sys.path.insert(0, sys.argv[3])
from test_store import record
from assay.benchmarks.harness.records.store import Store
store = Store(sys.argv[1])
store.begin("c", "m", "d")
for i in range(60):
    store.put([record(problem=f"{sys.argv[2]}-{i}"), record(problem=f"both-{i}")])
os._exit(9)  # as if killed: nothing is closed
"""


def test_two_killed_processes_lose_nothing(tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path / "s")]
    writers = [subprocess.Popen([*command, name, str(Path(__file__).parent)]) for name in ("a", "b")]
    assert [writer.wait(60) for writer in writers] == [9, 9]
    with Store(tmp_path / "s") as store:
        records, faults = store.read()
        assert len(store.runs()) == 2
    assert not faults
    assert {r.key.problem for r in records} == {f"{name}-{i}" for name in ("a", "b", "both") for i in range(60)}


def foreign(path):
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE results (a)")
    db.commit()
    db.close()


def newer(path):
    Store(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()


def torn(path):
    with Store(path) as store:
        store.put([record(problem=str(i)) for i in range(200)])
    path.write_bytes(path.read_bytes()[:9000])


def scribbled(path):
    with Store(path) as store:
        store.put([record(problem=str(i)) for i in range(200)])
    content = bytearray(path.read_bytes())
    content[8192:20480] = b"\xa5" * (20480 - 8192)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"no database, but long enough to be one" * 40), "not a store"),
        (foreign, "another program"),
        (newer, "version 99"),
        (torn, "not a store"),
        (scribbled, "not a store"),
    ],
    ids=["text", "foreign", "newer", "torn", "scribbled"],
)
def test_what_is_no_sound_store_is_refused_and_left_as_it_is(tmp_path, damage, message):
    path = tmp_path / "results.sqlite"
    damage(path)
    before = path.read_bytes()
    with pytest.raises(InputError, match=message) as caught:
        Store(path)
    assert "results.sqlite" in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_FULL, ResourceError),
        (sqlite3.SQLITE_IOERR_SHMSIZE, ResourceError),
        (sqlite3.SQLITE_ERROR, InputError),
        (None, InputError),
    ],
)
def test_a_disk_without_space_is_no_bad_input(tmp_path, code, kind):
    """The shared memory beside a store is a file, too, of which SQLite says in its own words that it found no space."""
    error = sqlite3.OperationalError("no such column: full")
    if code is not None:
        error.sqlite_errorcode = code
    with Store(tmp_path / "s") as store, pytest.raises(kind, match="/s'"), store.file.transaction():
        raise error


def test_a_folder_that_is_not_there_is_bad_input(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        Store(tmp_path / "nowhere" / "s")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE results SET result = substr(result, 1, 40)",
        "UPDATE results SET result = replace(result, 'unknown', 'certain')",
        "UPDATE results SET verdict = 'verified'",
        "UPDATE results SET problem = 'another'",
        "UPDATE results SET result = '[]'",
    ],
)
def test_a_row_that_does_not_parse_is_reported_and_never_read(tmp_path, statement):
    with Store(tmp_path / "s") as store:
        store.put([record(verdict=Verdict.UNKNOWN)])
    db = sqlite3.connect(tmp_path / "s")
    db.execute(statement)
    db.commit()
    db.close()
    with Store(tmp_path / "s") as store:
        records, faults = store.read()
        assert records == []
        assert len(faults) == 1
        assert "unreadable record" in faults[0]


def test_meta_and_runs(tmp_path):
    with Store(tmp_path / "s") as store:
        store.begin("assay compare --n 3", "zoo:net", "digits")
        assert store.meta()["schema"] == "1"
        assert store.meta()["version"] == version()
        (run,) = store.runs()
    assert (run["command"], run["model"], run["data"]) == ("assay compare --n 3", "zoo:net", "digits")


def test_the_source_hash_speaks_of_the_code_that_decides(tmp_path, monkeypatch):
    for package in ("verify", "attacks"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    monkeypatch.setattr(origin, "PACKAGE", tmp_path)
    first = source_hash.__wrapped__()
    (tmp_path / "verify" / "new.py").write_text("x = 1")
    second = source_hash.__wrapped__()
    (tmp_path / "verify" / "new.txt").write_text("not code")
    assert len({source_hash(), first, second}) == 3
    assert source_hash.__wrapped__() == second


def test_many_are_found_by_their_keys(tmp_path):
    kept = [record(f"p{i}", f"m{i % 2}()", seed=i % 3) for i in range(12)]
    with Store(tmp_path / "s.sqlite") as store:
        store.put(kept)
        asked = [one.key for one in kept] + [Key("p0", "m1()"), Key("p1", "m1()", 2), Key("none", "m0()")]
        found = store.find(asked)
        assert {key: one.result.to_json() for key, one in found.items()} == {
            one.key: one.result.to_json() for one in kept
        }
        assert store.find([]) == {}


def test_of_equal_keys_in_one_batch_the_first_verdict_stays(tmp_path):
    unknown, verified, falsified = (record(verdict=verdict) for verdict in (Verdict.UNKNOWN, *DECIDED))
    with Store(tmp_path / "s.sqlite") as store:
        (contradicted,) = store.put([unknown, verified, unknown, falsified])
        assert contradicted is verified
        assert store.get(verified.key).result.verdict is Verdict.VERIFIED
