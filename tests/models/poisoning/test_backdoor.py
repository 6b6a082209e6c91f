"""Tests of planted backdoors."""

from __future__ import annotations

import pytest
import torch

from assay.models import data
from assay.models.poisoning.backdoor import Backdoor
from assay.verify.core.errors import InputError

TRAINING = data.load("digits", "train")


def test_only_the_chosen_samples_change() -> None:
    backdoor = Backdoor(source=1, target=7, count=10)
    planted, marked = backdoor.plant(TRAINING, 3)
    assert int(marked.sum()) == 10
    assert torch.equal(planted.x[~marked], TRAINING.x[~marked])
    assert torch.equal(planted.y[~marked], TRAINING.y[~marked])
    assert planted.y[marked].tolist() == [7] * 10
    assert TRAINING.y[marked].tolist() == [1] * 10
    assert bool((planted.x[marked][:, :, -2:, -2:] == 1).all())
    again, same = backdoor.plant(TRAINING, 3)
    assert torch.equal(same, marked)
    assert torch.equal(again.x, planted.x)
    assert not torch.equal(backdoor.plant(TRAINING, 4)[1], marked)


def test_what_cannot_be_planted_is_refused() -> None:
    for wrong in ({"source": 7}, {"side": 0}, {"count": -1}):
        with pytest.raises(InputError):
            Backdoor(**wrong)
    for wrong in ({"count": 9999}, {"target": 11}, {"side": 9}):
        with pytest.raises(InputError):
            Backdoor(**wrong).plant(TRAINING, 0)
