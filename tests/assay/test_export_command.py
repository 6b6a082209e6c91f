"""``assay export``: every form of a model becomes an ONNX file that the other commands take."""

import json
from pathlib import Path

import pytest

from assay.__main__ import main
from assay.models import zoo
from assay.verify.core.network import to_network
from assay.verify.frontends.onnx import read_onnx

FACTORY = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10)).eval()
"""


def exported(capsys, *arguments):
    code = main(["export", *map(str, arguments)])
    output = capsys.readouterr()
    return code, output.out, output.err


def test_a_zoo_network(capsys, tmp_path):
    path = tmp_path / "net.onnx"
    code, out, _ = exported(capsys, "zoo:digits-mlp-pgd", path)
    assert code == 0
    assert "input [1, 8, 8], output [10]" in out
    assert read_onnx(path).id == to_network(zoo.load("digits-mlp-pgd"), (1, 8, 8)).id


def test_a_label_is_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("label.py").write_text(
        "import torch\n\nclass Label(torch.nn.Module):\n"
        "    def forward(self, x):\n        return x.argmax(-1)\n\ndef net():\n    return Label().eval()\n"
    )
    code, _, err = exported(capsys, "label.py:net", "net.onnx", "--input-shape", "3")
    assert code == 50
    assert "ends in its scores" in err
    assert not Path("net.onnx").exists()


@pytest.mark.slow
def test_an_exported_network_is_compared_like_the_original(capsys, tmp_path):
    path = tmp_path / "net.onnx"
    exported(capsys, "zoo:digits-mlp-pgd", path)
    rows = []
    for model in ("zoo:digits-mlp-pgd", str(path)):
        arguments = ["--eps", "0.05", "--n", "12", "--attacks", "pgd", "--methods", "crown"]
        assert main(["compare", "--model", model, *arguments, "--out", str(tmp_path / "out"), "--json"]) == 0
        listed = json.loads(capsys.readouterr().out)["rows"]
        rows.append([(row["verified"], row["falsified"], row["unknown"]) for row in listed])
    assert rows[0] == rows[1]


def test_a_factory_needs_a_shape(capsys, tmp_path):
    code = tmp_path / "nets.py"
    code.write_text(FACTORY)
    path = tmp_path / "net.onnx"
    status, _, error = exported(capsys, f"{code}:net", path)
    assert status == 40
    assert "--input-shape" in error
    assert not path.exists()
    status, out, _ = exported(capsys, f"{code}:net", path, "--input-shape", "1, 8,8", "--json")
    assert status == 0
    document = json.loads(out)
    assert (document["input"], document["output"]) == ([1, 8, 8], [10])
    assert document["bytes"] == path.stat().st_size


@pytest.mark.slow
def test_an_onnx_file_is_written_again(capsys, tmp_path):
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    exported(capsys, "zoo:digits-cnn-pgd", first)
    assert exported(capsys, first, second)[0] == 0
    assert read_onnx(first).id == read_onnx(second).id


@pytest.mark.parametrize(
    ("model", "path", "options", "words"),
    [
        ("zoo:digits-mlp-pgd", "net.pt", [], "ends in .onnx"),
        ("zoo:digits-mlp-pgd", "nowhere/net.onnx", [], "cannot write"),
        ("zoo:digits-mlp-pgd", "net.onnx", ["--input-shape", "3,32,32"], "shape (3, 32, 32)"),
        ("zoo:digits-mlp-pgd", "net.onnx", ["--input-shape", "3,x"], "whole numbers"),
        ("zoo:digits-mlp-pgd", "net.onnx", ["--input-shape", "3,-1"], "whole numbers"),
        ("zoo:none", "net.onnx", [], "unknown zoo model"),
    ],
)
def test_what_cannot_be_exported(capsys, tmp_path, model, path, options, words):
    code, out, error = exported(capsys, model, tmp_path / Path(path), *options)
    assert code == 40
    assert not out
    assert words in error
    assert not list(tmp_path.iterdir())
