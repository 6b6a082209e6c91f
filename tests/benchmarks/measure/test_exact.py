"""Exact methods side by side: rows, agreement, and CPU seconds that leave out no process."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from assay.benchmarks.measure import exact, trained
from assay.benchmarks.measure.exact import ALARM, Suite, Table, cpu_seconds
from assay.benchmarks.measure.trained import Net
from assay.verify.support.child import in_child


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trained.NETS, "tiny", Net("digits", (5,), 0.05, epochs=1, batch=64, lr=1e-2, steps=1))
    suite = Suite("tiny", 0.05, 3, ("milp", "lp-bab"), ("milp", "lp-bab"))
    monkeypatch.setattr(exact, "SUITES", {"tiny": suite, "pixels": Suite("tiny", 1.0, 2, ("milp", "smt"), pixels=3)})


@pytest.mark.slow
def test_every_method_has_its_rows(tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exact.main([str(tmp_path / "nets"), "--json"])
    document = json.loads(capsys.readouterr().out)
    rows = document["rows"]
    assert [(r["suite"], r["asked"], r["method"]) for r in rows] == [
        ("tiny", "sign", "milp"),
        ("tiny", "sign", "lp-bab"),
        ("tiny", "optimum", "milp(optimum=True)"),
        ("tiny", "optimum", "lp-bab(optimum=True)"),
        ("pixels", "sign", "milp"),
        ("pixels", "sign", "smt"),
    ]
    assert all(r["verified"] + r["falsified"] == r["cases"] > 0 == r["unknown"] for r in rows)
    assert all((r["difference"] is not None and r["difference"] <= 1e-6) == (r["asked"] == "optimum") for r in rows)
    assert all(0 < r["median"] <= r["most"] <= r["cpu"] for r in rows)
    assert [p["model"] for p in document["programs"]] == ["layer 1", "layer 2"]
    assert document["alarms"] == []


def test_networks_are_trained_once(tiny: None, tmp_path: Path) -> None:
    first = trained.trained("tiny", tmp_path)
    (path,) = tmp_path.iterdir()
    stamp = path.stat().st_mtime_ns
    again = trained.trained("tiny", tmp_path)
    assert path.stat().st_mtime_ns == stamp
    assert all(first.state_dict()[k].equal(v) for k, v in again.state_dict().items())


def test_contradictions_are_alarms() -> None:
    table = Table()
    table.verdict("s", 0, "a", "verified")
    table.verdict("s", 0, "b", "falsified")
    table.verdict("s", 1, "b", "falsified")
    assert table.optimum("s", 0, "a", 1.0) == 0
    assert table.optimum("s", 0, "b", 1.0 + 1e-8) == pytest.approx(1e-8)
    table.optimum("s", 0, "c", 1.1)
    table.optimum("s", 0, "d", float("nan"))
    assert len(table.alarms) == 3


def test_an_alarm_is_the_exit_code(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Table, "verdict", lambda self, *about: self.alarms.append("told to"))
    with pytest.raises(SystemExit) as stopped:
        exact.main([str(tmp_path), "--suites", "tiny", "--no-optimum", "--samples", "1"])
    assert stopped.value.code == ALARM
    assert "told to" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/proc").exists(), reason="living processes are counted on Linux only")
def test_seconds_of_other_processes_count() -> None:
    begun = cpu_seconds()
    in_child(eval, ("sum(range(20_000_000))",))
    assert cpu_seconds() - begun > 0.1
    begun = cpu_seconds()
    os.system("python3 -c 'sum(range(20_000_000))'")
    assert cpu_seconds() - begun > 0.1


@pytest.mark.parametrize("arguments", [[], ["nets", "--suites", "none"], ["nets", "--seconds", "0"]])
def test_other_arguments_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        exact.main(arguments)
