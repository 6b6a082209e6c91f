"""Options that commands share: radii as they were typed, the domain, silence, and what narrow or poor terminals get."""

import io
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from assay import options
from assay.__main__ import main
from assay.benchmarks.harness.preloaded import TREES
from assay.encodings import forgiving
from assay.verify.backends.bab.neurons import bab
from assay.verify.backends.bab.programs import lp_bab
from assay.verify.core.errors import InputError
from assay.verify.support.executors import processes
from assay.written import Written, numbers
from tests import commands
from tests.breadth import few

MODEL = """
import torch
def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
def line():
    layer = torch.nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -1.0]]))
        layer.bias.zero_()
    return torch.nn.Sequential(layer).eval()
def probability():
    return torch.nn.Sequential(line(), torch.nn.Sigmoid()).eval()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with models, and data of two numbers from -1 to 1: 1/4 to 1 from where its class changes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(MODEL)
    x = np.array([[0.5, 0.0], [-0.25, -0.75], [-1.0, 1.0], [-0.5, 0.5]], dtype=np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=np.array([1, 1, 0, 0]))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "value"), [("8/255", 8 / 255), ("0.10", 0.1), ("1e-1", 0.1), ("2.5/255", 2.5 / 255), ("1 / 3", 1 / 3)]
)
def test_numbers_are_the_nearest_float_and_print_as_typed(text, value):
    number = Written(text)
    assert number == value
    assert (f"{number:g}", f"{number:.3f}", repr(number)) == (text, text, repr(value))
    assert f"{pickle.loads(pickle.dumps(number))}" == text
    assert json.loads(json.dumps(number)) == value
    assert float(torch.as_tensor(number, dtype=torch.float64)) == value


def test_numbers_rise_each_once():
    assert [f"{number}" for number in numbers("--eps", "8/255, 0.5,2/255,0.50,,1/2")] == ["2/255", "8/255", "0.5"]


@pytest.mark.parametrize(
    "text", ["", "1/0", "8/-255", "1/2/3", "x/255", "/255", "8/", "1e400", "-1/255", "nan", "inf", "1/1e5", "0x10"]
)
def test_what_is_no_radius(text):
    with pytest.raises(InputError, match="--eps: expected"):
        numbers("--eps", text)


def test_radii_are_told_as_they_were_typed(folder, capsys):
    usual = ["--model", "net.py:net", "--n", "20", "--eps", "8/255,0.10", "--json"]
    for command in (["compare", "--methods", "ibp", "--attacks", "fgsm"], ["attack", "--attacks", "fgsm"]):
        assert main([*command, *usual]) == 0
        out, err = capsys.readouterr()
        assert {row["eps"] for row in json.loads(out)["rows"]} - {0} == {8 / 255, 0.1}
        assert "8/255" in err
        assert "0.10" in err
        assert "0.0314" not in err


@pytest.mark.slow
def test_the_domain_is_that_of_the_data(folder, capsys):
    usual = ["--model", "net.py:line", "--data", "data.npz", "--domain", "-1,1"]
    assert main(["compare", *usual, "--eps", "0.125,0.375,1", "--methods", "crown", "--attacks", "pgd", "--json"]) == 0
    rows = {
        (row.get("method") or row["attack"], row["eps"]): row for row in json.loads(capsys.readouterr().out)["rows"]
    }
    assert [rows["crown", eps]["verified"] for eps in (0.125, 0.375, 1)] == [4, 2, 0]
    assert [rows["pgd", eps]["falsified"] for eps in (0.125, 0.375, 1)] == [0, 2, 4]
    assert main(["attack", *usual, "--eps", "0.375", "--attacks", "pgd,fmn", "--json"]) == 0
    assert [row["falsified"] for row in json.loads(capsys.readouterr().out)["rows"]] == [2, 2, 2]
    assert main(["radius", *usual, "--n", "2", "--tolerance", "0.001", "--json"]) == 0
    for sample in json.loads(capsys.readouterr().out)["samples"]:
        assert sample["certified"] <= 0.25 <= sample["attacked"] <= sample["certified"] + 0.01


@pytest.mark.parametrize("command", ["compare", "attack", "radius"])
@pytest.mark.parametrize(
    ("domain", "words"),
    [
        (None, "data.npz: expected x within [0, 1], got -1 to 1"),
        ("0,1", "data.npz: expected x within [0, 1], got -1 to 1"),
        ("-0.5,1", "expected x within [-0.5, 1]"),
        ("1,-1", "--domain: expected two finite numbers, the lower one first"),
        ("-inf,inf", "--domain: expected two finite numbers"),
        ("1", "--domain: expected two numbers with a comma between them"),
        ("a,b", "--domain: expected two numbers with a comma between them"),
    ],
)
def test_a_domain_that_cannot_be(folder, capsys, command, domain, words):
    more = [] if command == "radius" else ["--eps", "0.1"]
    given = [] if domain is None else ["--domain", domain]
    assert main([command, "--model", "net.py:line", "--data", "data.npz", *more, *given]) == 40
    out, err = capsys.readouterr()
    assert words in err
    assert out == ""


WEIGHED = {
    "compare": ["--model", "net.py:line", "--eps", "0.1", "--methods", "ibp", "--attacks", "fgsm"],
    "attack": ["--model", "net.py:line", "--eps", "0.1", "--attacks", "fgsm"],
    "radius": ["--model", "net.py:line", "--index", "0"],
    "export": ["net.py:line", "net.onnx", "--input-shape", "2"],
    "inspect": ["net.py:line", "--input-shape", "2"],
}


@pytest.mark.parametrize("command", WEIGHED)
def test_weights_lie_beside_a_factory(folder, capsys, command):
    """The sign of the one layer is turned: what was right everywhere is wrong everywhere."""
    save_file({"0.weight": torch.tensor([[-1.0, 1.0]]), "0.bias": torch.zeros(1)}, folder / "turned.safetensors")
    on_data = [] if command in ("export", "inspect") else ["--data", "data.npz", "--domain", "-1,1"]
    assert main([command, *WEIGHED[command], *on_data, "--weights", "turned.safetensors", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    if command in ("compare", "attack"):
        assert {row["misclassified"] for row in document["rows"]} == {4}
    if command == "radius":
        assert (document["samples"][0]["predicted"], document["samples"][0]["attacked"]) == (0, 0)
    assert main([command, *WEIGHED[command], *on_data, "--weights", "nowhere.safetensors"]) == 40


def test_smooth_takes_weights_too(folder, capsys):
    state = {"1.weight": torch.zeros(10, 64), "1.bias": torch.arange(10.0)}
    save_file(state, folder / "nine.safetensors")
    asked = ["smooth", "--model", "net.py:net", "--weights", "nine.safetensors", "--n", "3", "--draws", "50"]
    assert main([*asked, "--json"]) == 0
    assert {row["prediction"] for row in json.loads(capsys.readouterr().out)["rows"]} == {9}


@pytest.mark.parametrize("command", ["compare", "attack", "radius"])
def test_a_probability_has_another_threshold(folder, capsys, command):
    more = [] if command == "radius" else ["--eps", "0.1"]
    asked = [command, "--model", "net.py:probability", "--data", "data.npz", "--domain", "-1,1", "--json", *more]
    assert main(asked) == 50
    out, err = capsys.readouterr()
    assert json.loads(out)["exit_code"] == 50
    assert "leave out the Sigmoid at the end" in err


@pytest.mark.parametrize(
    "command",
    [
        ["compare", "--methods", "ibp", "--attacks", "fgsm", "--eps", "0.1"],
        ["attack", "--attacks", "fgsm", "--eps", "0.1"],
        ["radius", "--method", "ibp", "--attack", "fgsm", "--tolerance", "0.1"],
        ["smooth", "--draws", "50", "--sigma", "0.1"],
    ],
    ids=lambda command: command[0],
)
def test_quiet_is_silent_but_for_the_result(folder, capsys, command):
    usual = ["--model", "net.py:net", "--n", "2", "--json"]
    assert main([*command, *usual]) == 0
    assert "to come" in capsys.readouterr().err
    assert main([*command, *usual, "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)
    assert "to come" not in err


@pytest.mark.parametrize("asked", [["methods"], ["models"]])
def test_names_survive_60_columns(asked, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert main([*asked, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    names = [entry["model"] for entry in document.get("models", ())]
    names += [entry["name"] for kind in ("methods", "attacks", "packages") for entry in document.get(kind, ())]
    assert main(asked) == 0
    shown = capsys.readouterr().out
    assert "\u2026" not in shown
    assert not [name for name in names if name not in shown.replace("\n", " ")]


def test_results_survive_60_columns_and_say_who_could_not_run(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    attacks = ["--attacks", "fgsm,ddn,pgd(steps=10,restarts=2)"]
    usual = ["--model", "net.py:net", "--n", "5", "--eps", "0.01,0.02", *attacks]
    for command in (["compare", "--methods", "crown,input-split,lp-bab"], ["attack"]):
        assert main([*command, *usual]) == 0
        shown = capsys.readouterr().out
        assert "ddn: unsupported: ddn needs a region that is a ball of l2" in " ".join(shown.split())
        assert not [line for line in shown.splitlines() if "ddn" in line and "%" in line]
        assert "\u2026" not in shown
        for name in ("clean", "fgsm", "all attacks", "ddn", "pgd(steps="):
            assert name in shown
    assert main(["compare", "--methods", "input-split", "--attacks", "", *usual[:-2]]) == 50
    assert "input-split: unsupported: 64 inputs" in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_streams_that_cannot_encode_a_sign_get_the_nearest(encoding, monkeypatch):
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding=encoding))
    forgiving(sys.stdout)
    print("\u2264 96.5% \u2265 1.0% \u00b10.1 \u03b5 \u2113 \u4e00 \u2026")
    sys.stdout.flush()
    text = content.getvalue().decode(encoding)
    assert text.startswith("<=96.5% >=1.0%")
    assert " eps l ? " in text


@pytest.mark.slow
@pytest.mark.parametrize("encoding", few(["ascii", "latin-1", "cp1252"], quick=["ascii"]))
def test_tables_are_printed_on_every_stream(folder, encoding):
    asked = ["compare", "--model", "net.py:net", "--eps", "0.1", "--methods", "ibp", "--attacks", "fgsm", "--n", "5"]
    out = folder / "printed"
    process = commands.start(folder, asked, out=str(out), encoding=encoding)
    process.communicate(timeout=300)
    assert process.returncode == 0
    shown = out.read_bytes().decode(encoding)
    assert ">=" in shown
    assert "<=" in shown
    assert "?" not in shown


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
@pytest.mark.parametrize("more", few([[], ["--json"]], quick=[[]]))
def test_a_full_standard_output_is_told(tmp_path, more):
    process = commands.start(tmp_path, ["models", *more], out="/dev/full")
    _, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (60, "assay: error: No space left on device: standard output\n")


def test_what_a_data_set_has_no_use_for_is_refused(folder, capsys):
    assert main(["attack", "--model", "net.py:net", "--eps", "0.1", "--timeout", "5"]) == 40
    assert "--timeout is for NET PROP" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["nowhere/answer.txt", "net.py/answer.txt", ".", "/proc/answer.txt"])
def test_where_the_answer_cannot_go_is_told_before_the_work(folder, capsys, monkeypatch, place):
    from assay.commands import verify

    monkeypatch.setattr(verify, "swift_imports", lambda: pytest.fail("the work has begun"))
    assert main(["verify", "net.onnx", "prop.vnnlib", "--results", place, "--json"]) == 40
    assert json.loads(capsys.readouterr().out)["exit_code"] == 40


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--attacks", "smoothing-attack"], "assay compare takes it as --methods smoothing-attack"),
        (["--methods", "pgd"], "the method attack(attack=pgd) runs it"),
    ],
)
def test_methods_and_attacks_that_are_confused_are_told(folder, capsys, arguments, line):
    assert main(["compare", "--model", "net.py:net", "--eps", "0.1", *arguments]) == 40
    assert line in capsys.readouterr().err


@pytest.mark.parametrize(
    ("eps", "more", "meant"),
    [
        ("8", [], "8/255"),
        ("0.1,1.0", [], "8/255"),
        ("1/2", [], None),
        ("8", ["--norm", "2"], None),
        ("1", ["--domain", "-1,1"], None),
    ],
)
def test_a_radius_in_other_units_is_told(folder, capsys, eps, more, meant):
    asked = ["attack", "--model", "net.py:net", "--eps", eps, "--attacks", "fgsm", "--n", "1", "--quiet", *more]
    assert main(asked) == 0
    said = capsys.readouterr().err.splitlines()
    assert len([line for line in said if "the width of the domain" in line]) == (meant is not None)
    assert meant is None or f"(may {meant} be meant?)" in said[0]


@pytest.mark.parametrize("command", ["compare", "attack"])
def test_a_model_for_other_data_is_told_what_fits(folder, capsys, command):
    asked = [command, "--model", "zoo:digits-mlp-pgd", "--data", "fashion-mnist", "--eps", "0.1", "--n", "1"]
    assert main(asked) == 40
    err = capsys.readouterr().err
    assert "as in --data digits" in err
    assert "fits zoo:fashion-cnn-" in err


@pytest.mark.slow
@pytest.mark.parametrize("more", few([[], ["--json"]], quick=[[]]))
def test_a_reader_that_has_enough_is_no_error_to_tell(more):
    asked = [sys.executable, "-m", "assay", "models", *more]
    with subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        started.stdout.close()
        assert started.stderr.read() == ""
    assert started.returncode == 60


def test_methods_are_whole_on_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["methods"]) == 0
    shown = capsys.readouterr().out
    assert "guarantee: numerical; complete" in shown
    assert "`steps`" in shown
    assert max(map(len, shown.splitlines())) <= 60


@pytest.fixture
def warmed(monkeypatch):
    """What the processes' server was told to import."""
    asked = []
    monkeypatch.setattr(processes, "warm", asked.append)
    return asked


def test_processes_of_a_method_import_what_it_would_have_them_import(warmed):
    for method in ("bab(workers=2)", " lp-bab( batch=3, workers = 4 )"):
        options.foresee(method)
    assert warmed == [bab.PRELOAD, lp_bab.PRELOAD] == list(TREES.values())


@pytest.mark.parametrize(
    "method", ["bab", "bab(workers=1)", "bab(workers=2,cluster=auto)", "crown(workers=2)", "bab(workers", "auto"]
)
def test_where_there_will_be_no_processes_none_import(warmed, method):
    options.foresee(method)
    assert warmed == []


def test_processes_begin_to_import_before_this_one_does(warmed, folder, monkeypatch):
    monkeypatch.setattr("assay.comparing.use_threads", lambda wanted: pytest.fail("torch first"))
    with pytest.raises(pytest.fail.Exception, match="torch first"):
        main(["compare", "--model", "net.py:net", "--data", "digits", "--eps", "0.1", "--workers", "2"])
    assert len(warmed) == 1
    assert main(["compare", "--model", "net.py:net", "--data", "digits", "--eps", "0.1", "--workers", "0"]) == 40
    assert len(warmed) == 1
