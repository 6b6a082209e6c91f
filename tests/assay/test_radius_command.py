"""``assay radius`` from the command line: the bracket in print and as JSON, bad input, and a soundness alarm."""

import json
from dataclasses import dataclass
from typing import ClassVar

import pytest

from assay.__main__ import main
from assay.benchmarks.report.digits import above, below
from assay.verify import registry
from assay.verify.core.result import Guarantee, Result, Verdict
from assay.verify.solving import stages

ZOO = ["radius", "--model", "zoo:digits-mlp-pgd", "--tolerance", "0.01"]


@dataclass(frozen=True)
class Liar:
    """Verifies everything."""

    name: ClassVar[str] = "liar"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def supports(self, problem):
        return None

    def verify(self, problem, budget):
        return Result(problem.id, repr(self), Verdict.VERIFIED)


def document(capsys, *arguments):
    assert main([*ZOO, *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_sample_is_bracketed(capsys):
    (entry,) = document(capsys)["samples"]
    assert (entry["sample"], entry["label"], entry["predicted"]) == (0, 0, 0)
    assert 0.1 < entry["certified"] < entry["attacked"] < 0.25
    assert main(ZOO) == 0
    out, err = capsys.readouterr()
    assert below(entry["certified"]) in out
    assert above(entry["attacked"]) in out
    assert "certified by crown" in " ".join(out.split())
    assert "2 bounds in" in err


@pytest.mark.slow
def test_an_exact_method_closes_the_bracket(capsys):
    (entry,) = document(capsys, "--method", "milp", "--index", "8")["samples"]
    assert entry["sample"] == 8
    assert 0 <= entry["attacked"] - entry["certified"] <= 0.02


def test_the_first_samples_and_one_that_is_misclassified(capsys):
    told = document(capsys, "--n", "2", "--method", "ibp", "--attack", "fgsm")
    assert [entry["sample"] for entry in told["samples"]] == [0, 1]
    assert (told["samples"][1]["certified"], told["samples"][1]["attacked"]) == (0, 0)
    assert main([*ZOO, "--index", "1"]) == 0
    assert "misclassified as 9: radius 0" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("norm", ["l2", "1"])
def test_other_norms(norm, capsys):
    (entry,) = document(capsys, "--norm", norm)["samples"]
    assert 0 < entry["certified"] < entry["attacked"]


@pytest.mark.parametrize("json_", [False, True])
def test_an_alarm_ends_with_70_after_everything_is_printed(json_, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(registry.VERIFIERS, "liar", f"{__name__}:Liar")
    monkeypatch.setattr(stages, "corroborate", lambda problems, results: [None] * len(problems))
    arguments = [*ZOO, "--method", "liar", "--out", str(tmp_path), *(["--json"] if json_ else [])]
    assert main(arguments) == 70
    out, err = capsys.readouterr()
    assert err.splitlines()[-1].startswith("assay: error: soundness alarm: liar verifies sample 0 at eps")
    assert len(list((tmp_path / "alarms").iterdir())) == 1
    if json_:
        (alarm,) = json.loads(out)["alarms"]
        assert (alarm["verified"], alarm["falsified"]) == (["liar"], ["pgd"])
    else:
        assert "SOUNDNESS ALARM" in out


BAD = {
    "both": (["--index", "1", "--n", "2"], 40, "--index or --n"),
    "index below 0": (["--index", "-1"], 40, "--index must be at least 0"),
    "index too large": (["--index", "360"], 40, "samples from 0 to 359, not 360"),
    "nobody": (["--n", "0"], 40, "--n must be at least 1"),
    "tolerance": (["--tolerance", "0"], 40, "--tolerance must be"),
    "norm": (["--norm", "3"], 40, "unknown norm '3'"),
    "method": (["--method", "crwn"], 40, "did you mean 'crown'?"),
    "attack": (["--attack", "pdg"], 40, "did you mean 'pgd'?"),
    "unsupported norm": (["--norm", "2", "--method", "smt"], 50, "an l2 ball is no box"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case, capsys):
    arguments, code, words = BAD[case]
    assert main([*ZOO, *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err.splitlines()[-1]
