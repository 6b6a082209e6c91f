"""Tests of the radii over a data set: answers are attacked within their radii, and one that changes is an alarm."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
import torch
from torch import nn

from assay.benchmarks.harness import smoothed
from assay.benchmarks.harness.beside import against
from assay.models.data import Dataset
from assay.verify.backends.smoothing.method import Smoothing
from assay.verify.core.errors import AlarmError
from assay.verify.core.problem import Problem


@pytest.fixture(scope="module")
def samples() -> Dataset:
    """Points on a line, of which the sign of x - 0.5 is the class."""
    x = torch.tensor([[0.2, 0.5], [0.4, 0.5], [0.8, 0.5]])
    return Dataset("line", "test", x, torch.tensor([0, 0, 1]), 2)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """Two classes on either side of x = 0.5: the vote under noise is the network, and its radius the distance."""
    layer = nn.Linear(2, 2).eval()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-8.0, 0.0], [8.0, 0.0]]))
        layer.bias.copy_(torch.tensor([4.0, -4.0]))
    return layer


METHOD = Smoothing(sigma=0.25, n=2000)


@pytest.mark.parametrize("method", [METHOD, replace(METHOD, certificate="soft"), replace(METHOD, noise="uniform")])
def test_answers_are_attacked_within_their_radii(method: Smoothing, model: nn.Module, samples: Dataset) -> None:
    rows = list(smoothed.certify(model, samples, method, 2.0, 0, range(3)))
    assert any(row.radius > 0 for row in rows)
    assert [row.broken for row in rows] == [False if row.radius > 0 else None for row in rows]
    smoothed.raise_alarm(rows, METHOD.alpha)


@pytest.mark.parametrize("norm", [1.0, 2.0, inf])
def test_a_radius_that_is_too_large_is_an_alarm(
    norm: float, model: nn.Module, samples: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Smoothing.certify

    def swollen(self: Smoothing, problem: Problem, *how: object) -> object:
        certified = honest(self, problem, *how)  # type: ignore[arg-type]
        return replace(certified, radius=5 * certified.radius)

    monkeypatch.setattr(Smoothing, "certify", swollen)
    rows = list(smoothed.certify(model, samples, METHOD, norm, 0, range(3)))
    assert all(row.broken for row in rows if row.radius > 0)
    assert "changed" in smoothed.caveats(rows, METHOD.alpha)[-1]
    with pytest.raises(AlarmError, match=r"within .*, and an attack within it changes the answer"):
        smoothed.raise_alarm(rows, METHOD.alpha)


def test_as_many_broken_radii_as_chance_explains_are_no_alarm() -> None:
    """A radius is wrong with probability alpha: 4 of 300 at a hundredth are not remarkable, 12 are."""
    row = smoothed.Row(0, 0, 0, 1.0, 10, 10, 1.0, 0.0, broken=False)
    rows = [replace(row, index=i, broken=i < 4) for i in range(300)]
    smoothed.raise_alarm(rows, 0.01)
    with pytest.raises(AlarmError, match="11 more"):
        smoothed.raise_alarm([replace(row, broken=row.index < 12) for row in rows], 0.01)


def test_pixels_that_may_change_are_attacked(samples: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Linear(2, 2, bias=False).eval()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    honest = Smoothing.certify

    def swollen(self: Smoothing, problem: Problem, *how: object) -> object:
        certified = honest(self, problem, *how)  # type: ignore[arg-type]
        return replace(certified, radius=2.0)

    monkeypatch.setattr(Smoothing, "certify", swollen)
    pictures = replace(samples, x=samples.x.reshape(3, 1, 1, 2))
    flat = nn.Sequential(nn.Flatten(), layer).eval()
    rows = list(smoothed.certify(flat, pictures, Smoothing("masking", n=2000, keep=0.9), 0.0, 0, range(3)))
    assert all(row.broken for row in rows)


def test_the_attack_costs_a_part_of_the_certificate() -> None:
    for n in (10_000, 100_000):
        attack = against(Smoothing(n=n))
        passes = 3 * (attack.steps + 1) * attack.copies  # one with gradients costs as three
        assert passes + attack.n0 + attack.n < 0.15 * n
