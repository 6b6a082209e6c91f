"""``assay compare`` from the command line: outputs, bad input, and a soundness alarm."""

import errno
import json
import sqlite3
from dataclasses import dataclass
from typing import ClassVar

import pytest

from assay.__main__ import main
from assay.benchmarks.harness.records.store import Store
from assay.verify import registry
from assay.verify.core.result import Guarantee, Reason, Result, Verdict

MODEL = """
import torch
def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
def train_mode():
    return net().train()
def small():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 10)).eval()
"""


@dataclass(frozen=True)
class Certain:
    """Verifies, or says nothing."""

    lies: bool = False
    name: ClassVar[str] = "certain"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def supports(self, problem):
        return None

    def verify(self, problem, budget):
        if self.lies:
            return Result(problem.id, repr(self), Verdict.VERIFIED)
        return Result(problem.id, repr(self), Verdict.UNKNOWN, Reason.INCOMPLETE)


@pytest.fixture
def model(tmp_path, monkeypatch):
    """The text that names a linear model of the digits, in a fresh working folder where ``certain`` is a method."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(registry.VERIFIERS, "certain", f"{__name__}:Certain")
    (tmp_path / "net.py").write_text(MODEL)
    return "net.py:net"


def arguments(model, /, **changes):
    usual = {"model": model, "data": "digits", "eps": "0.1,0.02", "methods": "certain", "attacks": "fgsm", "n": "40"}
    options = {**usual, "out": "out", **changes}
    return ["compare", *(part for key, value in options.items() for part in (f"--{key}", value))]


def test_a_run_leaves_records_a_summary_and_a_picture(model, tmp_path, capsys):
    assert main(arguments(model)) == 0
    out, err = capsys.readouterr()
    assert "net.py:net on digits (test), linf, 40 samples" in out
    assert "wrote out/results.sqlite, out/summary.json, out/bracket.png" in out
    assert "verdicts in" in err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["n"] == 40
    assert [row["eps"] for row in summary["rows"]] == [0, *[0.02] * 4, *[0.1] * 4]
    assert summary["command"][:3] == ["assay", "compare", "--model"]
    assert (tmp_path / "out" / "bracket.png").read_bytes().startswith(b"\x89PNG")
    right = 40 - summary["rows"][0]["falsified"]
    with Store(tmp_path / "out" / "results.sqlite") as store:
        records, faults = store.read()
        assert (len(records), faults) == (right * 2 * 2, [])
        assert store.runs()[0]["model"] == model


def test_changes_may_lie_within_other_balls_too(model, tmp_path, capsys):
    assert main(arguments(model, methods="crown", attacks="pgd", within="l2:0.2,1:1")) == 0
    assert "net.py:net on digits (test), linf within l2:0.2,l1:1, 40 samples" in capsys.readouterr().out
    narrow = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (narrow["norm"], narrow["within"]) == ("inf", "l2:0.2,l1:1")
    assert main(arguments(model, methods="crown", attacks="pgd")) == 0
    wide = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert "within" not in wide
    for small, large in zip(narrow["rows"], wide["rows"], strict=True):
        assert small["key"] == large["key"]
        assert small["accuracy"] >= large["accuracy"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"within": "linf:0.1"}, "the ball in linf is that of --eps"),
        ({"within": "l2:many"}, "expected a norm and a radius >= 0, such as l2:1.5, got 'l2:many'"),
        ({"within": "l2:1,2:2"}, "expected one ball in l2, got two"),
        ({"within": "l3:1"}, "unknown norm 'l3'"),
        ({"within": "l2:1", "norm": "l0", "eps": "2"}, "changes of l0 have no ball"),
        ({"within": "l2:1", "evidence": "folder"}, "--evidence speaks of one ball about each sample"),
        ({"within": "l2:1", "perturbation": "rotation(5)"}, "--within speaks of balls about the samples"),
    ],
)
def test_other_balls_that_cannot_be_are_refused(model, tmp_path, capsys, changes, words):
    assert main(arguments(model, **changes)) == 40
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_json_is_one_document_on_stdout_and_nothing_else(model, tmp_path, capsys):
    assert main([*arguments(model), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == json.loads((tmp_path / "out" / "summary.json").read_text())
    assert "all attacks" in err


@pytest.mark.slow
def test_the_same_run_again_gives_the_same_rows_in_the_same_store(model, tmp_path, capsys):
    runs = []
    for _ in range(2):
        assert main([*arguments(model, attacks="pgd(random_start=true,steps=3)"), "--json"]) == 0
        runs.append([{**row, "seconds": 0} for row in json.loads(capsys.readouterr().out)["rows"]])
    assert runs[0] == runs[1]
    with Store(tmp_path / "out" / "results.sqlite") as store:
        assert len(store.runs()) == 2
        assert len(store.read()[0]) == (40 - runs[0][0]["falsified"]) * 4


def test_an_alarm_ends_with_70_after_everything_is_written(model, tmp_path, capsys):
    assert main([*arguments(model, methods="certain(lies=true)", eps="0.3"), "--json"]) == 70
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["alarms"]
    assert err.splitlines()[-1].startswith("assay: error: soundness alarm: certain(lies=True)")
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"results.sqlite", "summary.json", "bracket.png"}
    assert (tmp_path / document["alarms"][0]["folder"] / "case.npz").exists()


def test_an_alarm_does_not_hide_behind_a_full_disk(model, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert main(arguments(model, methods="certain(lies=true)", eps="0.3")) == 70
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("assay: error: soundness alarm: certain(lies=True)")
    assert "saved in" not in line


def test_a_full_disk_is_told_with_the_path(model, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert main([*arguments(model), "--json"]) == 60
    out, err = capsys.readouterr()
    assert err.splitlines()[-1] == "assay: error: No space left on device: out/summary.json"
    assert json.loads(out) == {"error": "No space left on device: out/summary.json", "exit_code": 60}


BAD = {
    "unknown method": ({"methods": "crwn"}, "unknown method 'crwn'; did you mean 'crown'?"),
    "unknown attack": ({"attacks": "pdg"}, "unknown attack 'pdg'; did you mean 'pgd'?"),
    "unknown method option": ({"methods": "certain(speed=1)"}, "unknown option of method 'certain' 'speed'"),
    "unknown attack option": ({"attacks": "pgd(stepz=1)"}, "unknown option of attack 'pgd' 'stepz'"),
    "mistyped option": ({"attacks": "pgd(steps=many)"}, "option 'steps' of attack 'pgd': expected int, got 'many'"),
    "option out of range": ({"attacks": "pgd(steps=0)"}, "steps"),
    "unbalanced": ({"methods": "certain(("}, "unbalanced parentheses"),
    "method twice": ({"methods": "certain,certain"}, "certain is given twice"),
    "nobody": ({"methods": "", "attacks": ""}, "at least one method or attack"),
    "unknown zoo model": ({"model": "zoo:nonsense"}, "unknown zoo model 'nonsense'"),
    "no such file": ({"model": "nowhere.py:net"}, "nowhere.py"),
    "unknown data": ({"data": "digts"}, "unknown data set 'digts'; did you mean 'digits'?"),
    "negative eps": ({"eps": "-1"}, "--eps: expected finite numbers >= 0, got -1"),
    "nan eps": ({"eps": "0.1,nan"}, "--eps: expected finite numbers >= 0, got nan"),
    "infinite eps": ({"eps": "inf"}, "--eps: expected finite numbers >= 0, got inf"),
    "eps in words": ({"eps": "abc"}, "--eps: expected numbers with commas between them, got 'abc'"),
    "no eps": ({"eps": ","}, "--eps: expected at least one radius"),
    "n zero": ({"n": "0"}, "--n must be at least 1, got 0"),
    "n in words": ({"n": "many"}, "--n"),
    "n beyond the data": ({"n": "100000"}, "100000"),
    "batch": ({"batch": "0"}, "--batch must be at least 1, got 0"),
    "threads": ({"threads": "-2"}, "--threads must be at least 1, got -2"),
    "timeout": ({"timeout": "nan"}, "--timeout must be a number of seconds > 0"),
    "seed": ({"seed": "-1"}, "--seed must be a whole number from 0"),
    "norm": ({"norm": "3"}, "unknown norm '3'"),
    "train mode": ({"model": "net.py:train_mode"}, "train mode"),
    "wrong shape": ({"model": "net.py:small"}, "shape"),
    "out under a file": ({"out": "net.py/out"}, "cannot write to the folder 'net.py/out'"),
    "out is a file": ({"out": "net.py"}, "'net.py' is a file: expected a folder"),
    "unknown option": ({"nonsense": "1"}, "--nonsense"),
}


@pytest.mark.parametrize(("changes", "line"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line_and_40_before_any_work(model, tmp_path, capsys, changes, line):
    assert main(arguments(model, **changes)) == 40
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("assay: error: ")
    assert line in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out" / "summary.json").exists()


def test_an_unsupported_operation_is_50(model, tmp_path, capsys):
    (tmp_path / "odd.py").write_text(
        "from torch import nn\ndef net():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Hardshrink(), nn.Linear(64, 10)).eval()\n"
    )
    assert main([*arguments("odd.py:net"), "--json"]) == 50
    out, err = capsys.readouterr()
    assert json.loads(out)["exit_code"] == 50
    assert err.count("\n") == 1


def test_a_damaged_store_is_bad_input_and_kept(model, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.sqlite").write_bytes(b"something else entirely" * 100)
    assert main(arguments(model)) == 40
    assert "out/results.sqlite" in capsys.readouterr().err
    assert (tmp_path / "out" / "results.sqlite").read_bytes().startswith(b"something else")


def test_records_are_readable_with_plain_sqlite(model, tmp_path, capsys):
    assert main(arguments(model)) == 0
    db = sqlite3.connect(tmp_path / "out" / "results.sqlite")
    rows = db.execute("SELECT role, eps, verdict, count(*) FROM results GROUP BY role, eps, verdict").fetchall()
    db.close()
    assert {row[0] for row in rows} == {"attack", "method"}


def test_radii_in_one_table(model, tmp_path, capsys):
    told = ["compare", "--model", model, "--radius", "--n", "12", "--methods", "ibp,certain", "--attacks", "fgsm"]
    assert main([*told, "--out", "out", "--report", "out/page.html", "--json"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document == json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [entry.get("attack") or entry["method"] for entry in document["participants"]] == [
        *("fgsm", "all attacks", "all methods", "ibp", "certain")
    ]
    assert len(document["samples"]) == 12
    assert "all attacks" in err
    page = (tmp_path / "out" / "page.html").read_text()
    assert "Radii by attack and method" in page
    assert (tmp_path / "out" / "radii.png").read_bytes().startswith(b"\x89PNG")
    assert main(["report", "out/results.sqlite", "--format", "csv", "-o", "again.csv"]) == 0
    rows = [path.read_text().splitlines() for path in (tmp_path / "again.csv", tmp_path / "out" / "radii.csv")]
    assert [row.split(",")[:7] for row in rows[0]] == [row.split(",")[:7] for row in rows[1]]
    assert main([*told, "--out", "out", "--resume"]) == 0
    out, err = capsys.readouterr()
    assert "verdicts taken from out/results.sqlite" in err
    assert "tightness" in out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([], "--eps, radii"),
        (["--radius", "--eps", "0.1"], "and not both"),
        (["--radius", "--require", "certified@0.1 >= 0.5"], "take --eps"),
        (["--radius", "--tolerance", "0"], "--tolerance"),
        (["--radius", "--methods", "smoothing(n=100)"], "assay smooth"),
    ],
)
def test_radii_that_cannot_be_asked_for(model, more, words, capsys):
    assert main(["compare", "--model", model, "--n", "2", *more]) in (40, 50)
    assert words in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("methods", "attacks"),
    [
        ("smoothing(n=100,n0=20)", ["smoothing-attack(n=100,n0=20,alpha=1e-06,steps=1,copies=16)"]),
        ("smoothing(n=100,n0=20),smoothing-attack(n=100,steps=1)", ["smoothing-attack(n=100,steps=1)"]),
        ("crown", []),
    ],
)
def test_no_smoothed_classifier_is_certified_that_nobody_attacks(model, methods, attacks, tmp_path, capsys):
    command = ["compare", "--model", model, "--n", "2", "--eps", "0.01", "--norm", "2", "--attacks", "", "--json"]
    assert main([*command, "--methods", methods, "--out", str(tmp_path)]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["attack"] for row in rows if row["key"].startswith("SmoothingAttack")] == attacks
