"""The shortest step to a hyperplane within a box, against other steps to it."""

from __future__ import annotations

from math import inf

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.attacks.common.hyperplane import shortest_step


@settings(max_examples=80, deadline=None)
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
