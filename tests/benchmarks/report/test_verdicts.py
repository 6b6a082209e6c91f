"""Verdicts and their totals as files: all of them, whatever their number, and none that a spreadsheet would run."""

import csv
from itertools import product
from math import inf

import pytest

from assay.benchmarks.harness.records.store import AT_ONCE, COLUMNS, Key, Record, Store
from assay.benchmarks.report import published, verdicts
from assay.benchmarks.report.published import Format
from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.result import Reason, Result, Verdict

METHODS, EPS, N = ("ibp()", "=crown()"), (0.1, 0.2), AT_ONCE // 3


def result(problem, method, i):
    if i % 3 == 0:
        return Result(problem, method, Verdict.UNKNOWN, Reason.INCOMPLETE, margin=-0.5, seconds=0.25)
    return Result(problem, method, Verdict.VERIFIED, margin=i / 7, seconds=0.5)


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        store.begin("assay compare", "model", "data")
        store.put(
            [
                Record(Key(f"{eps}-{i}", method), result(f"{eps}-{i}", method, i), "method", i, 1, eps, inf, 10.0)
                for method, eps, i in product(METHODS, EPS, range(N))
            ]
        )
        yield store


def test_every_verdict_is_written(store, tmp_path):
    path = tmp_path / "v.csv"
    assert verdicts.write(store, path, Format.CSV) == len(METHODS) * len(EPS) * N > AT_ONCE
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    kept = {(row["problem"], row["method"]): row for row in rows}
    assert len(kept) == len(rows) == len(METHODS) * len(EPS) * N
    for record in store.read()[0]:
        row = kept[record.key.problem, "'=crown()" if record.key.method == "=crown()" else record.key.method]
        assert float(row["margin"]) == record.result.margin
        assert (row["verdict"], row["sample"]) == (record.result.verdict.value, str(record.sample))
        assert row["reason"] == (record.result.reason or "")


def test_parquet_comes_back_in_groups(store, tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    monkeypatch.setattr(verdicts, "GROUP", 200)
    path = tmp_path / "v.parquet"
    count = verdicts.write(store, path, Format.PARQUET)
    file = parquet.ParquetFile(path)
    assert file.metadata.num_row_groups == -(-count // 200)
    assert [tuple(row.values()) for row in file.read().to_pylist()] == [row for some in store.flat() for row in some]


def test_what_cannot_be_written_leaves_no_file(store, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="csv or parquet, not as latex"):
        verdicts.write(store, tmp_path / "v", Format.LATEX)
    with pytest.raises(InputError, match="cannot write"):
        verdicts.write(store, tmp_path / "nowhere" / "v", Format.CSV)
    monkeypatch.setattr(verdicts, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match="pip install pyarrow"):
        verdicts.write(store, tmp_path / "v", Format.PARQUET)
    assert {path.name.partition(".sqlite")[0] for path in tmp_path.iterdir()} == {"s"}


def test_totals_are_what_counting_gives(store):
    entries = published.of_totals(store)
    assert len(entries) == len(METHODS) * len(EPS) * 2
    assert sum(entry["count"] for entry in entries) == len(METHODS) * len(EPS) * N
    open_ = -(-N // 3)
    for entry in entries:
        verified = entry["verdict"] == "verified"
        assert entry["count"] == (N - open_ if verified else open_)
        assert entry["seconds"] == pytest.approx(entry["count"] * (0.5 if verified else 0.25))
        assert (entry["run"], entry["reason"]) == (1, None if verified else "incomplete")
