"""Tests of benchmarks.measure.widths."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from assay.benchmarks.measure.widths import OPERATIONS, main


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_point_is_cut(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "widths.json"
    assert main(["--operations", name, "--boxes", "8", "--only", "ours", "--json", str(file)]) == 0
    rows = json.loads(file.read_text())["rows"]
    assert len(rows) == 6
    for row in rows:
        assert row["cut"] == 0
        assert row["width"] >= row["seen"]
    assert f"{name}, mixed, crown" in capsys.readouterr().out


def test_unknown_operations_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--operations", "softmax,nothing"])
    assert "got nothing" in capsys.readouterr().err
