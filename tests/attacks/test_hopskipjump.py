"""HopSkipJump on decisions alone, against the distances of an attack with gradients."""

from __future__ import annotations

from math import inf

import pytest
import torch
from torch import Tensor, nn

from assay.attacks.fmn import FMN
from assay.attacks.hopskipjump import HopSkipJump
from assay.verify.core.region import LpBall
from tests.attacks.attack_models import mlp, samples


class Decisions(nn.Module):
    """The decision as a one-hot output, without a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp(0)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x)
        return nn.functional.one_hot(y.argmax(1), 4).to(x)


X = samples(1, 12)
LABELS = mlp(0)(X).argmax(1)


@pytest.mark.parametrize("p", [2.0, inf])
def test_decisions_suffice(p: float) -> None:
    region = LpBall(X, 3.0, p, (0.0, 1.0))
    result = HopSkipJump(steps=15).run(Decisions(), X, LABELS, region, seed=1)
    gradients = FMN().run(mlp(0), X, LABELS, region)
    assert bool(result.success.all())
    assert float(result.distance.median()) <= 1.25 * float(gradients.distance.median())


def test_queries_grow_with_steps_and_seeds_matter() -> None:
    region = LpBall(X, 3.0, 2, (0.0, 1.0))
    few, many = (HopSkipJump(steps=n).run(Decisions(), X, LABELS, region) for n in (1, 6))
    assert bool((few.queries + 500 < many.queries).all())
    assert float(many.distance.median()) < float(few.distance.median())
    other = HopSkipJump(steps=6).run(Decisions(), X, LABELS, region, seed=1)
    assert not torch.equal(many.adversarial, other.adversarial)
