"""Carlini and Wagner's attack: the first weight, the confidence, and the l2 and linf forms."""

from __future__ import annotations

from math import inf

import pytest
import torch

from assay.attacks.common.losses import margin
from assay.attacks.cw import CW
from assay.verify.core.region import LpBall
from tests.attacks.attack_models import mlp, samples
from tests.breadth import few

NET = mlp(0)
X = samples(1, 16)
LABELS = NET(X).argmax(1)


@pytest.mark.slow
@pytest.mark.parametrize("c", few([1e-3, None, 100.0], quick=[100.0]))
def test_the_first_c_matters_little(c: float | None) -> None:
    result = CW(rounds=12, c=c).run(NET, X, LABELS, LpBall(X, 9.0, 2, (0.0, 1.0)))
    best = CW(rounds=12).run(NET, X, LABELS, LpBall(X, 9.0, 2, (0.0, 1.0)))
    assert float(result.distance.median()) <= 1.05 * float(best.distance.median())


@pytest.mark.slow
def test_confidence_is_reached() -> None:
    result = CW(confidence=0.02).run(NET, X, LABELS, LpBall(X, 9.0, 2, (0.0, 1.0)))
    reached = margin(NET(result.adversarial).detach(), LABELS)[result.success]
    assert bool(result.success.any())
    assert float(reached.min()) >= 0.0199
    plain = CW().run(NET, X, LABELS, LpBall(X, 9.0, 2, (0.0, 1.0)))
    assert float(result.distance.median()) > float(plain.distance.median())


@pytest.mark.slow
def test_the_linf_form_is_near_in_linf_and_the_l2_form_in_l2() -> None:
    balls = {p: LpBall(X, 9.0, p, (0.0, 1.0)) for p in (2.0, inf)}
    points = {p: CW(steps=25).run(NET, X, LABELS, ball).adversarial for p, ball in balls.items()}
    for p, other in ((2.0, inf), (inf, 2.0)):
        own, others = (torch.linalg.vector_norm(points[q] - X, ord=p, dim=1).median() for q in (p, other))
        assert own < others
