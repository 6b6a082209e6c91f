"""FAB: the exact optimum of linear models, boxes as regions, and early stopping."""

from __future__ import annotations

from math import inf

import pytest
import torch

from assay.attacks.common.losses import Misclassify
from assay.attacks.common.task import Task
from assay.attacks.fab import FAB, FABT
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall
from assay.verify.core.spec import Spec
from tests.attacks.attack_models import linear, mlp, network, samples

NET = mlp(0)
X = samples(1, 24)
LABELS = NET(X).argmax(1)


@pytest.mark.parametrize(("p", "slope"), [(inf, 3.5), (2, 5.25**0.5), (1, 2.0)])
@pytest.mark.parametrize("attack", [FAB(steps=30), FABT(steps=30), FAB(steps=30, restarts=2)])
def test_the_distance_to_a_linear_boundary(attack: FAB, p: float, slope: float) -> None:
    model = linear([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0]], [0.0, 0.0])
    x, label = torch.tensor([[0.5, 0.25, 0.5]]), torch.tensor([0])
    for eps in (0.01, 0.9):
        result = attack.run(model, x, label, LpBall(x, eps, p, (-1.0, 2.0)))
        assert float(result.distance) == pytest.approx(1 / slope, rel=1e-2)
        assert result.success.tolist() == [eps == 0.9]


@pytest.mark.parametrize("attack", [FAB(steps=30), FABT(steps=30, targets=3)])
def test_boxes_are_searched_in_their_own_units_and_fixed_coordinates_stay(attack: FAB) -> None:
    low, high = X - 0.3, X + 0.3
    low[:, ::2] = high[:, ::2] = X[:, ::2]
    result = attack.run(NET, X, LABELS, Box(low, high))
    assert torch.equal(result.adversarial[:, ::2], X[:, ::2])
    assert 0 < int(result.success.sum()) < len(X)
    wide = Box(torch.tensor([-1e4, -1e-4]), torch.tensor([1e4, 1e-4]))
    identity = network(linear([[1e-4, 0.0], [0.0, 1e4]], [0.0, 0.0]), 2)
    for rows, broken in (([[1.0, 1.0]], True), ([[1.0, 1.0], [-1.0, 0.0]], False)):
        spec = Spec.halfspaces(rows, [-1.9, 0.5][: len(rows)])  # both at once: y0 >= -0.5 and y0 + y1 <= -1.9
        assert attack.search([Problem(identity, wide, spec)]).success.tolist() == [broken]


@pytest.mark.slow
def test_early_stopping_in_a_region_breaks_the_same_samples_in_fewer_queries() -> None:
    clean = Task.of(NET, X, LpBall(X, 0.1, inf, (0.0, 1.0)), Misclassify.of(LABELS, "margin"))
    stopped, full = (FABT(steps=40, targets=3, patience=patience).run_on(clean, seed=0) for patience in (10.0, inf))
    assert 0 < int(full.success.sum()) < len(X)
    assert torch.equal(stopped.success, full.success)
    assert int(stopped.queries.sum()) < 0.8 * int(full.queries.sum())
