"""``assay compare --require --baseline`` and ``assay diff`` from the command line."""

import json

import pytest

from assay.__main__ import main
from assay.verify import registry
from tests.assay.test_compare_command import MODEL, Certain, arguments
from tests.benchmarks.harness.test_changes import run
from tests.benchmarks.harness_fakes import Claims, Liar, needle

DULL = """
def dull():
    model = net()
    with torch.no_grad():
        for weights in model.parameters():
            weights.zero_()
    return model
"""


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(registry.VERIFIERS, "certain", f"{Certain.__module__}:Certain")
    (tmp_path / "net.py").write_text(MODEL)
    return "net.py:net"


def compare(model, *more, **changes):
    return main([*arguments(model, n="20", **changes), *more])


def test_requirements_decide_the_exit_code_once_everything_is_written(model, tmp_path, capsys):
    assert compare(model, "--require", "certified@0.1 <= 0", "--require", "clean >= 0") == 0
    assert "clean >= 0: met (" in capsys.readouterr().out
    assert compare(model, "--require", "certified@0.1 >= 0.75", "--require", "clean >= 0", out="other") == 80
    out, err = capsys.readouterr()
    assert "certified@0.1 >= 0.75: NOT MET (0.0%, 0 of 20)" in out
    assert err.endswith("assay: error: certified@0.1 >= 0.75: NOT MET (0.0%, 0 of 20)\n")
    summary = json.loads((tmp_path / "other" / "summary.json").read_text())
    assert [each["met"] for each in summary["requirements"]] == [False, True]


def test_json_stays_one_document(model, capsys):
    assert compare(model, "--require", "clean > 2", "--json") == 40
    json.loads(capsys.readouterr().out)
    assert compare(model, "--require", "clean >= 1", "--json") == 80
    assert json.loads(capsys.readouterr().out)["requirements"][0]["met"] is False


@pytest.mark.parametrize(
    ("require", "why"),
    [("certified@0.3 >= 0.1", "at the radii 0.02, 0.1"), ("crown@0.1 >= 0", "rows clean"), ("x", "expected")],
)
def test_a_requirement_of_nothing_is_refused_before_the_work(model, tmp_path, capsys, require, why):
    assert compare(model, "--require", require) == 40
    assert why in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_alarm_outranks_a_requirement(model, capsys):
    assert compare(model, "--require", "clean >= 1", eps="0.5", methods="certain(lies=true)") == 70
    assert "NOT MET" in capsys.readouterr().out


@pytest.mark.slow
def test_a_baseline_is_held_against(model, tmp_path, capsys):
    assert compare(model, out="old", eps="0.001,0.1") == 0
    assert compare(model, "--baseline", "old/results.sqlite", out="same", eps="0.001") == 0
    assert "all attacks at eps 0.001 no worse than the baseline: met" in capsys.readouterr().out
    # A model that says the same of everything: every tie is wrong, and no clean accuracy is left.
    (tmp_path / "net.py").write_text(MODEL + DULL)
    assert compare("net.py:dull", "--baseline", "old/results.sqlite", out="new", eps="0.001") == 80
    out, err = capsys.readouterr()
    assert "clean no worse than the baseline: NOT MET (0.0%, was 20.0%, 95% interval from 5.7%)" in out
    assert "clean no worse than the baseline: NOT MET" in err
    assert compare(model, "--baseline", "nowhere.sqlite") == 40
    assert compare(model, "--baseline", "old/results.sqlite", eps="0.5") == 40
    assert "none of these" in capsys.readouterr().err


def test_diff_tells_what_changed(model, capsys):
    assert compare(model, out="a", eps="0.1", attacks="") == 0
    assert compare(model, out="b", eps="0.1") == 0
    capsys.readouterr()
    assert main(["diff", "a/results.sqlite", "b/results.sqlite"]) == 0
    out = capsys.readouterr().out
    assert "broken" in out
    assert "fgsm" in out
    assert "worse, of 20 samples" in out
    assert main(["diff", "a/results.sqlite", "b/results.sqlite", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["changes"]
    assert {change["after"] for change in told["changes"]} == {"broken"}
    assert main(["diff", "a/results.sqlite", "nowhere.sqlite"]) == 40


def test_diff_of_one_network_that_is_certified_and_broken_is_an_alarm(tmp_path, capsys):
    run(tmp_path / "a", needle(), [Liar()], points=[[0.6, 0.4]])
    run(tmp_path / "b", needle(), attacks=[Claims()], points=[[0.6, 0.4]])
    assert main(["diff", str(tmp_path / "a"), str(tmp_path / "b")]) == 70
    out, err = capsys.readouterr()
    assert "SOUNDNESS ALARM: sample 0: certified within 0.08 by liar" in out
    assert "soundness alarm" in err
