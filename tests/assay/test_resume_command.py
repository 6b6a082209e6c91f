"""``assay compare --resume`` after a kill, a signal, a full disk, and beside a second run."""

import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from assay.__main__ import main
from assay.verify import registry
from assay.verify.core.result import Result, Verdict
from tests import commands
from tests.assay.test_compare_command import MODEL, Certain
from tests.breadth import slow

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Slow(Certain):
    """Verifies every third problem, 20 ms each."""

    name: ClassVar[str] = "slow"

    def verify(self, problem, budget):
        time.sleep(0.02)
        if int(problem.id[:6], 16) % 3:
            return super().verify(problem, budget)
        return Result(problem.id, repr(self), Verdict.VERIFIED, margin=1e-9)


def arguments(out, *more):
    usual = ["compare", "--model", "net.py:net", "--eps", "0.001,0.002", "--methods", "slow", "--attacks", "fgsm"]
    return [*usual, "--n", "40", "--batch", "8", "--out", out, *more]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(registry.VERIFIERS, "slow", f"{__name__}:Slow")
    (tmp_path / "net.py").write_text(MODEL)
    return tmp_path


def start(out, *more):
    return commands.start(Path.cwd(), arguments(out, *more), methods={"slow": f"{__name__}:Slow"})


def stored(out, columns):
    path = Path(out) / "results.sqlite"
    if not path.exists():
        return []
    db = sqlite3.connect(path, timeout=60)
    try:
        return db.execute(f"SELECT problem, method, {columns} FROM results ORDER BY problem, method").fetchall()
    except sqlite3.OperationalError:  # not yet made
        return []
    finally:
        db.close()


def wait_for_rows(process, out, count):
    while len(stored(out, "run")) < count and process.poll() is None:
        time.sleep(0.01)
    assert process.poll() is None, process.said("stderr")


def whole(capsys):
    """The table of a run that nobody disturbs."""
    assert main(arguments("whole")) == 0
    capsys.readouterr()
    return stored("whole", "verdict, reason, margin")


def test_killed_and_resumed_is_as_good_as_undisturbed(folder, capsys):
    table = whole(capsys)
    process = start("out")
    wait_for_rows(process, "out", len(table) // 3)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=300)
    finished = set(stored("out", "run, decided"))
    assert 0 < len(finished) < len(table)
    assert main(arguments("out", "--resume")) == 0
    assert f"{len(finished)} verdicts taken from out/results.sqlite" in capsys.readouterr().err
    after = stored("out", "run, decided")
    assert finished <= set(after)
    assert len(after) == len(table)
    assert stored("out", "verdict, reason, margin") == table
    assert main(arguments("out", "--resume")) == 0
    assert f"{len(table)} verdicts taken" in capsys.readouterr().err
    assert stored("out", "run, decided") == after


@pytest.mark.parametrize("number", [signal.SIGINT, slow(signal.SIGTERM)])
def test_a_signal_ends_with_130_and_keeps_what_is_finished(folder, number):
    process = start("out")
    wait_for_rows(process, "out", 3)
    process.send_signal(number)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    lines = err.splitlines()
    assert lines[-2:] == [
        "assay: what was finished is in out/results.sqlite; --resume goes on from there",
        "assay: interrupted",
    ]
    assert "Traceback" not in err
    assert len(stored("out", "run")) >= 3


def test_a_second_signal_ends_at_once():
    code = (
        "import signal, os, time\n"
        "from assay.verify.support.signals import interruptible\n"
        "with interruptible():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT); time.sleep(60)\n"
        "    except KeyboardInterrupt:\n"
        "        os.kill(os.getpid(), signal.SIGTERM); time.sleep(60); os._exit(1)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 130


@pytest.mark.slow  # as of assay bench, which is tested each time
def test_two_runs_on_one_store_lose_nothing(folder, capsys):
    table = whole(capsys)
    other = start("out")
    wait_for_rows(other, "out", 1)
    assert main(arguments("out", "--resume")) == 0
    _, err = other.communicate(timeout=300)
    assert other.returncode == 0, err
    assert stored("out", "verdict, reason, margin") == table


@pytest.mark.slow
def test_unreadable_rows_are_shown_and_computed_again(folder, capsys):
    table = whole(capsys)
    db = sqlite3.connect("whole/results.sqlite")
    db.execute("UPDATE results SET result = '{' WHERE problem = ? AND method = ?", table[0][:2])
    db.execute("UPDATE results SET source = 'other' WHERE problem = ? AND method = ?", table[1][:2])
    db.commit()
    db.close()
    assert main(arguments("whole", "--resume")) == 0
    err = capsys.readouterr().err
    assert "whole/results.sqlite: moved to its table quarantine: problem" in err
    assert "1 row by another version of assay: kept, but not used" in err
    assert f"{len(table) - 2} verdicts taken" in err
    assert set(table) <= set(stored("whole", "verdict, reason, margin"))


def test_a_full_disk_is_60_in_one_line_and_the_old_files_stay(folder, capsys, monkeypatch):
    table = whole(capsys)
    before = (folder / "whole" / "summary.json").read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert main(arguments("whole", "--resume")) == 60
    assert capsys.readouterr().err.splitlines()[-1] == "assay: error: No space left on device: whole/summary.json"
    assert (folder / "whole" / "summary.json").read_bytes() == before
    assert sorted(p.name for p in (folder / "whole").iterdir()) == ["bracket.png", "results.sqlite", "summary.json"]
    assert stored("whole", "verdict, reason, margin") == table
