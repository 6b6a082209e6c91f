"""Settings that every test runs under: one thread, seeds of its own, no slow tests, examples that repeat."""

from __future__ import annotations

import gc
import os
import random

import pytest
import torch
from hypothesis import settings

from tests.breadth import dear, repeating

# Repeatable by default, so that a red run is red for everybody; HYPOTHESIS_PROFILE=explore looks for new examples.
settings.register_profile("repeat", deadline=None, derandomize=True, database=None, max_examples=25)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))

torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests that take long, too")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    mark_repeating(items)
    mark_dear(items)
    if config.getoption("--slow"):
        return
    quick, slow = [], []
    for item in items:
        (slow if item.get_closest_marker("slow") or item.get_closest_marker("wheel") else quick).append(item)
    config.hook.pytest_deselected(items=slow)
    items[:] = quick


def mark_repeating(items: list[pytest.Item]) -> None:
    """Combinations of parameters are slow where each of the values is in another one that is not, except in the laws
    that every method obeys."""
    functions: dict[str, list[pytest.Item]] = {}
    for item in items:
        path, _, name = item.nodeid.partition("::")
        if hasattr(item, "callspec") and not path.startswith("tests/contract/") and not item.get_closest_marker("slow"):
            functions.setdefault(f"{path}::{name.partition('[')[0]}", []).append(item)
    for cases in functions.values():
        for i in repeating([{name: id(value) for name, value in item.callspec.params.items()} for item in cases]):  # type: ignore[attr-defined]
            cases[i].add_marker(pytest.mark.slow)


def mark_dear(items: list[pytest.Item]) -> None:
    """Cases that take long are slow where a test has others that do not."""
    listed = dear()
    for item in items:
        if item.nodeid.removeprefix("tests/") in listed:
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(tryfirst=True)
def pytest_collectstart(collector: pytest.Collector) -> None:
    """What a module draws while it is imported does not depend on the modules before it."""
    seed()


def pytest_collection_finish() -> None:
    """What was imported and collected stays: looking for cycles in it took a twentieth of the time of all tests."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """What a test and its fixtures draw does not depend on the tests before it."""
    seed()


def seed() -> None:
    """Begin the global streams of random numbers anew."""
    random.seed(0)
    torch.manual_seed(0)
