"""Targeted attacks: success is the target as strictly the largest output."""

from __future__ import annotations

from math import inf

import pytest
import torch

from assay.attacks import get_attack
from assay.attacks.common.losses import Misclassify
from assay.attacks.common.targeted import Reach
from assay.verify.core.region import LpBall
from tests.attacks.attack_models import linear, mlp, samples

NET = mlp(0)
X = samples(1, 16)
LABELS = NET(X).argmax(1)
TARGETS = (LABELS + 1) % 4


@pytest.mark.parametrize(
    ("text", "p"),
    [
        ("pgd(steps=20,targeted=true)", inf),
        ("pgd(steps=20,loss=dlr,restarts=3,targeted=true)", 2),
        ("mi-fgsm(targeted=true)", inf),
        ("cw(steps=25,targeted=true)", 2),
        ("cw(steps=25,targeted=true)", inf),
        ("ddn(targeted=true)", 2),
        ("ead(targeted=true)", 1),
        ("fmn(targeted=true)", inf),
    ],
)
def test_the_target_is_reached(text: str, p: float) -> None:
    region = LpBall(X, {inf: 0.3, 2: 0.8, 1: 1.2}[p], p, (0.0, 1.0))
    result = get_attack(text).run(NET, X, TARGETS, region)
    assert 0 < int(result.success.sum()) <= len(X)
    assert torch.equal(NET(result.adversarial).argmax(1)[result.success], TARGETS[result.success])
    assert bool(region.contains(result.adversarial).all())
    already = get_attack(text).run(NET, X, LABELS, region)
    assert bool(already.success.all())
    assert bool((already.distance == 0).all())


def test_the_goal_by_hand() -> None:
    y = torch.tensor([[1.0, 3.0, 2.0], [0.0, 5.0, 5.0], [4.0, 0.0, 0.0]])
    loss, success = Reach(Misclassify.of(torch.tensor([1, 1, 1]), "margin"))(y)
    assert loss.tolist() == [1, 0, -4]
    assert success.tolist() == [True, False, False]  # a tie is no success


def test_being_wrong_in_another_way_is_no_success() -> None:
    """Class 1 is near, class 2 is beyond the ball."""
    model = linear([[0.0, 0.0], [4.0, 0.0], [0.0, 1.0]], [1.0, -1.0, -5.0])
    x = torch.tensor([[0.4, 0.4]])
    region = LpBall(x, 0.3, inf, (0.0, 1.0))
    for target, reached in ((1, True), (2, False)):
        result = get_attack("pgd(targeted=true)").run(model, x, torch.tensor([target]), region)
        assert result.success.tolist() == [reached]
