"""FAB: hyperplanes within boxes, the exact optimum of linear models, and boxes as regions."""

from __future__ import annotations

from math import inf

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.attacks.common.hyperplane import shortest_step
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


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1.0, 2.0, inf]), st.floats(-2, 2))
def test_the_step_reaches_the_hyperplane_and_no_feasible_step_is_shorter(seed: int, p: float, value: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, normal, scale = (torch.rand(3, 5, generator=generator, dtype=torch.float64) for _ in range(3))
    normal = (2 * normal - 1) * (normal > 0.1)
    scale = scale + 0.1 if p == inf else torch.ones_like(scale)
    low, high = torch.zeros_like(x), torch.ones_like(x)
    low[:, 0] = high[:, 0] = x[:, 0]
    step = shortest_step(x, normal, torch.full((3,), value, dtype=torch.float64), low, high, p, scale)
    assert bool(((x + step >= low - 1e-12) & (x + step <= high + 1e-12)).all())
    left = value + (normal * step).sum(1)
    best = torch.where(normal * value > 0, x - low, high - x) * normal.abs()
    reachable = best.sum(1) > abs(value) + 1e-9
    assert bool((left[reachable].abs() < 1e-9).all())
    assert bool((left.sign()[~reachable] * value >= -1e-9).all())
    for _ in range(50):  # other points of the hyperplane, reached by moving two coordinates against each other
        i, j = torch.randint(1, 5, (2,), generator=generator).tolist()
        other = step.clone()
        other[:, i] += 0.05 * normal[:, j]
        other[:, j] -= 0.05 * normal[:, i]
        inside = ((x + other >= low) & (x + other <= high)).all(1) & (i != j)
        sizes = [torch.linalg.vector_norm(s / scale, ord=p, dim=1) for s in (step, other)]
        assert bool((sizes[0] <= sizes[1] + 1e-9)[inside].all())


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


def test_in_a_region_patience_gives_up_who_stays_far_from_it_and_loses_nobody() -> None:
    clean = Task.of(NET, X, LpBall(X, 0.1, inf, (0.0, 1.0)), Misclassify.of(LABELS, "margin"))
    hasty, stubborn = (FABT(steps=40, targets=3, patience=patience).on(clean, seed=0) for patience in (10.0, inf))
    assert 0 < int(stubborn.success.sum()) < len(X)
    assert torch.equal(hasty.success, stubborn.success)
    assert int(hasty.queries.sum()) < 0.8 * int(stubborn.queries.sum())
