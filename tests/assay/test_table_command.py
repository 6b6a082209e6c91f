"""``assay table``: published figures beside measured ones, and what is said where data or networks are missing."""

from __future__ import annotations

import json

import pytest

from assay import options
from assay.__main__ import main
from assay.benchmarks import tables
from assay.benchmarks.harness.bracket import Role
from assay.benchmarks.harness.participants import participants_of
from assay.benchmarks.tables import published
from assay.verify import registry
from tests.assay.test_compare_command import Certain

SMALL = """
title = "Digits"
data = "digits"
norm = "inf"
protocol = "of a test"
methods = "ibp"
attacks = "fgsm"

[[figure]]
who = "A"
source = "S"
eps = 0.02
clean = 90
certified = 80
models = { digits = "zoo:digits-mlp-pgd" }

[[figure]]
who = "B"
source = "S"
eps = 0.05
certified = 70
train = { arch = "mlp(hidden=4)", recipe = "standard", epochs = 1, eval_n = 5 }
"""


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A folder to work in, and a table called small."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(published, "names", lambda: ["small"])
    monkeypatch.setattr("assay.benchmarks.tables.read", lambda name: published.parse(name, SMALL))
    return tmp_path


def test_tables_are_listed(capsys):
    assert main(["table", "--json"]) == 0
    listed = {each["name"]: each for each in json.loads(capsys.readouterr().out)["tables"]}
    assert listed["mnist-linf"]["norm"] == "linf"
    assert main(["table"]) == 0
    assert "cifar10-l2-smoothing" in capsys.readouterr().out


def test_published_figures_stand_beside_measured_ones(small, capsys):
    assert main(["table", "small", "--n", "8", "--json", "--quiet", "--model", "zoo:digits-mlp-ibp"]) == 0
    document = json.loads(capsys.readouterr().out)
    first, second, *own = document["lines"]
    assert (first["clean"], first["certified"], first["n"]) == (0.9, 0.8, 8)
    assert first["certified here"] <= first["standing here"] <= first["clean here"]
    assert first["certified from"] < first["certified here"] <= first["certified to"]
    assert (second["certified"], second["model"], second["certified here"]) == (0.7, None, None)
    assert [(line["who"], line["eps"]) for line in own] == [("zoo:digits-mlp-ibp", 0.02), ("zoo:digits-mlp-ibp", 0.05)]


def test_what_is_missing_is_trained_once(small, capsys):
    asked = ["table", "small", "--n", "4", "--train", "--quiet", "--format", "markdown"]
    assert main(asked) == 0
    shown = capsys.readouterr()
    assert "training small-2-digits-0 for B" in shown.err
    assert "small-2-digits-0" in (small / "out/small.markdown").read_text()
    assert main(asked) == 0
    assert "training" not in capsys.readouterr().err


def test_smoothed_classifiers_are_measured_as_such(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    smoothed = (
        SMALL.replace('norm = "inf"', 'norm = "2"')
        .replace('methods = "ibp"', 'methods = "smoothing(n=200,n0=20)"')
        .replace('attacks = "fgsm"', 'attacks = ""')
    )
    monkeypatch.setattr("assay.benchmarks.tables.read", lambda name: published.parse(name, smoothed))
    assert main(["table", "small", "--n", "3", "--json", "--quiet"]) == 0
    first = json.loads(capsys.readouterr().out)["lines"][0]
    assert first["certified here"] > 0
    assert first["standing here"] is None


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["mnist-linf"], "The same protocol on data that come along: assay table mnist-linf --data digits"),
        (["cifar10-linf", "--data", "digits"], "no network that comes along stands for a figure of cifar10-linf on"),
        (["mnist-linf", "--n", "0"], "--n"),
        (["mnist-lin"], "did you mean 'mnist-linf'"),
        (["mnist-linf", "--data", "digits", "--format", "pdf"], "unknown format 'pdf'"),
    ],
)
def test_what_cannot_be_measured_is_said(tmp_path, monkeypatch, capsys, asked, words):
    monkeypatch.chdir(tmp_path)
    assert main(["table", *asked]) == 40
    shown = capsys.readouterr()
    assert words in shown.err
    assert "Traceback" not in shown.err


def test_what_is_certified_and_broken_ends_with_70(small, monkeypatch, capsys):
    monkeypatch.setitem(registry.VERIFIERS, "certain", f"{Certain.__module__}:Certain")
    lying = SMALL.replace('methods = "ibp"', 'methods = "certain(lies=true)"').replace("eps = 0.02", "eps = 0.3")
    monkeypatch.setattr("assay.benchmarks.tables.read", lambda name: published.parse(name, lying))
    monkeypatch.setattr("assay.commands.table._write", _full)
    assert main(["table", "small", "--n", "8", "--json", "--quiet", "--format", "csv"]) == 70
    out, err = capsys.readouterr()
    assert json.loads(out)["lines"]
    assert "soundness alarm: certain(lies=True)" in err


def _full(*asked):
    """A disk, which hides no alarm."""
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("name", tables.names())
def test_whoever_certifies_a_figure_is_attacked(name):
    table = tables.read(name)
    for methods in {figure.methods or table.methods for figure in table.figures}:
        everybody = participants_of(options.methods(methods), options.attacks(table.attacks))
        certified, attacked = ({p.subject for p in everybody if p.role is role} for role in (Role.METHOD, Role.ATTACK))
        assert certified == attacked
