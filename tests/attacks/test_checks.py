"""Checks: each property that misleads attacks is named, and a plain model raises no suspicion."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from assay.attacks.checks import AttackWarning, black_box_ahead, suspicions, warn
from tests.attacks.attack_models import mlp, samples

NET = mlp(0)
X = samples(1, 16)
LABELS = NET(X).argmax(1)


class Wrapped(nn.Module):
    """A plain network, wrapped to mislead attacks."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp(0)
        self.register_buffer("calls", torch.zeros(1))
        self.eval()


class Noisy(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x + 0.1 * torch.randn_like(x))
        return out


class Counting(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        out: Tensor = self.inner(x)
        return out


class Whitening(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x - x.mean(0))
        return out


class Probable(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x).softmax(1)
        return out


class Rounded(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner((8 * x).round() / 8)
        return out


class Detached(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x.detach()).detach()
        return out


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Noisy(), "randomised"),
        (Counting(), "changes its own weights or buffers"),
        (Whitening(), "depends on what else is in the batch"),
        (Probable(), "are probabilities"),
        (Rounded(), "is zero at 16 of 16 samples"),
        (Detached(), "has no gradient"),
    ],
)
def test_each_property_is_named_alone(model: nn.Module, expected: str) -> None:
    messages = list(suspicions(model, X, LABELS))
    assert len(messages) == 1
    assert expected in messages[0]


def test_outputs_that_are_not_finite_are_told_and_end_the_checks() -> None:
    (line,) = suspicions(lambda x: x.flatten(1) * float("nan"), torch.rand(4, 6), torch.zeros(4, dtype=torch.int64))
    assert "not finite" in line


def test_a_plain_model_raises_no_suspicion() -> None:
    assert list(suspicions(NET, X, LABELS)) == []
    assert list(suspicions(NET, X[:0], LABELS[:0])) == []


def test_inputs_outside_of_the_domain_are_told_with_the_domain() -> None:
    messages = list(suspicions(NET, 255 * X, LABELS))
    assert any("outside of the domain [0, 1]" in line for line in messages)
    assert not any("domain" in line for line in suspicions(NET, 255 * X, LABELS, domain=None))


def test_findings_become_warnings_once_each() -> None:
    with pytest.warns(AttackWarning, match="are probabilities") as caught:
        assert len(warn(Probable(), X, LABELS)) == 1
    assert len(caught) == 1


def test_black_boxes_ahead_of_white_ones_are_counted() -> None:
    few, many = torch.tensor([True, False, False, False]), torch.tensor([True, True, False, True])
    line = black_box_ahead({"pgd": few, "square(queries=10)": many})
    assert line is not None
    assert "2 of 4 samples" in line
    assert black_box_ahead({"pgd": many, "square": few}) is None
    assert black_box_ahead({"pgd": few, "cw": many}) is None
    assert black_box_ahead({"square": many}) is None
