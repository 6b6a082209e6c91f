"""Requirements in words: what they mean at points, how they are shown, and what is refused."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor

from assay.verify.core import requirement
from assay.verify.core.errors import InputError
from assay.verify.core.spec import Spec
from assay.verify.frontends.vnnlib import parse_vnnlib
from tests import nets

MEANINGS = {
    "y[0] < 0.5": lambda y: y[:, 0] < 0.5,
    "y[0] < 0.5 and y[1] > y[2]": lambda y: (y[:, 0] < 0.5) & (y[:, 1] > y[:, 2]),
    "not (y[0] >= 0 or 2 * y[1] <= -y[2] / 4 + 1)": lambda y: (y[:, 0] < 0) & (2 * y[:, 1] > -y[:, 2] / 4 + 1),
    "-1 <= y[0] <= y[1] or y[2] > 1": lambda y: ((y[:, 0] >= -1) & (y[:, 0] <= y[:, 1])) | (y[:, 2] > 1),
    "-2 < y": lambda y: (y > -2).all(1),
    "y[0] == 1": lambda y: y[:, 0] == 1,
    "not y[0] == y[1]": lambda y: y[:, 0] != y[:, 1],
    "argmax(y) == 1": lambda y: (y[:, 1] > y[:, 0]) & (y[:, 1] > y[:, 2]),
    "not argmax(y) == 1": lambda y: ~((y[:, 1] > y[:, 0]) & (y[:, 1] > y[:, 2])),
}


def points(seed: int) -> Tensor:
    """Halves, among which ties are frequent."""
    return torch.randint(-5, 6, (500, 3), generator=nets.generator(seed), dtype=torch.float64) / 2


@pytest.mark.parametrize("text", list(MEANINGS))
def test_the_unsafe_set_is_where_the_requirement_does_not_hold(text: str) -> None:
    y = points(0)
    expected = ~MEANINGS[text](y)
    assert torch.equal(Spec.require(text, 3).violated(y), expected)
    assert bool(expected.any()) and not bool(expected.all())  # noqa: PT018


@pytest.mark.parametrize("text", list(MEANINGS))
def test_what_is_written_reads_back_the_same(text: str) -> None:
    lower, upper = requirement.box("0 <= x <= 1 and x[1] <= 0.3", 2)
    assert (lower, upper) == ([0, 0], [1, Fraction(3, 10)])
    prop = parse_vnnlib(requirement.written(lower, upper, requirement.unsafe(text, 3), 3))
    y = points(1)
    violated = [spec.violated(y) for _, spec in prop.cases]
    assert torch.equal(torch.stack(violated).any(0), ~MEANINGS[text](y))


def test_it_is_shown_as_mathematics() -> None:
    assert requirement.shown(requirement.unsafe("y[0] < 0.5 and y[1] > 2 * y[2]", 3)).splitlines() == [
        "   -y[0] <= -0.5",
        "or y[1] - 2 y[2] <= 0",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "y[0]",
        "y[3] < 1",
        "y[-1] < 1",
        "y[0] * y[1] < 1",
        "y[0] / 0 < 1",
        "y[0] != 1",
        "x[0] < 1",
        "y[0] < 1e999999",
        "y[0] < True",
        "__import__('os')",
        "f(y[0]) < 1",
        "y[0] < 1 and",
        "argmax(y) == 7",
        "(" * 500 + "y[0] < 1" + ")" * 500,
    ],
)
def test_what_is_no_requirement_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        Spec.require(text, 3)


@pytest.mark.parametrize("text", ["0 <= x", "0 <= x[0] <= 1", "0 < x < 1", "x[0] + x[1] <= 1", "0 <= x <= 1 or x > 3"])
def test_what_is_no_closed_box_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        requirement.box(text, 2)


def test_what_a_box_lacks_is_named() -> None:
    for text, why in {
        "0 <= x[0] <= 1": r"x\[1\] of 2 inputs without a lower",
        "1 <= x <= 0": r"x\[0\] >= 1 and x",
    }.items():
        with pytest.raises(InputError, match=why):
            requirement.box(text, 2)


def test_exponents_take_no_time() -> None:
    assert requirement.unsafe("0e999999999 < y[0]", 1) == requirement.unsafe("0 < y[0]", 1)
    with pytest.raises(InputError, match="beyond the numbers"):
        requirement.unsafe("1e-999999999 < y[0]", 1)
