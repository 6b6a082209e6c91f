"""FGSM where the optimum is known by hand: a linear model."""

from __future__ import annotations

from math import inf

import pytest
import torch

from assay.attacks.fgsm import FGSM
from assay.verify.core.region import Box, LpBall
from tests.attacks.attack_models import Counting, linear

# The margin of label 0 is 2 x0 - x1 + 0.5 x2, so the dual norms of (2, -1, 0.5) are 3.5, 5.25 ** 0.5 and 2.
MODEL = linear([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0]], [0.0, 0.0])
X = torch.tensor([[0.5, 0.25, 0.5]])
CLEAN = 1.0


@pytest.mark.parametrize("loss", ["ce", "margin"])
@pytest.mark.parametrize(("p", "slope"), [(inf, 3.5), (2, 5.25**0.5), (1, 2.0)])
def test_the_exact_optimum_on_a_linear_model(loss: str, p: float, slope: float) -> None:
    attack = FGSM(loss=loss)  # type: ignore[arg-type]
    result = attack.run(MODEL, X, torch.tensor([0]), LpBall(X, 0.125, p, domain=None))
    y = MODEL(result.adversarial).detach()
    assert float(y[0, 0] - y[0, 1]) == pytest.approx(CLEAN - 0.125 * slope, abs=1e-6)
    assert result.success.tolist() == [False]
    assert result.queries.tolist() == [2]
    assert float(result.distance) == pytest.approx(0.125, abs=1e-6)
    eps = CLEAN / slope
    for factor, broken in ((0.999, False), (1.001, True)):
        result = attack.run(MODEL, X, torch.tensor([0]), LpBall(X, eps * factor, p, domain=None))
        assert result.success.tolist() == [broken]


def test_boxes_and_domains_bind() -> None:
    box = Box(X - torch.tensor([0.1, 0.2, 0.3]), X + torch.tensor([0.1, 0.2, 0.3]))
    result = FGSM().run(MODEL, X, torch.tensor([0]), box)
    assert torch.allclose(result.adversarial, torch.tensor([[0.4, 0.45, 0.2]]))
    result = FGSM().run(MODEL, X, torch.tensor([0]), LpBall(X, 0.375, inf, (0.25, 0.5)))
    assert result.adversarial.tolist() == [[0.25, 0.5, 0.25]]


def test_a_sample_that_is_wrong_as_it_is_costs_one_query() -> None:
    model = Counting(MODEL)
    x = torch.cat([X, X, torch.zeros(1, 3)])
    result = FGSM().run(model, x, torch.tensor([0, 1, 0]), LpBall(x, 0.01, domain=None))
    assert result.success.tolist() == [False, True, True]  # the zero input is a tie
    assert result.queries.tolist() == [2, 1, 1]
    assert result.distance[1:].tolist() == [0, 0]
    assert model.seen == 4 + 2  # successes are replayed by themselves
