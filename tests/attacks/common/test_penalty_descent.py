"""Penalty descent: the search for the weight, penalties against their gradients, and where a descent ends."""

from __future__ import annotations

from math import inf

import pytest
import torch

from assay.attacks.common.losses import Misclassify
from assay.attacks.common.minimal_norm import Closest
from assay.attacks.common.penalty_descent import Adam, WeightSearch, descend, l2_penalty, linf_penalty
from assay.attacks.common.task import Task
from assay.verify.core.region import LpBall
from tests.attacks.attack_models import linear


def test_weights_grow_tenfold_then_bisect_sample_by_sample() -> None:
    search = WeightSearch(torch.tensor([1.0, 1.0], dtype=torch.float64))
    thresholds = torch.tensor([30.0, 0.3], dtype=torch.float64)
    seen = []
    for _ in range(5):
        seen.append(search.c.tolist())
        search.update(search.c >= thresholds)
    assert seen == [[1, 1], [10, 0.5], [100, 0.25], [55, 0.375], [32.5, 0.3125]]


def test_penalties_by_hand_and_their_gradients() -> None:
    delta = torch.tensor([[0.5, -0.25, 0.0], [0.125, -1.0, 0.5]], requires_grad=True)
    index = torch.tensor([2, 0])  # the samples' positions in a batch of three
    for penalty, expected in (
        (l2_penalty, [0.3125, 1.265625]),
        (linf_penalty(torch.tensor([0.25, 9.0, 0.125])), [0.375 + 0.125, 0.75 + 0.25]),
    ):
        value, grad = penalty(delta, index)
        assert value.tolist() == expected
        assert torch.equal(torch.autograd.grad(value.sum(), delta)[0], grad)


@pytest.mark.parametrize("weight", [0.05, 5.0])
def test_a_descent_breaks_a_sample_only_if_the_weight_outweighs_the_penalty(weight: float) -> None:
    """The margin of label 0 is x0 - 0.25: the optimum of a large weight is at x0 = 0.25, of a small one before it."""
    model = linear([[1.0, 0.0], [0.0, 0.0]], [-0.25, 0.0])
    x = torch.tensor([[0.5, 0.5]])
    job = Task.of(model, x, LpBall(x, 1.0, inf, (0.0, 1.0)), Misclassify.of(torch.tensor([0]), "margin"))
    closest, c = Closest(x, 2.0), torch.tensor([weight], dtype=torch.float64)
    descent = descend(job, closest, x, c, l2_penalty, Adam(steps=200, rate=0.01))
    assert descent.broken.tolist() == closest.broken.tolist() == [weight == 5.0]
    assert float(descent.x[0, 0]) == pytest.approx(0.25 if weight == 5.0 else 0.5 - weight / 2, abs=0.03)
    assert float(descent.x[0, 1]) == 0.5


def test_coordinates_that_are_not_free_stay() -> None:
    model = linear([[1.0, 1.0], [0.0, 0.0]], [-0.5, 0.0])
    x = torch.tensor([[0.5, 0.5]])
    job = Task.of(model, x, LpBall(x, 1.0, inf, (0.0, 1.0)), Misclassify.of(torch.tensor([0]), "margin"))
    c = torch.tensor([100.0], dtype=torch.float64)
    free = torch.tensor([[True, False]])
    descent = descend(job, Closest(x, 2.0), x, c, l2_penalty, Adam(steps=20, rate=0.05), free)
    assert float(descent.x[0, 0]) < 0.5
    assert float(descent.x[0, 1]) == 0.5
