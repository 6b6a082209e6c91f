"""Two runs over instances: whose answer changed, and where both cannot be right."""

from dataclasses import replace
from pathlib import Path

import pytest

from assay.__main__ import main
from assay.benchmarks.harness.answer import Word
from assay.benchmarks.harness.instances import Instance
from assay.benchmarks.harness.records.store import Store
from assay.benchmarks.harness.suite import Outcome, Row
from assay.benchmarks.report.competition import Peers
from assay.benchmarks.report.instance_changes import between
from assay.benchmarks.report.instances_run import Run
from assay.verify.core.errors import InputError
from assay.verify.core.result import Reason, Result, Verdict
from tests.benchmarks import instance_files


def run(*words, files="same"):
    rows = tuple(
        Row(Instance("tiny", "net.onnx", f"{i}.vnnlib", 9.0, Path("tiny")), word, 0, float(i))
        for i, word in enumerate(words)
    )
    results = tuple(Result(f"{files}-{i}", "auto", Verdict.UNKNOWN, Reason.INCOMPLETE) for i in range(len(rows)))
    return Run("auto", "", "", Outcome(rows, (), 0, 1.0), Peers(), results, (), (), ())


def test_what_changed_is_told_by_name():
    found = between(run(Word.SAT, Word.TIMEOUT, Word.UNSAT), run(Word.SAT, Word.UNSAT, Word.UNKNOWN))
    assert found.n == 3
    assert [(c.name[2], c.before, c.after, c.better) for c in found.changes] == [
        ("1.vnnlib", "timeout", "unsat", True),
        ("2.vnnlib", "unsat", "unknown", False),
    ]
    assert found.contradictions == ()
    assert found.to_json()["changes"][0]["vnnlib"] == "1.vnnlib"


def test_sat_and_unsat_of_the_same_files_contradict_and_of_others_do_not():
    one, other = run(Word.SAT), run(Word.UNSAT)
    (line,) = between(one, other).contradictions
    assert line == "tiny net.onnx 0.vnnlib: sat in one run, unsat in the other, from the same files"
    assert between(one, run(Word.UNSAT, files="others")).contradictions == ()
    assert between(one, replace(other, results=(None,))).contradictions == ()
    with pytest.raises(InputError, match="no instance in common"):
        between(one, run())


@pytest.mark.slow
def test_the_command_takes_stores_of_bench(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    instance_files.suite(tmp_path / "all")
    assert main(["bench", "all", "--store", "a.sqlite", "--workers", "1", "-q", "--method", "attack"]) == 0
    assert main(["bench", "all", "--store", "b.sqlite", "--workers", "1", "-q"]) == 0
    capsys.readouterr()
    assert main(["diff", "a.sqlite", "b.sqlite"]) == 0
    out = capsys.readouterr().out
    assert "2 decided now that were open, 0 no longer as they were decided, of 4 instances" in out
    Store("c.sqlite").close()
    assert main(["diff", "a.sqlite", "c.sqlite"]) == 40
    assert "two of a kind" in capsys.readouterr().err
