"""Tables to publish: every figure comes back, and no name is taken for a formula, a command or markup."""

import csv
import io
import json
from dataclasses import replace
from importlib.util import find_spec

import pytest

from assay.attacks import get_attack
from assay.benchmarks.harness.bracket import Role
from assay.benchmarks.harness.compare import compare
from assay.benchmarks.report.published import Format, of_comparison, write
from assay.verify.core.errors import UnsupportedError
from tests.benchmarks.harness_fakes import POINTS, Exact, Timid, dataset, identity

EVIL = "=1+1 \x1b[31m& 50% $x$ #1 _{y} \\input{z} a|b <script> ~^"


@pytest.fixture(scope="module")
def comparison():
    return compare(identity(), dataset(POINTS), [0.08, 0.04], [Timid(), Exact()], [get_attack("fgsm")], name="net")


@pytest.fixture
def evil(comparison):
    rows = tuple(replace(row, name=EVIL) if row.name == "exact" else row for row in comparison.rows)
    return of_comparison(replace(comparison, rows=rows))


def test_csv_and_json_have_every_figure(comparison):
    entries = of_comparison(comparison)
    read = list(csv.DictReader(io.StringIO(write(entries, Format.CSV).decode())))
    assert json.loads(write(entries, Format.JSON)) == [e | {"norm": "inf"} for e in entries]
    assert len(read) == len(comparison.rows)
    for got, row in zip(read, comparison.rows, strict=True):
        assert (got["name"], float(got["eps"]), float(got["accuracy"])) == (row.name, row.eps, row.accuracy)
        assert (float(got["low"]), float(got["high"])) == row.interval
        proved = str(row.verified) if row.role is Role.METHOD else ""
        assert (got["verified"], int(got["falsified"]), int(got["n"])) == (proved, row.falsified, row.n)
    assert {got["model"] for got in read} == {"net"}


def test_names_cannot_become_formulas(evil):
    read = list(csv.DictReader(io.StringIO(write(evil, Format.CSV).decode())))
    names = [got["name"] for got in read if "input" in got["name"]]
    assert names
    assert all(name.startswith("'=1+1 & 50%") for name in names)


def test_latex_is_a_tabular_without_loose_characters(evil):
    lines = write(evil, Format.LATEX).decode().splitlines()
    assert lines[0].startswith(r"\begin{tabular}{")
    columns = len(lines[0].removeprefix(r"\begin{tabular}{").removesuffix("}"))
    body = [line for line in lines if line.endswith(r" \\")]
    assert all(line.count(" & ") == columns - 1 for line in body)
    (line, *_) = [line for line in body if "=1+1" in line]
    assert r"=1+1 \& 50\% \$x\$ \#1 \_\{y\} \textbackslash{}input\{z\} a\textbar{}b \textless{}script" in line
    assert r"40.0\%" in "".join(body)


def test_markdown_keeps_its_columns(evil):
    lines = write(evil, Format.MARKDOWN).decode().splitlines()
    bars = [line.replace("\\|", "").count("|") for line in lines]
    assert len(set(bars)) == 1
    assert "<script>" not in "".join(lines)
    assert "&lt;script&gt;" in "".join(lines)
    assert "model" not in lines[0]  # the same in every row
    assert "accuracy" in lines[0]


@pytest.mark.skipif(find_spec("pyarrow") is not None, reason="pyarrow is installed")
def test_parquet_names_what_is_missing(comparison):
    with pytest.raises(UnsupportedError, match="pip install pyarrow"):
        write(of_comparison(comparison), Format.PARQUET)


def test_parquet_comes_back(comparison):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    entries = of_comparison(comparison)
    assert parquet.read_table(io.BytesIO(write(entries, Format.PARQUET))).to_pylist() == entries


@pytest.mark.skipif(find_spec("pandas") is not None, reason="pandas is installed")
def test_a_frame_names_what_is_missing(comparison):
    with pytest.raises(UnsupportedError, match="pip install pandas"):
        comparison.to_frame()


def test_a_frame_has_the_rows(comparison):
    pytest.importorskip("pandas", reason="pandas is not installed")
    frame = comparison.to_frame()
    assert list(frame["name"]) == [row.name for row in comparison.rows]
    assert list(frame["accuracy"]) == [row.accuracy for row in comparison.rows]
