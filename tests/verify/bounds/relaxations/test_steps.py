"""Tests of bounds.relaxations.steps: lines about piecewise constant functions."""

from __future__ import annotations

import pytest
import torch

from assay.verify.bounds.relaxations.relax import relax, undecided
from assay.verify.bounds.relaxations.steps import jump, steepest
from assay.verify.core.ops import Step, evaluate
from assay.verify.core.verifier import Bounds
from tests.breadth import seeds
from tests.curved import STEPS, inside, intervals, named, outside

D = torch.float64


@pytest.mark.parametrize("op", STEPS, ids=named)
@seeds(2, of=10)
def test_steps_lie_between_their_lines(op: Step, seeds: range) -> None:
    for seed in seeds:
        low, high = intervals(op, 1000, seed)
        lines = relax(op, Bounds(low, high))
        assert not bool((outside(lines, op, inside(low, high, 60, seed)) > 0).any())
        most = torch.maximum(lines.slope.abs(), (lines.slope + lines.slope_gap).abs())
        assert float(most.max()) <= steepest(op)


@pytest.mark.parametrize("op", STEPS, ids=named)
def test_next_to_a_step(op: Step) -> None:
    """The ends themselves, and the numbers beside them."""
    at = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.5], dtype=D)
    down, up = at.nextafter(at - 1), at.nextafter(at + 1)
    for low, high in ((at, at), (down, at), (at, up), (down, up), (at - 3, at), (at, at + 3)):
        lines = relax(op, Bounds(low, high))
        z = torch.stack([low, high, torch.minimum(at, high).maximum(low)])
        assert not bool((outside(lines, op, z) > 0).any())
        same = evaluate(op, low) == evaluate(op, high)
        assert bool((undecided(op, Bounds(low, high)) == ~same).all())


@pytest.mark.parametrize("op", STEPS, ids=named)
def test_how_far_an_error_jumps(op: Step) -> None:
    low, high = intervals(op, 1000, 4)
    for error in (1e-9, 0.3, 2.0):
        far = jump(op, Bounds(low, high), torch.full_like(low, error))
        z = inside(low, high, 40)
        assert bool(((evaluate(op, z + error) - evaluate(op, z)).abs() <= far).all())


def test_nan_has_no_lines() -> None:
    nan = torch.tensor([float("nan")], dtype=D)
    for op in STEPS:
        assert not bool(relax(op, Bounds(nan, nan)).intercept_gap.isfinite().any())
