"""The steps of Auto-PGD in l1: the projection onto ball and box, and the number of coordinates moved."""

from __future__ import annotations

from math import inf

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.attacks.common.iterates import Iterates
from assay.attacks.common.l1_steps import SparseSteps, onto_l1_in_box
from assay.attacks.common.losses import Misclassify
from assay.attacks.common.task import Task
from assay.verify.core.region import LpBall


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 4), st.booleans())
def test_the_projection_onto_ball_and_box_is_the_nearest_point(seed: int, radius: float, rooms: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    step = torch.randn(3, 5, generator=generator, dtype=torch.float64) * 2
    low, high = (torch.rand(3, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    low, high = (-low * (low > 0.2), high * (high > 0.2)) if rooms else (torch.full_like(low, -inf), high + inf)
    z = onto_l1_in_box(step, torch.tensor(radius, dtype=torch.float64), low, high)
    assert bool(((low <= z) & (z <= high)).all())
    assert bool((z.abs().sum(1) <= radius + 1e-9).all())
    # The variational inequality of projections: no feasible direction makes an acute angle with the residue.
    for _ in range(20):
        other = torch.rand(3, 5, generator=generator, dtype=torch.float64) * 2 - 1
        other = other.clamp(min=-1, max=1).maximum(low).minimum(high)
        other = other * (radius / other.abs().sum(1, keepdim=True).clamp(min=1e-12)).clamp(max=1)
        assert bool((((step - z) * (other - z)).sum(1) <= 1e-9).all())


def test_steps_move_a_fifth_of_the_coordinates_first_and_fewer_once_the_best_point_is_sparse() -> None:
    clean, grad = torch.full((2, 10), 0.5), torch.arange(1.0, 11.0).expand(2, 10)
    goal = Misclassify.of(torch.tensor([0, 0]), "margin")
    job = Task.of(lambda x: x, clean, LpBall(clean, 0.5, 1, (0.0, 1.0)), goal)
    iterates = Iterates.of(clean, torch.tensor([-1.0, -1.0]), grad)
    rule = SparseSteps(job, iterates, steps=100)
    x = rule.step(job, iterates)
    assert torch.equal(x, clean + 0.25 * (torch.arange(10) >= 8))  # 2 of 10 coordinates, a radius of 0.5 in all
    moved = iterates.move(x, torch.tensor([0.5, -2.0]), grad)  # the second sample's loss fell: its best point is clean
    assert rule.review(job, 1, iterates, moved).tolist() == [False, False]  # reviewed at every fourth step only
    assert rule.review(job, 4, iterates, moved).tolist() == [True, True]
    assert rule.active.tolist() == pytest.approx([2 / 1.5, 0.0])
    assert rule.review(job, 8, moved, moved).tolist() == [False, False]
    assert rule.size.tolist() == pytest.approx([1 / 1.5, 1 / 1.5])
    rule.take(torch.tensor([1]))
    assert rule.size.shape == rule.active.shape == rule.moved.shape == (1,)
