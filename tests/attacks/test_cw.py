"""Carlini and Wagner's attacks: the search for c, the confidence, and the l0 form."""

from __future__ import annotations

from math import inf

import pytest
import torch

from assay.attacks.common.losses import margin
from assay.attacks.common.penalty_descent import Weights
from assay.attacks.cw import CW
from assay.attacks.cw_l0 import CWL0
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.region import Box, LpBall
from tests.attacks.attack_models import linear, mlp, samples

NET = mlp(0)
X = samples(1, 16)
LABELS = NET(X).argmax(1)


def test_weights_grow_tenfold_then_bisect_sample_by_sample() -> None:
    weights = Weights(torch.tensor([1.0, 1.0], dtype=torch.float64))
    thresholds = torch.tensor([30.0, 0.3], dtype=torch.float64)
    seen = []
    for _ in range(5):
        seen.append(weights.c.tolist())
        weights.learn(weights.c >= thresholds)
    assert seen == [[1, 1], [10, 0.5], [100, 0.25], [55, 0.375], [32.5, 0.3125]]


@pytest.mark.parametrize("c", [1e-3, None, 100.0])
def test_the_first_c_matters_little(c: float | None) -> None:
    found = CW(rounds=12, c=c).run(NET, X, LABELS, LpBall(X, 9.0, 2, (0.0, 1.0)))
    best = CW(rounds=12).run(NET, X, LABELS, LpBall(X, 9.0, 2, (0.0, 1.0)))
    assert float(found.distance.median()) <= 1.05 * float(best.distance.median())


def test_confidence_is_reached() -> None:
    found = CW(confidence=0.02).run(NET, X, LABELS, LpBall(X, 9.0, 2, (0.0, 1.0)))
    reached = margin(NET(found.adversarial).detach(), LABELS)[found.success]
    assert bool(found.success.any())
    assert float(reached.min()) >= 0.0199
    plain = CW().run(NET, X, LABELS, LpBall(X, 9.0, 2, (0.0, 1.0)))
    assert float(found.distance.median()) > float(plain.distance.median())


def test_the_linf_form_is_near_in_linf_and_the_l2_form_in_l2() -> None:
    balls = {p: LpBall(X, 9.0, p, (0.0, 1.0)) for p in (2.0, inf)}
    points = {p: CW(steps=25).run(NET, X, LABELS, ball).adversarial for p, ball in balls.items()}
    for p, other in ((2.0, inf), (inf, 2.0)):
        own, others = (torch.linalg.vector_norm(points[q] - X, ord=p, dim=1).median() for q in (p, other))
        assert own < others


def test_the_l0_form_changes_as_few_values_as_there_need_to_be() -> None:
    """Label 0 leads by 1: the first value alone can end that, the others only two together."""
    model = linear([[-2.2, -1.2, -1.2, 0.01], [0.0] * 4], [1 + 0.5 * (2.2 + 1.2 + 1.2 - 0.01), 0.0])
    x, labels = torch.full((1, 4), 0.5), torch.tensor([0])
    found = CWL0().run(model, x, labels, LpBall(x, 0.5, domain=None))
    assert found.success.tolist() == [True]
    assert found.distance.tolist() == [1]
    assert (found.adversarial != x).nonzero().tolist() == [[0, 0]]
    fixed = Box(torch.tensor([0.5, 0.0, 0.0, 0.0]), torch.tensor([0.5, 1.0, 1.0, 1.0]))
    found = CWL0().run(model, x, labels, fixed)
    assert found.success.tolist() == [True]
    assert found.distance.tolist() == [2]


def test_the_l0_form_needs_a_box() -> None:
    with pytest.raises(UnsupportedError, match="cw-l0 needs a region that is a box"):
        CWL0().run(NET, X, LABELS, LpBall(X, 0.5, 2, domain=None))
