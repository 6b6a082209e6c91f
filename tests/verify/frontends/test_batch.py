"""Tests of verify.frontends.batch: a size of the batch adds up as numbers do, and answers no question."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
import torch

from assay.verify.core.errors import UnsupportedError
from assay.verify.frontends.batch import OF_BATCH, Size, symbolic


def refuse(error: UnsupportedError) -> NoReturn:
    raise error


N = Size(1, 0, refuse)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda n: n * 6 + 2, lambda n: 6 * n + 2),
        (lambda n: 3 - 2 * n, lambda n: 3 - 2 * n),
        (lambda n: (n * 12) // 4, lambda n: 3 * n),
        (lambda n: -(n + n - 1), lambda n: 1 - 2 * n),
        (lambda n: n * 48 // n, lambda n: 48),
        (lambda n: n * 48 / n, lambda n: 48.0),
        (lambda n: n - n + 5, lambda n: 5),
    ],
)
def test_it_adds_up(function: Callable[[Any], Any], expected: Callable[[int], Any]) -> None:
    found = function(N)
    for count in (1, 2, 7):
        assert (found.at(count) if isinstance(found, Size) else found) == expected(count)


ASKING: list[Callable[[Any], Any]] = [
    *(bool, int, float, str, repr, hash, range, list, abs, round),
    *(lambda n: n > 1, lambda n: n == 1, lambda n: n != 2, lambda n: n // 2, lambda n: n % 2, lambda n: n / 2),
    *(lambda n: n**2, lambda n: n * n, lambda n: 6 // n, lambda n: [0] * n, lambda n: [1, 2][n], lambda n: f"{n}"),
    *(lambda n: min(n, 3), lambda n: n * 1.5, lambda n: (n + 1) // n, lambda n: {n: 1}, lambda n: divmod(n, 2)),
]


@pytest.mark.parametrize("ask", ASKING)
def test_it_answers_no_question(ask: Callable[[Any], Any]) -> None:
    with pytest.raises((UnsupportedError, TypeError)) as caught:
        ask(N)
    assert ask is list or OF_BATCH in str(caught.value) or ask(3) is NotImplemented


def test_it_is_equal_to_itself_alone() -> None:
    assert operator.eq(N * 2, N + N)
    with pytest.raises(UnsupportedError):
        operator.eq(N * 2, N)


def test_shapes_hold_it() -> None:
    shape = torch.Size(symbolic([1, 3, 12], [2, 3, 24], refuse))
    assert isinstance(shape[0], Size)
    assert shape[1] == 3
    assert (shape[2].slope, shape[2].rest) == (12, 0)
    assert isinstance((shape[:1] + (1,))[0], Size)  # noqa: RUF005
    with pytest.raises(UnsupportedError):
        symbolic([1, 2], [2], refuse)
