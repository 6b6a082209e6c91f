"""Tests of verify.programs.apart: solvers that overrun their time are stopped, and nothing else changes."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from assay.verify.programs import apart
from assay.verify.programs.apart import Apart
from assay.verify.programs.loading import get_solver, load
from assay.verify.programs.program import Answer, Program, Status, Vector
from assay.verify.programs.solver import Model
from assay.verify.programs.start import Begin
from assay.verify.support.child import ChildDied
from tests.breadth import slow
from tests.verify.programs.test_loading import random_program


@dataclass(frozen=True)
class Slow:
    """A solver that does ``what`` before it claims that there is no point; the value counts its solves."""

    what: str = ""
    tolerance: ClassVar[float] = 1e-9
    punctual: ClassVar[bool] = False
    drops: ClassVar[float] = 1e-9

    def load(self, program: Program, threads: int, seed: int) -> Model:
        return Deaf(self.what)


@dataclass
class Deaf:
    what: str
    solves: int = 0

    def solve(self, cost: Vector, seconds: float, target: float, begin: Begin) -> Answer:
        if self.what.startswith("sleep"):
            os.system(self.what)
        elif self.what:
            raise ValueError(self.what)
        self.solves += 1
        return Answer(Status.INFEASIBLE, value=float(os.getpid()), bound=float(self.solves))


@pytest.mark.slow
def test_a_solver_that_overruns_is_killed_with_all_that_it_started() -> None:
    length = f"1{os.getpid()}"
    answer = load(Slow(f"sleep {length}"), random_program(0)).solve(seconds=0.5)
    assert answer.status is Status.TIMEOUT
    for _ in range(1200):
        if not any(f"sleep\0{length}" in _command(path) for path in Path("/proc").glob("[0-9]*")):
            return
        time.sleep(0.05)
    pytest.fail("a process is left behind")


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_text()
    except OSError:  # it has ended
        return ""


def test_no_time_is_a_timeout() -> None:
    assert load(Slow(), random_program(0)).solve(seconds=0.0).status is Status.TIMEOUT


def test_an_exception_is_a_failure() -> None:
    answer = load(Slow("broken"), random_program(0)).solve()
    assert answer.status is Status.FAILED
    assert "broken" in answer.message


@dataclass(frozen=True)
class Crashing:
    """A solver that is killed by its own mistake in the first ``crashes`` solves, which it counts in ``record``."""

    record: Path
    crashes: int
    tolerance: ClassVar[float] = 1e-9
    punctual: ClassVar[bool] = False
    drops: ClassVar[float] = 1e-9

    def load(self, program: Program, threads: int, seed: int) -> Crashing:
        return self

    def solve(self, cost: Vector, seconds: float, target: float, begin: Begin) -> Answer:
        with self.record.open("a") as file:
            file.write(f"{seconds}\n")
        if len(self.record.read_text().splitlines()) <= self.crashes:
            time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGSEGV)
        return Answer(Status.INFEASIBLE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("crashes", "solves", "status"),
    [slow(0, 1, Status.INFEASIBLE), slow(1, 2, Status.INFEASIBLE), (9, 2, Status.FAILED)],
)
def test_a_crash_is_made_good_once(tmp_path: Path, crashes: int, solves: int, status: Status) -> None:
    answer = load(Crashing(tmp_path / "record", crashes), random_program(0)).solve(seconds=60.0)
    assert answer.status is status
    assert ("SIGSEGV" in answer.message) == (status is Status.FAILED)
    times = [float(line) for line in (tmp_path / "record").read_text().splitlines()]
    assert len(times) == solves
    assert all(later < earlier - 0.1 for earlier, later in pairwise(times))


def test_a_crash_at_the_end_of_the_time_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(function: object, arguments: object, seconds: float) -> Answer:
        time.sleep(seconds)
        raise ChildDied("killed by SIGSEGV")

    monkeypatch.setattr(apart, "in_child", crash)
    answer = load(Slow(), random_program(0)).solve(seconds=0.05)
    assert (answer.status, answer.message) == (Status.FAILED, "killed by SIGSEGV")


def test_a_model_is_loaded_once_in_another_process() -> None:
    first, second = (Apart(Slow(), random_program(i), 1, 0) for i in range(2))

    def solve(model: Apart) -> Answer:
        return model.solve(np.zeros(8), 60.0, 0.0, lambda: None)

    assert [solve(model).bound for model in (first, first, second, first)] == [1, 2, 1, 1]
    assert solve(first).value != os.getpid()


def test_answers_are_those_of_the_solver_at_home() -> None:
    program = random_program(11)
    loaded = load(get_solver("scipy"), program)
    assert isinstance(loaded.model, Apart)
    for seed in range(3):
        cost = np.random.default_rng(seed).normal(size=8)
        want = get_solver("scipy").load(program, 1, 0).solve(cost, 60.0, 0.0, lambda: None)
        answer = loaded.solve(cost)
        assert answer.value == pytest.approx(want.value, abs=1e-9)
        assert answer.duals is not None
