"""Tests of ``assay smooth``: the rows, the table, the picture, the document, the audit, the errors."""

from __future__ import annotations

import csv
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from assay import options
from assay.__main__ import main
from assay.benchmarks.harness import smoothed
from assay.verify.backends.smoothing import kinds
from assay.verify.backends.smoothing.method import Smoothing

MODEL = ["smooth", "--model", "zoo:digits-mlp-pgd", "--data", "digits", "--draws", "1000", "--n", "6"]


def test_help_names_every_noise_that_certifies_balls() -> None:
    assert set(options.NOISES) == set(get_args(kinds.Name)) - set(kinds.OF_PARAMETER)


@pytest.mark.slow
def test_rows_table_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*MODEL, "--out", str(tmp_path), "--radii", "0,0.1,0.3", "--skip", "10"]) == 0
    printed = capsys.readouterr().out
    assert "certified" in printed
    assert "confidence 0.999, all" in printed
    rows = list(csv.DictReader((tmp_path / "smooth.csv").read_text().splitlines()))
    assert [row["index"] for row in rows] == ["0", "10", "20", "30", "40", "50"]
    assert all(int(row["n"]) == 1000 and float(row["seconds"]) > 0 for row in rows)
    assert (tmp_path / "smooth.png").read_bytes().startswith(b"\x89PNG")
    document = json.loads((tmp_path / "smooth.json").read_text())
    points = document["curve"]
    assert [point["radius"] for point in points] == [0, 0.1, 0.3]
    assert [point["count"] for point in points] == [
        sum(row["correct"] == "1" and float(row["radius"]) > radius for row in rows) for radius in (0, 0.1, 0.3)
    ]
    assert all(point["low"] <= point["accuracy"] <= point["high"] for point in points)
    assert document["subject"] == "smoothed(gaussian, 0.25)"


@pytest.mark.slow
def test_json_is_one_document_and_seeds_repeat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    documents = []
    for seed in ("3", "3", "4"):
        assert main([*MODEL, "--n", "3", "--out", str(tmp_path), "--seed", seed, "--json"]) == 0
        documents.append(json.loads(capsys.readouterr().out))
    counts = [[row["successes"] for row in document["rows"]] for document in documents]
    assert counts[0] == counts[1]
    assert counts[0] != counts[2]


@pytest.mark.slow
def test_certificates_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    documents = {}
    for name in ("cohen", "renyi", "two-class", "soft"):
        assert main([*MODEL, "--n", "3", "--certificate", name, "--out", str(tmp_path), "--json"]) == 0
        told = capsys.readouterr()
        documents[name] = json.loads(told.out)
        assert documents[name]["certificate"] == name
        assert ("by renyi" in told.err) == (name == "renyi")
    weak, strong = ([row["radius"] for row in documents[name]["rows"]] for name in ("renyi", "cohen"))
    assert all(one < other for one, other in zip(weak, strong, strict=True) if other)
    assert documents["soft"]["subject"] == "smoothed(gaussian, 0.25, scores)"


@pytest.mark.slow
def test_the_audit_of_its_own_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*MODEL, "--sigma", "0.1", "--out", str(tmp_path)]) == 0
    log = str(tmp_path / "smooth.csv")
    stated = ["--sigma", "0.1", "--draws", "1000", "--alpha", "0.001"]
    capsys.readouterr()
    assert main(["smooth", "--audit", log, *stated]) == 0
    assert "every row can come from it" in capsys.readouterr().out
    assert main(["smooth", "--audit", log]) == 0
    assert "recovered: n = 1000, alpha = 0.001, sigma = 0.1" in capsys.readouterr().out
    assert main(["smooth", "--audit", log, "--sigma", "0.12", "--draws", "1000", "--alpha", "0.001", "--json"]) == 10
    document = json.loads(capsys.readouterr().out)
    assert document["fits"][0]["faults"]
    assert document["rows"] == 6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--model"),
        ([*MODEL, "--norm", "3"], "unknown norm"),
        ([*MODEL, "--sigma", "0"], "sigma"),
        ([*MODEL, "--noise", "pink"], "unknown noise"),
        ([*MODEL, "--draws", "0"], "n must be"),
        ([*MODEL, "--certificate", "magic"], "unknown certificate"),
        ([*MODEL, "--certificate", "renyi", "--noise", "laplace"], "for gaussian noise"),
        ([*MODEL, "--alpha", "2"], "alpha"),
        ([*MODEL, "--radii", "near"], "--radii"),
        ([*MODEL, "--radii", "-1"], "--radii"),
        (["smooth", "--audit", "/nowhere"], "cannot read the log"),
    ],
)
def test_mistakes_are_one_clear_line(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*(arguments or ["smooth"]), "--out", str(tmp_path)]) == 40
    assert words in capsys.readouterr().err


def test_the_audit_of_pixels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    erasing = ["--noise", "ablation", "--keep", "0.3"]
    assert main([*MODEL[:-2], "--n", "2", "--draws", "200", *erasing, "--out", str(tmp_path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["norm"] == "l0"
    assert [point["radius"] for point in document["curve"]] == [0, 1, 2, 3, 5]
    assert document["subject"] == "smoothed(ablation, keep 0.3)"
    log = str(tmp_path / "smooth.csv")
    assert main(["smooth", "--audit", log, *erasing, "--draws", "200", "--alpha", "0.001"]) == 0
    assert "every row can come from it" in capsys.readouterr().out
    assert main(["smooth", "--audit", log, *erasing]) == 40
    assert "--keep" in capsys.readouterr().err
    assert main([*MODEL, "--noise", "ablation", "--norm", "2"]) == 40
    assert "l0 is for the noises" in capsys.readouterr().err


@pytest.fixture
def swollen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every radius is 5, far more than any of them holds."""
    honest = Smoothing.certify

    def certify(self: Smoothing, *asked: object) -> object:
        return replace(honest(self, *asked), radius=5.0)  # type: ignore[arg-type]

    monkeypatch.setattr(Smoothing, "certify", certify)


@pytest.mark.usefixtures("swollen")
def test_an_answer_that_changes_within_its_radius_ends_with_70(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*MODEL[:-4], "--draws", "100", "--n", "2", "--out", str(tmp_path), "--quiet", "--json"]) == 70
    out, err = capsys.readouterr()
    assert any(row["broken"] for row in json.loads(out)["rows"])
    assert "soundness alarm: the vote on sample" in err
    assert (tmp_path / "smooth.csv").exists()


@pytest.mark.usefixtures("swollen")
def test_an_alarm_does_not_hide_behind_an_interrupt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(rows: list[smoothed.Row]) -> str:
        if len(rows) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return ""

    monkeypatch.setattr(smoothed, "table_text", interrupted)
    assert main([*MODEL[:-4], "--draws", "100", "--n", "3", "--out", str(tmp_path), "--quiet"]) == 70
    assert "soundness alarm: the vote on sample 0" in capsys.readouterr().err
