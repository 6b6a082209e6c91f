"""Accuracies from above and below: exact on a linear model, ordered on others, and nothing proven by NaN."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
import torch
from torch import nn

from assay.commands.train import raise_alarm
from assay.models import data, zoo
from assay.models.data import Dataset
from assay.models.training import attacked_accuracy, certified_accuracy, clean_accuracy
from assay.models.training.evaluate import attacked, proven
from assay.verify.core.errors import AlarmError


def line() -> tuple[nn.Module, Dataset]:
    """Logits (x, 0.5): class 0 where x > 0.5, and a sample every 0.1 from 0.05 on."""
    model = nn.Linear(1, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0], [0.0]]))
        model.bias.copy_(torch.tensor([0.0, 0.5]))
    x = torch.arange(10)[:, None] / 10 + 0.05
    return model.eval(), Dataset("line", "test", x, (x[:, 0] < 0.5).long(), classes=2)


@pytest.mark.parametrize(("eps", "right"), [(0.0, 10), (0.04, 10), (0.06, 8), (0.2, 6), (0.5, 0)])
def test_on_a_linear_model_all_are_exact(eps: float, right: int) -> None:
    model, dataset = line()
    assert certified_accuracy(model, dataset, eps, linear=True) == right / 10
    assert certified_accuracy(model, dataset, eps, linear=False) == right / 10
    assert attacked_accuracy(model, dataset, eps, "pgd(steps=20)", seed=0) == right / 10


def test_what_is_misclassified_is_neither_certified_nor_robust() -> None:
    model, dataset = line()
    flipped = Dataset("line", "test", dataset.x, 1 - dataset.y, classes=2)
    assert clean_accuracy(model, flipped) == 0
    assert certified_accuracy(model, flipped, 0.0, linear=True) == 0
    assert attacked_accuracy(model, flipped, 0.0, "pgd(steps=1)", seed=0) == 0


def test_certified_accuracies_lie_below_the_attacked() -> None:
    model, few = zoo.load("digits-mlp-pgd"), data.load("digits").take(60)
    by_intervals, by_lines = (certified_accuracy(model, few, 0.05, linear) for linear in (False, True))
    assert by_intervals < by_lines <= attacked_accuracy(model, few, 0.05, "pgd(steps=10)", seed=0)


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("value", [inf, float("nan")])
def test_bounds_that_are_not_finite_prove_nothing(value: float, linear: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, dataset = line()
    monkeypatch.setattr(
        "assay.models.training.evaluate.lower_rows",
        lambda relaxed, objective, linear: torch.full(objective.shape[:2], value),
    )
    assert certified_accuracy(model, dataset, 0.1, linear) == 0


def test_what_is_proven_and_broken_is_an_alarm() -> None:
    model, dataset = line()
    eps = 0.06  # two of ten are broken
    broken = attacked(model, dataset, eps, "pgd(steps=20)", seed=0)
    raise_alarm(model, dataset, proven(model, dataset, eps, linear=True), broken)
    wrong = proven(model, dataset, 0.04, linear=True)
    with pytest.raises(AlarmError, match=r"test sample 4 is certified within 0\.06"):
        raise_alarm(model, dataset, wrong, broken)
    raise_alarm(model, dataset, wrong, replace(broken, points=dataset.x))  # nothing is broken at the samples themselves
