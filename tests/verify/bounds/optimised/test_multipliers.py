"""Linear functions over polytopes: never above the least value, exact for one constraint, and faults are noticed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from assay.verify.bounds.optimised.multipliers import Constraints
from assay.verify.core.region import Polytope
from tests.breadth import seeds
from tests.nets import generator
from tests.polytopes import random_polytope, unit_box


def truth(coef: Tensor, polytope: Polytope) -> float:
    """The least value, by a linear program."""
    bounds = list(zip(polytope.within.lower.tolist(), polytope.within.upper.tolist(), strict=True))
    return float(linprog(coef.double().tolist(), polytope.A.numpy(), polytope.b.numpy(), bounds=bounds).fun)


def functions(seed: int, size: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Five functions (1 x 5 x inputs), one of them 0."""
    coef = torch.randn(1, 5, size, generator=generator(seed), dtype=torch.float64).to(dtype)
    coef[0, 4] = 0
    return coef


def least(coef: Tensor, polytope: Polytope) -> Tensor:
    lower, upper = polytope.within.lower, polytope.within.upper
    return Constraints(polytope.A, polytope.b).least(coef, lower.expand_as(coef), upper.expand_as(coef))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@seeds(6, of=18)
def test_no_bound_is_above_the_least_value(dtype: torch.dtype, seeds: range) -> None:
    for seed in seeds:
        polytope = random_polytope(*unit_box(5), seed, rows=1 + seed % 5, room=0.03)
        coef = functions(seed, 5, dtype)
        bound = least(coef, polytope)[0]
        assert bound.dtype is dtype
        box = torch.minimum(coef.double(), torch.zeros(1)).sum(-1)[0]
        for row, value, alone in zip(coef[0], bound.tolist(), box.tolist(), strict=True):
            assert alone - 1e-6 <= value <= truth(row, polytope) + 1e-9 * (dtype is torch.float64), seed


@seeds(6, of=18)
def test_one_constraint_is_exact_and_several_nearly_so(seeds: range) -> None:
    gaps = []
    for seed in seeds:
        for rows in (1, 4):
            polytope = random_polytope(*unit_box(6), seed, rows=rows, room=0.03)
            coef = functions(seed, 6)
            wanted = torch.tensor([truth(row, polytope) for row in coef[0]], dtype=torch.float64)
            found = least(coef, polytope)[0]
            if rows == 1:
                torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
            else:
                box = coef[0].clamp(max=0).sum(-1)
                gaps.append(((wanted - found) / (wanted - box).clamp(min=1e-9)).clamp(max=1).mean().item())
    assert sum(gaps) / len(gaps) < 0.2  # of what the constraints are worth


@seeds(6, of=18)
def test_multipliers_are_never_below_zero(seeds: range) -> None:
    for seed in seeds:
        polytope = random_polytope(*unit_box(5), seed, rows=3)
        coef = functions(seed, 5)
        _, multipliers = Constraints(polytope.A, polytope.b).weighed(coef, *(t.expand_as(coef) for t in unit_box(5)))
        assert bool((multipliers >= 0).all())


def flipped(self: Constraints, coef: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    sum_, multipliers = original(self, coef, lower, upper)
    return 2 * coef.double() - sum_, multipliers


def dropped(self: Constraints, coef: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    return coef.double(), original(self, coef, lower, upper)[1]


def negative(self: Constraints, coef: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    multipliers = original(self, coef, lower, upper)[1] - 0.5
    return coef.double() + multipliers @ self.A, multipliers


original = Constraints.weighed


@pytest.mark.parametrize("fault", [flipped, dropped, negative])
def test_faults_are_noticed(fault: Callable[..., tuple[Tensor, Tensor]], monkeypatch: pytest.MonkeyPatch) -> None:
    """A sign turned round, rows left out of the sum but not of the constant, multipliers below zero."""
    monkeypatch.setattr(Constraints, "weighed", fault)
    noticed = 0
    for seed in range(20):
        polytope = random_polytope(*unit_box(5), seed, rows=2, room=0.03)
        coef = functions(seed, 5)
        bound = least(coef, polytope)[0].tolist()
        noticed += any(value > truth(row, polytope) + 1e-6 for row, value in zip(coef[0], bound, strict=True))
    assert noticed > 5


def test_boxes_that_hold_no_point_have_no_infinite_bound() -> None:
    """Nothing is claimed of what is not there but a number, and no NaN."""
    polytope = Polytope(random_polytope(*unit_box(3), 1).within, torch.ones(1, 3), torch.tensor([-1.0]))
    bound = least(functions(1, 3), polytope)
    assert bool(bound.isfinite().all())
