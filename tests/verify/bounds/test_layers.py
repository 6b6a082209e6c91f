"""Tests of verify.bounds.layers: every layer's bounds, their intersection, chunks, and the order of methods."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from assay.verify.bounds import layers
from assay.verify.bounds.group import Group
from assay.verify.bounds.layers import batch_box, by_intervals, by_linear_bounds, meet
from assay.verify.core.budget import Budget, Expired
from assay.verify.core.network import chain
from assay.verify.core.ops import Linear, Relu
from assay.verify.core.region import Box, LpBall
from tests.contract.graphs import members, random_box, random_graph


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@given(st.integers(0, 10**6), st.booleans())
def test_values_lie_inside_and_linear_bounds_inside_of_intervals(seed: int, image: bool) -> None:
    network = random_graph(seed, image)
    lower, upper = random_box(network, seed)
    region = batch_box(Box(lower, upper), network.input_shape)
    loose = by_intervals(network, region, torch.float64).bounds
    tight = by_linear_bounds(network, region, torch.float64).bounds
    for value, wide, narrow in zip(network.values(members(lower, upper, 64)), loose, tight, strict=True):
        slack = 1e-9 * (1 + value.abs().amax())
        assert bool((narrow.lower <= value + slack).all())
        assert bool((value <= narrow.upper + slack).all())
        assert bool((narrow.lower >= wide.lower - slack).all())
        assert bool((narrow.upper <= wide.upper + slack).all())
        assert bool((narrow.lower <= narrow.upper).all())


@given(st.integers(0, 10**6))
def test_little_memory_changes_nothing(seed: int) -> None:
    network = random_graph(seed)
    region = batch_box(Box(*random_box(network, seed)), network.input_shape)
    plenty = by_linear_bounds(network, region, torch.float64).bounds
    little = by_linear_bounds(network, region, torch.float64, Budget(memory=1)).bounds
    for a, b in zip(plenty, little, strict=True):
        torch.testing.assert_close(a.lower, b.lower, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(a.upper, b.upper, rtol=1e-9, atol=1e-9)


def test_linear_bounds_see_what_intervals_lose() -> None:
    """(x + 1) - (x - 1) through two layers: the second layer's value is a point, and bounded from below by it."""
    ops = [
        Linear(tensor(1.0, 1.0)[:, None], tensor(5.0, 4.0)),
        Relu(),
        Linear(tensor(1.0, -1.0)[None], tensor(-0.5)),
        Relu(),
    ]
    region = Box(tensor(-1.0)[None], tensor(1.0)[None])
    loose = by_intervals(chain((1,), ops), region, torch.float64).bounds[3]
    tight = by_linear_bounds(chain((1,), ops), region, torch.float64).bounds[3]
    assert (loose.lower.item(), loose.upper.item()) == pytest.approx((-1.5, 2.5), abs=1e-12)
    torch.testing.assert_close((tight.lower.item(), tight.upper.item()), (0.5, 0.5))


def test_the_time_is_asked_before_each_chunk() -> None:
    ops = [Linear(torch.eye(2), torch.zeros(2)), Relu(), Linear(torch.eye(2), tensor(-0.1, -0.1)), Relu()]
    box = Box(-torch.ones(1, 2), torch.ones(1, 2))
    with pytest.raises(Expired):
        by_linear_bounds(chain((2,), ops), box, torch.float64, Budget(seconds=0).started())


def test_meet_intersects() -> None:
    low, high = meet(tensor(-1.0, 0.0), tensor(1.0, 2.0), tensor(-2.0, 0.5), tensor(0.5, 3.0))
    assert torch.equal(low, tensor(-1.0, 0.5))
    assert torch.equal(high, tensor(0.5, 2.0))


def test_meet_keeps_the_gap_that_rounding_leaves() -> None:
    low, high = meet(tensor(1.0), tensor(1.0), tensor(1.0 + 2e-16), tensor(2.0))
    assert low.item() <= 1.0
    assert high.item() >= 1.0 + 2e-16


@pytest.mark.parametrize("crossed", [(0.0, 1.0, 1.1, 2.0), (0.0, 1.0, -2.0, -0.1)])
def test_meet_of_what_contradicts_itself_is_nan(crossed: tuple[float, float, float, float]) -> None:
    low, high = meet(*(tensor(v, 0.0) for v in crossed))
    assert bool(low[0].isnan())
    assert bool(high[0].isnan())


@pytest.mark.parametrize("where", range(4))
def test_meet_keeps_nan(where: int) -> None:
    values = [tensor(v) for v in (-1.0, 1.0, -1.0, 1.0)]
    values[where] = tensor(float("nan"))
    low, high = meet(*values)
    assert bool((low if where in (0, 2) else high).isnan())


def test_a_region_of_one_sample_becomes_a_batch_of_one() -> None:
    ball = batch_box(LpBall(torch.zeros(3), 0.5, 2, (-1.0, 1.0)), (3,))
    assert ball.shape == (1, 3)
    assert isinstance(ball, LpBall)
    assert ball.p == 2
    assert batch_box(Box(torch.zeros(3), torch.ones(3)), (3,)).shape == (1, 3)
    batch = Box(torch.zeros(4, 3), torch.ones(4, 3))
    assert batch_box(batch, (3,)) is batch


def test_float32_boxes_are_rounded_outward() -> None:
    network = chain((1,), [])
    (box,) = by_intervals(network, Box(tensor(0.1)[None], tensor(0.1)[None]), torch.float32).bounds
    assert box.lower.dtype is torch.float32
    assert box.lower.double().item() < 0.1 < box.upper.double().item()


@pytest.mark.parametrize("memory", [1, 500, 1 << 30])
def test_chunks_cover_everything_once(memory: int) -> None:
    low = torch.zeros(4, 1, dtype=torch.float64)
    group = Group(by_intervals(chain((1,), []), Box(low, low + 1), torch.float64, Budget(memory=memory)))
    sample = torch.tensor([0] * 700 + [2] * 3 + [3] * 300)
    chunks = layers._chunks(sample, group)
    assert [i for c in chunks for i in range(len(sample))[c]] == list(range(len(sample)))
