"""``assay merge``: what it takes, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.__main__ import main
from assay.benchmarks.harness.records.store import Store
from assay.verify.core.result import Verdict
from tests.benchmarks.harness.records.test_merged import made, record


def test_stores_become_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (made(tmp_path / name, name, [record(name)]) for name in ("one", "two"))
    assert main(["merge", str(tmp_path / "all"), str(one), str(two)]) == 0
    assert "holds 2 runs and 3 rows" in capsys.readouterr().out
    with Store(tmp_path / "all") as store:
        assert store.size == 3


def test_runs_in_which_nobody_was_asked_are_merged_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As where every sample is misclassified without an attack."""
    for name in ("one", "two"):
        with Store(tmp_path / name) as store:
            store.begin(name, "zoo:net", "digits")
            store.noted.describe(store.run, 1, f'{{"of": "{name}"}}')
    assert main(["merge", str(tmp_path / "all"), str(tmp_path / "one"), str(tmp_path / "two")]) == 0
    told = capsys.readouterr().out
    assert "holds 2 runs and 0 rows" in told
    assert "every sample was misclassified" in told
    with Store(tmp_path / "all") as store:
        assert [document for _, document in store.noted.described().values()] == ['{"of": "one"}', '{"of": "two"}']


def test_a_contradiction_is_an_alarm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = made(tmp_path / "one", "one", [record("a")])
    two = made(tmp_path / "two", "two", [record("a", Verdict.FALSIFIED)])
    assert main(["merge", str(tmp_path / "all"), str(one), str(two)]) == 70
    assert "contradict each other in 1 row: a by m()" in capsys.readouterr().err


def test_what_cannot_be_merged_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    one = made(tmp_path / "one", "one", [record("a")])
    assert main(["merge", str(tmp_path / "all"), str(one), str(tmp_path / "none")]) == 40
    assert main(["merge", str(one), str(one)]) == 40
    assert not (tmp_path / "all").exists()
