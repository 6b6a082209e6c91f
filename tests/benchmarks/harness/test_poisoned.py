"""Tests of the poisoning table: what it says, and the alarm where a certified answer changes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from assay.benchmarks.harness import poisoned
from assay.models import data
from assay.models.data import Dataset
from assay.models.poisoning.backdoor import Backdoor
from assay.models.poisoning.learners import Perceptron, Ridge
from assay.models.poisoning.partition import Ensemble
from assay.models.poisoning.signatures import Filtered
from assay.verify.core.errors import AlarmError, InputError


def few(split: str) -> Dataset:
    whole = data.load("digits", split)
    kept = whole.y < 4
    return replace(whole, x=whole.x[kept], y=whole.y[kept], classes=4)


@pytest.mark.slow
def test_the_whole_table() -> None:
    training, test = few("train"), few("test")
    outcome = poisoned.poison(
        training, test, Backdoor(1, 3, 12), [Filtered()], None, Perceptron(16, 15), 15, Ridge(), [0, 2, 6], seed=1
    )
    assert outcome.before.success > 0.5
    filtered, influence = outcome.found
    assert filtered.hits >= 10
    assert filtered.after.success < 0.5 * outcome.before.success
    assert influence.removed == 18
    accuracies = [accuracy for _, accuracy in outcome.voted.curve]
    assert accuracies == sorted(accuracies, reverse=True)
    assert outcome.voted.quality.accuracy == accuracies[0] > 0.8
    assert outcome.voted.compared > 50
    document = poisoned.document(outcome)
    assert document["partition"]["curve"][1] == {"samples": 2, "accuracy": accuracies[1]}
    assert document["detectors"][0]["poisoned"] == 12
    with pytest.raises(InputError):
        poisoned.poison(training, data.load("digits"), Backdoor(), [], None, Perceptron(4, 1), 3, Ridge(), [0], seed=0)


def test_a_certified_answer_that_changes_is_an_alarm() -> None:
    def always(label: int) -> Ensemble:
        scores = torch.nn.functional.one_hot(torch.tensor([label]), 2).double()
        return Ensemble([lambda x: scores.expand(len(x), -1)] * 5, 2)

    x = torch.zeros(3, 1)
    assert poisoned.check(always(0), always(0), 2, x) == 3
    assert poisoned.check(always(0), always(1), 5, x) == 0  # beyond what is certified
    with pytest.raises(AlarmError, match="certified for 2"):
        poisoned.check(always(0), always(1), 2, x)


def test_a_radius_that_is_too_large_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Ensemble.certify

    def swollen(self: Ensemble, x: Tensor) -> tuple[Tensor, Tensor]:
        answer, radius = honest(self, x)
        return answer, radius + 99

    monkeypatch.setattr(Ensemble, "certify", swollen)
    planted = Backdoor(1, 3, 60)
    with pytest.raises(AlarmError, match="changed training samples, and changes with"):
        poisoned.poison(few("train"), few("test"), planted, [], None, Perceptron(4, 1), 9, Ridge(), [0], seed=1)
