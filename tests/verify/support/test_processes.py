"""Tests of verify.support.processes: what is missing on a system is told, and nothing of it is imported before; nothing
of a process stays that ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from assay.verify.core.errors import UnsupportedError
from assay.verify.support import processes

ROOT = Path(__file__).parents[3]

ELSEWHERE = """
import sys
for name in ("fcntl", "resource"):
    sys.modules[name] = None  # importing it is an error
import assay.verify.support.child, assay.verify.programs.apart, assay.verify.support.executors.processes, assay.watchdog
import assay.benchmarks.harness.suite, assay.benchmarks.measure.startup, assay.benchmarks.measure.exact
import assay.commands.bench
"""


@pytest.mark.slow
def test_nothing_that_only_some_systems_have_is_imported_before_it_is_used() -> None:
    done = subprocess.run([sys.executable, "-c", ELSEWHERE], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_system_without_groups_of_processes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(processes.os, "killpg")
    with pytest.raises(UnsupportedError, match=f"which {sys.platform} does not have: use Linux or macOS"):
        processes.check_system()


@pytest.mark.parametrize(
    ("code", "words"),
    [(3, "ended with exit code 3"), (-9, "was killed by SIGKILL"), (-200, "was killed by signal 200")],
)
def test_a_death_is_told(code: int, words: str) -> None:
    assert processes.death(code) == f"the process {words}"


@pytest.mark.parametrize("begun", ["", "from multiprocessing import util; util.get_temp_dir(); "])
def test_the_folder_of_the_servers_socket_goes(tmp_path: Path, begun: str) -> None:
    code = f"{begun}import os; from assay.verify.support.processes import leave; print(os.listdir('.')); leave(20)"
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-u", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (20, "")
    assert ("pymp-" in done.stdout) == bool(begun)
    assert not list(tmp_path.iterdir())
