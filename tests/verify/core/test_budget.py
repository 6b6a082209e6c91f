"""Budgets: the clock starts with the work, a deadline is shared, impossible limits are refused."""

from __future__ import annotations

import time
from dataclasses import replace
from math import inf, nan
from typing import Any

import pytest

from assay.verify.core.budget import UNLIMITED, Budget
from assay.verify.core.errors import InputError


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still until the test moves it."""
    now = [1000.0]
    monkeypatch.setattr("assay.verify.core.budget.time.monotonic", lambda: now[0])
    return now


def test_the_clock_starts_with_the_work(clock: list[float]) -> None:
    budget = Budget(seconds=5)
    clock[0] += 100
    assert budget.remaining == 5
    assert not budget.expired
    running = budget.started()
    clock[0] += 2
    assert running.remaining == 3
    assert budget.remaining == 5
    clock[0] += 3
    assert running.remaining == 0
    assert running.expired
    clock[0] += 1
    assert running.remaining == -1
    assert running.expired


def test_whoever_starts_a_running_budget_shares_its_deadline(clock: list[float]) -> None:
    running = Budget(seconds=5).started()
    clock[0] += 4
    assert running.started() is running
    assert running.started().remaining == 1


def test_the_real_clock_runs() -> None:
    running = Budget(seconds=100).started()
    first = running.remaining
    assert 0 < first <= 100
    while running.remaining == first:
        pass
    assert running.remaining < first


def test_without_a_limit_time_never_ends(clock: list[float]) -> None:
    running = Budget().started()
    clock[0] += 1e12
    assert running.remaining == inf
    assert not running.expired


def test_no_seconds_are_over_at_once(clock: list[float]) -> None:
    assert Budget(seconds=0).started().expired
    assert Budget(seconds=0).expired


def test_a_running_budget_is_the_same_budget(clock: list[float]) -> None:
    budget = Budget(seconds=5, memory=1, seed=3, device="cpu:0", threads=4)
    assert budget.started() == budget
    assert repr(budget.started()) == repr(budget)


@pytest.mark.parametrize("seconds", [-1, -1e-9, nan, -inf])
def test_impossible_seconds_are_refused(seconds: float) -> None:
    with pytest.raises(InputError, match="seconds must be at least 0, got"):
        Budget(seconds=seconds)


@pytest.mark.parametrize("limits", [{"seconds": "10"}, {"seconds": None}, {"memory": "2GB"}, {"threads": None}])
def test_limits_are_numbers(limits: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"expected a number, got .*: the {next(iter(limits))} of a budget"):
        Budget(**limits)


@pytest.mark.parametrize(("memory", "threads"), [(0, 1), (-1, 1), (1, 0), (1, -2)])
def test_impossible_memory_and_threads_are_refused(memory: int, threads: int) -> None:
    with pytest.raises(InputError, match="memory and threads must be positive, got"):
        Budget(memory=memory, threads=threads)


def test_bounds_that_are_read_on_the_cpu_are_made_there() -> None:
    budget = Budget(seconds=5)
    assert budget.on_cpu() is budget
    object.__setattr__(budget, "device", "cuda")
    assert budget.on_cpu() == Budget(seconds=5)


def test_a_device_that_is_not_here_is_refused() -> None:
    assert Budget(device="cpu").device == "cpu"
    assert Budget(device="cpu:0").device == "cpu:0"
    for name in ("gpu", "tpu", "", "mps", "meta", "cuda:99"):
        with pytest.raises(InputError, match=r"expected a device|is not here"):
            Budget(device=name)


def test_the_budget_of_a_method_that_is_given_none_has_no_end() -> None:
    assert Budget() == UNLIMITED
    assert UNLIMITED.deadline is None
    assert not UNLIMITED.expired


def test_a_part_of_a_time_that_is_over_is_none() -> None:
    assert Budget(10.0).started().part(0.5).remaining == pytest.approx(5.0, abs=0.5)
    assert Budget().part(0.5).remaining == inf
    late = replace(Budget(1.0).started(), deadline=time.monotonic() - 3.0)
    assert late.part(0.5).expired
    assert late.part(0.5).memory == late.memory
