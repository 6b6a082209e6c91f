"""Bounds side by side: rows and ratios, the networks, and measurements that leave out what is not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from assay.benchmarks.measure import bounds
from assay.benchmarks.measure.bounds import METHODS, beside
from assay.benchmarks.measure.bounds_nets import MADE, Subject, seeded, subject
from assay.benchmarks.measure.bounds_once import measure
from assay.models import zoo
from assay.verify.core.errors import InputError
from assay.verify.core.network import to_network
from assay.verify.frontends.onnx import write_onnx
from tests import nets


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    path = tmp_path / "tiny.onnx"
    write_onnx(to_network(nets.random_mlp(0), (4,)), path)
    return str(path)


@pytest.mark.slow  # processes of its own
def test_the_command_measures_ours_alone(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.json"
    options = ["--methods", "crown", "--batches", "2", "--dtypes", "float64", "--repeat", "1", "--only", "ours"]
    bounds.main(["--onnx", f"{tiny}@0.1", *options, "--json", str(file)])
    document = json.loads(file.read_text())
    (row,) = document["rows"]
    assert set(document) == {"peer", "rows", "load"}
    assert document["peer"] is None
    assert (row["batch"], row["method"], row["dtype"], row["peer"]) == (2, "crown", "float64", None)
    assert set(row["ours"]) == {"what", "first", "seconds", "calls", "before", "peak", "margin"}
    assert row["ours"]["calls"] == 1
    assert 0 < row["ours"]["before"] <= row["ours"]["peak"]
    assert "crown" in capsys.readouterr().out


def test_all_of_the_zoo_has_a_name() -> None:
    assert bounds.named("resnet18,zoo,digits-mlp-pgd@0.1,") == ["resnet18", *zoo.names(), "digits-mlp-pgd@0.1"]
    assert bounds.named("") == []


def test_tighter_methods_have_larger_margins(tiny: str) -> None:
    given = subject(f"{tiny}@0.1@clip", 3)
    figures = [measure("ours", given, method, "float32", 0, 9.0) for method in METHODS]
    assert [once.what for once in figures] == [
        "ibp(dtype=float32)",
        "crown-ibp(dtype=float32)",
        "crown(dtype=float32)",
        figures[3].what,
    ]
    margins = [once.margin for once in figures]
    assert margins == sorted(margins)
    assert all(once.calls == 0 and once.seconds == once.first for once in figures)


@pytest.mark.parametrize("name", ["mlp-256x4", "resnet10-w8"])
def test_made_networks_are_the_same_each_time_and_of_sensible_size(name: str) -> None:
    first, again = subject(name, 2), subject(name, 2)
    assert first.network.id == again.network.id
    assert first.box.lower.equal(again.box.lower)
    out = first.network(torch.rand(8, *first.network.input_shape, dtype=torch.float64))
    assert 0.2 < float(out.std()) < 5


def test_large_networks_have_their_layers() -> None:
    count = {name: sum(p.numel() for p in MADE[name].build().parameters()) for name in ("resnet18", "vgg11")}
    assert count == {"resnet18": 11_173_962, "vgg11": 9_225_610}
    assert not seeded(MADE["resnet10-w8"]).training


def test_zoo_networks_come_with_their_images() -> None:
    given = subject("digits-mlp-pgd@0.05", 3)
    assert isinstance(given, Subject)
    assert given.box.lower.shape == (3, 1, 8, 8)
    assert given.objective.shape == (3, 9, 10)
    assert float((given.box.upper - given.box.lower).amax()) == pytest.approx(0.1, rel=1e-5)
    with pytest.raises(InputError):
        subject("no-such-net", 1)
    with pytest.raises(InputError):
        subject("mlp-256x4@0.1@other", 1)


def test_ratios_are_ours_to_theirs() -> None:
    def side(seconds: float, peak: float, margin: float) -> dict[str, float]:
        return {"seconds": seconds, "peak": peak, "margin": margin}

    row = beside("net", 1, "crown", "float32", side(1.0, 300.0, 0.5), side(4.0, 200.0, 0.4))
    assert (row.time_ratio, row.memory_ratio, row.margins) == (0.25, 1.5, "better")
    assert beside("net", 1, "ibp", "float32", side(1, 1, 0.4), side(1, 1, 0.5)).margins == "worse"
    assert beside("net", 1, "ibp", "float32", side(1, 1, -9e6), side(1, 1, -9.00001e6)).margins == "equal"
    assert beside("net", 1, "ibp", "float32", side(1, 1, 1), {"error": "it fails"}).time_ratio is None


def test_without_the_peer_ours_is_measured_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def run(arguments: list[str], seconds: float) -> dict[str, object]:
        asked.append(arguments[0])
        return {"error": "auto_LiRPA is not installed"} if arguments == ["release"] else {"error": "it fails"}

    monkeypatch.setattr(bounds, "run", run)
    with pytest.raises(SystemExit, match="it fails"):
        bounds.main(["--nets", "digits-mlp-pgd"])
    assert asked == ["release", "make"]
    assert "ours is measured alone: auto_LiRPA is not installed" in capsys.readouterr().err


@pytest.mark.slow
def test_failures_are_said() -> None:
    assert "no-such-net" in bounds.run(["make", "no-such-net", "1", "nowhere"], 9.0)["error"]


@pytest.mark.parametrize(
    "arguments", [["--methods", "none"], ["--batches", "0"], ["--repeat", "-1"], ["--dtypes", "float16"]]
)
def test_other_arguments_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        bounds.main(arguments)
