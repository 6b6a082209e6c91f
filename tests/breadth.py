"""A test's breadth in two parts: what runs each time, and the rest, which is marked slow."""

from __future__ import annotations

from collections.abc import Iterable
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
