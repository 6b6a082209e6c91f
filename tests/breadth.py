"""A test's breadth in two parts: what runs each time, and the rest, which is marked slow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest


def seeds(first: int, of: int, start: int = 0) -> pytest.MarkDecorator:
    """A test of ``seeds``, a range: the ``first`` ones from ``start`` on, and, slow, the rest ``of`` as many."""
    quick, rest = range(start, start + first), range(start + first, start + of)
    return pytest.mark.parametrize("seeds", [pytest.param(quick, id="first"), slow(rest, id="rest")])


def slow(*values: Any, id: str | None = None) -> Any:
    """A parameter, or several of one case, that runs by --slow only."""
    return pytest.param(*values, id=id, marks=pytest.mark.slow)


def few(values: Iterable[Any], quick: Iterable[Any]) -> list[Any]:
    """These values as parameters; those that are not among the ``quick`` ones are slow."""
    often = list(quick)
    listed = list(values)
    assert all(value in listed for value in often), "what is quick is among the values"
    return [value if value in often else slow(value) for value in listed]


def dear() -> frozenset[str]:
    """Cases that take more than a third of a second where others of the same test take less, by their ids below tests/:
    the lines of ``dear.txt``."""
    return frozenset((Path(__file__).parent / "dear.txt").read_text().splitlines())


def repeating(cases: Sequence[Mapping[str, int]]) -> set[int]:
    """Which cases of a test, each a value of every parameter, can be left out without a value that no other has: those
    that are left combine the values in ways as different as can be."""
    values = [list(case.items()) for case in cases]
    left = {value for case in values for value in case}
    used: Counter[tuple[str, int]] = Counter()
    kept = set()
    while left:
        fresh = [(len(left.intersection(case)), -sum(used[value] for value in case)) for case in values]
        best = max(range(len(values)), key=fresh.__getitem__)
        kept.add(best)
        left.difference_update(values[best])
        used.update(values[best])
    return set(range(len(values))) - kept
