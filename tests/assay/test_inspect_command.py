"""``assay inspect``: the operations, their parameters, and the neurons that a radius leaves open."""

import json

import pytest

from assay.__main__ import main
from assay.verify.registry import VERIFIERS

MODEL = """
import torch
def net():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        model[1].weight[:, 0] = 1.0
        model[1].bias.copy_(torch.tensor([-0.5, -2.0, 1.0]))  # within 0.25 of 0.5: open, never on, always on
    return model.eval()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    import numpy as np

    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(MODEL)
    np.savez(tmp_path / "data.npz", x=np.full((2, 1, 8, 8), 0.5, np.float32), y=np.array([0, 1]))
    return tmp_path


def test_layers_and_parameters(folder, capsys):
    assert main(["inspect", "net.py:net", "--input-shape", "1,8,8", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["input"], document["outputs"], document["dtype"]) == ([1, 8, 8], 2, "float32")
    held = [(layer["operation"], layer["parameters"]) for layer in document["layers"]]
    assert held == [("Input", 0), ("Reshape", 0), ("Linear", 195), ("Relu", 0), ("Linear", 8)]
    assert document["parameters"] == 203
    assert document["unstable"] is None


def test_unstable_neurons_are_counted_by_layer(folder, capsys):
    asked = ["inspect", "net.py:net", "--data", "data.npz", "--eps", "1/4", "--index", "1"]
    assert main([*asked, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [layer["unstable"] for layer in document["layers"]] == [None, None, None, 1, None]
    assert (document["unstable"], document["activations"]) == (1, 3)
    assert main(asked) == 0
    assert "activations that are unstable by intervals: 1 of 3" in capsys.readouterr().out


def test_who_can_read_it_and_what_it_costs(folder, capsys):
    asked = ["inspect", "net.py:net", "--data", "data.npz", "--eps", "1/4", "--json", "--report", "page.html"]
    assert main(asked) == 0
    by = {each["method"]: each for each in json.loads(capsys.readouterr().out)["methods"]}
    assert sorted(by) == sorted(VERIFIERS)
    assert by["crown"]["why_not"] is None
    assert "more than the 16" in by["input-split"]["why_not"]
    # one row for the unstable neuron through 192 of 198 multiplications, and two outputs
    assert by["crown"]["cost"] == "about 3 passes"
    assert by["milp"]["cost"] == "an integer program of 1 binary variable"
    assert by["lipsdp"]["cost"] == "a semidefinite program of 67 rows, once for all samples"
    assert by["smoothing"]["cost"] == "100100 passes"
    assert all(each["cost"] for each in by.values())
    page = (folder / "page.html").read_text()
    assert "1 of 3" in page
    assert "about 3 passes" in page


def test_a_page_takes_no_name_for_markup(folder, capsys):
    (folder / "<b>x.py").write_text(MODEL)
    assert main(["inspect", "<b>x.py:net", "--input-shape", "64", "--report", "page.html"]) == 0
    assert "<b>" not in (folder / "page.html").read_text()
    assert "wrote page.html" in capsys.readouterr().out


def test_zoo_networks_know_their_shape(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["inspect", "zoo:digits-mlp-pgd"]) == 0
    shown = capsys.readouterr().out
    assert "6310 parameters in float32, 10 outputs" in shown
    assert "Linear" in shown


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([], "pass --input-shape"),
        (["--input-shape", "1,x"], "--input-shape: expected whole numbers"),
        (["--data", "data.npz", "--eps", "0.1,0.2"], "--eps: expected one radius"),
        (["--data", "data.npz", "--eps", "0.1", "--index", "2"], "has 2 samples, counted from 0, got 2"),
        (["--data", "data.npz", "--eps", "0.1", "--input-shape", "64"], "expected samples of shape (64,)"),
    ],
)
def test_bad_input(folder, capsys, more, words):
    assert main(["inspect", "net.py:net", *more]) == 40
    assert words in capsys.readouterr().err
