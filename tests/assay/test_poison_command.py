"""Tests of ``assay poison``: the table, the document, the errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from assay.__main__ import main

QUICK = ["poison", "--epochs", "4", "--hidden", "12", "--parts", "12", "--count", "12", "--quiet"]


def test_the_table_and_the_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, "--out", str(tmp_path), "--json", "--radii", "0,3"]) == 0
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert json.loads((tmp_path / "poison.json").read_text()) == document
    assert [one["name"] for one in document["detectors"]] == ["spectral", "filtered", "influence"]
    assert [point["samples"] for point in document["partition"]["curve"]] == [0, 3]
    assert "nothing removed" in told.err
    assert "vote of 12" in told.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--learner", "forest"], "unknown learner"),
        (["--radii", "0.5"], "whole numbers"),
        (["--parts", "0"], "--parts"),
        (["--count", "9999"], "asked for 9999"),
        (["--target", "1"], "two classes"),
    ],
)
def test_bad_usage_is_told(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, *arguments]) == 40
    assert words in capsys.readouterr().err
