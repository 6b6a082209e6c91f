"""``assay attack`` from the command line: the table, the files, the warnings, and a property's counterexample."""

import json

import numpy as np
import pytest
import torch

from assay.__main__ import main
from tests.benchmarks.instance_files import BROKEN, SAFE, net, prop

MODEL = """
import torch
def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
def soft():
    return torch.nn.Sequential(net(), torch.nn.Softmax(1)).eval()
"""


@pytest.fixture
def model(tmp_path, monkeypatch):
    """The text that names a linear model of 64 inputs, in a fresh working folder with data of its own labels."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(MODEL)
    torch.manual_seed(1)
    x = torch.rand(30, 1, 8, 8)
    torch.manual_seed(0)
    linear = torch.nn.Linear(64, 10)
    y = linear(x.flatten(1)).argmax(1)
    y[:3] = (y[:3] + 1) % 10
    np.savez(tmp_path / "data.npz", x=x.numpy(), y=y.numpy())
    return "net.py:net"


def arguments(model, /, *more, **changes):
    usual = {"model": model, "data": "data.npz", "eps": "0.3,0.05,0", "attacks": "fgsm,ddn(steps=20)", "norm": "2"}
    return ["attack", *(part for key, value in (usual | changes).items() for part in (f"--{key}", value)), *more]


def test_the_document_and_the_table(model, capsys):
    assert main(arguments(model, "--json", n="20")) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert (document["n"], document["norm"], document["clean_accuracy"]) == (20, 2, 0.85)
    rows = {(row["attack"], row["eps"]): row for row in document["rows"]}
    assert {name for name, _ in rows} == {"fgsm", "ddn(steps=20)", "all attacks"}
    for name in ("fgsm", "ddn(steps=20)", "all attacks"):
        accuracies = [rows[name, eps]["accuracy"] for eps in (0, 0.05, 0.3)]
        assert accuracies[0] == 0.85
        assert accuracies == sorted(accuracies, reverse=True)
        assert rows["all attacks", 0.3]["accuracy"] <= accuracies[2] < 0.85
    assert 0 < rows["ddn(steps=20)", 0.3]["median_distance"] < 1
    assert document["warnings"] == []
    assert "2 samples" not in err
    assert "ddn(steps=20)" in err
    assert "85.0%" in err


@pytest.mark.slow
def test_what_is_saved_can_be_checked(model, tmp_path, capsys):
    assert main(arguments(model, save="out")) == 0
    assert "sheet.png" in capsys.readouterr().out
    saved = np.load(tmp_path / "out" / "adversarial.npz")
    assert saved["epsilons"].tolist() == [0, 0.05, 0.3]
    torch.manual_seed(0)
    linear = torch.nn.Linear(64, 10)
    x, y = torch.from_numpy(saved["x"]), torch.from_numpy(saved["y"])
    for name in ("fgsm", "ddn(steps=20)"):
        points, success = torch.from_numpy(saved[f"{name}/adversarial"]), torch.from_numpy(saved[f"{name}/success"])
        assert points.shape == (3, 30, 1, 8, 8)
        for eps, level, broken in zip((0, 0.05, 0.3), points, success, strict=True):
            assert bool(((level - x).double().flatten(1).norm(dim=1) <= eps).all())
            assert bool((linear(level.flatten(1)).argmax(1) != y)[broken].all())
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["n"] == 30
    assert (tmp_path / "out" / "sheet.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_batches_and_samples_before_change_nothing(model, capsys):
    documents = []
    for batch in ("7", "30"):
        assert main(arguments(model, "--json", batch=batch, attacks="fgsm,pgd(steps=5,restarts=2)")) == 0
        documents.append(json.loads(capsys.readouterr().out))
    first, second = ([{**row, "seconds": 0} for row in document["rows"]] for document in documents)
    assert first == second


def test_odd_models_are_warned_of(model, capsys):
    assert main(arguments("net.py:soft", "--json")) == 0
    out, err = capsys.readouterr()
    (line,) = json.loads(out)["warnings"]
    assert "outputs are probabilities" in line
    assert "warning: the model's outputs are probabilities" in " ".join(err.split())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attacks": "pdg"}, "did you mean 'pgd'"),
        ({"attacks": "fgsm,fgsm"}, "fgsm is given twice"),
        ({"attacks": ""}, "expected at least one attack"),
        ({"attacks": "pgd(targeted=true)"}, "take pgd without targeted"),
        ({"eps": "-1"}, "expected finite numbers >= 0"),
        ({"norm": "3"}, "unknown norm"),
        ({"n": "31"}, "expected from 1 to 30 samples"),
        ({"batch": "0"}, "--batch must be at least 1"),
    ],
)
def test_bad_input(model, capsys, changes, message):
    assert main(arguments(model, **changes)) == 40
    assert message in capsys.readouterr().err


def test_one_of_the_two_forms(model, capsys):
    assert main(["attack"]) == 40
    assert "expected --model and --eps, or NET PROP" in capsys.readouterr().err
    assert main(["attack", "net.onnx"]) == 40
    assert main(["attack", "net.onnx", "p.vnnlib", "--eps", "0.1"]) == 40
    capsys.readouterr()
    assert main(["attack", "net.onnx", "p.vnnlib", "--save", "out"]) == 40
    assert "--save is for data sets" in capsys.readouterr().err


def test_an_attack_that_has_no_such_region_is_unsupported(model, capsys):
    assert main(arguments(model, attacks="ddn", norm="inf")) == 50
    assert "ddn needs a region that is a ball of l2" in capsys.readouterr().err


@pytest.mark.parametrize("attacks", [None, "fgsm", "fgsm,pgd(steps=20,loss=margin)", "cw,pgd"])
def test_a_property_gets_a_counterexample_or_unknown(tmp_path, monkeypatch, capsys, attacks):
    monkeypatch.chdir(tmp_path)
    net(tmp_path / "net.onnx")
    (tmp_path / "broken.vnnlib").write_text(prop(BROKEN))
    (tmp_path / "safe.vnnlib").write_text(prop(SAFE))
    more = [] if attacks is None else ["--attacks", attacks]
    assert main(["attack", "net.onnx", "broken.vnnlib", "--results", "answer.txt", *more]) == 10
    out = capsys.readouterr().out
    assert out.startswith("sat\n((X_0 ")
    assert (tmp_path / "answer.txt").read_text() == out
    assert main(["attack", "net.onnx", "safe.vnnlib", "--timeout", "1", *more]) in (20, 30)
    assert capsys.readouterr().out in ("unknown\n", "timeout\n")
