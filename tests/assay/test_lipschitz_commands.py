"""Lipschitz and semidefinite methods from the command line: ``compare`` and ``radius`` take each of them."""

import json
from itertools import pairwise

import pytest

from assay.__main__ import main
from tests.breadth import few

METHODS = {
    "lipschitz": ["1", "2", "inf"],
    "lipschitz(scope=local)": ["1", "2", "inf"],
    "lipschitz(scope=local,steps=3)": ["2"],
    "lipsdp(rows=together)": ["1", "2", "inf"],
    "sdp": ["2", "inf"],
}


@pytest.fixture
def model(tmp_path, monkeypatch):
    """The text that names a small network of the digits, in a fresh working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        "import torch\n"
        "def net():\n"
        "    torch.manual_seed(0)\n"
        "    linear = torch.nn.Linear(64, 10)\n"
        "    from assay.models import data\n"
        "    d = data.load('digits', 'train').take(500)\n"
        "    x = torch.cat([d.x.flatten(1), torch.ones(500, 1)], 1)\n"
        "    w = torch.linalg.lstsq(x, torch.nn.functional.one_hot(d.y, 10).float(), driver='gelsd').solution.T\n"
        "    linear.weight.data, linear.bias.data = w[:, :64].contiguous(), w[:, 64].contiguous()\n"
        "    last = torch.nn.Linear(10, 10)\n"
        "    last.weight.data, last.bias.data = torch.eye(10), torch.zeros(10)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), linear, torch.nn.ReLU(), last).eval()\n"
    )
    return "net.py:net"


@pytest.mark.slow
@pytest.mark.parametrize("norm", few(["1", "2", "inf"], quick=["2"]))
def test_compare_takes_them_all(model, norm, capsys):
    methods = [text for text, norms in METHODS.items() if norm in norms]
    asked = ["--model", model, "--data", "digits", "--eps", "0.001", "--n", "4", "--norm", norm]
    assert main(["compare", *asked, "--methods", ",".join(methods), "--attacks", "pgd", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    rows = {row["method"]: row for row in document["rows"] if row.get("method") in methods}
    assert set(rows) == set(methods)
    assert all(row["n"] == 4 for row in rows.values())
    assert all(row["verified"] >= 2 for row in rows.values())
    assert document["alarms"] == []


@pytest.mark.parametrize("method", few(METHODS, quick=list(METHODS)[:2]))
def test_radius_takes_them_all(model, method, capsys):
    asked = ["--model", model, "--method", method, "--norm", "2", "--tolerance", "0.02", "--timeout", "5"]
    assert main(["radius", *asked, "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["samples"]
    assert 0 < entry["certified"] <= entry["attacked"]


@pytest.mark.slow
def test_local_radii_are_no_smaller(model, capsys):
    certified = []
    for method in ("lipschitz", "lipschitz(scope=local)"):
        assert (
            main(["radius", "--model", model, "--method", method, "--norm", "2", "--tolerance", "0.01", "--json"]) == 0
        )
        certified.append(json.loads(capsys.readouterr().out)["samples"][0]["certified"])
    assert all(a <= b + 0.01 for a, b in pairwise(certified))
