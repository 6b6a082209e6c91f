"""Tests of verify.bounds.layers: every layer's bounds, their intersection, chunks, and the order of methods."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from assay.verify.bounds import layers
from assay.verify.bounds import relaxed as relaxed_room
from assay.verify.bounds.backward.group import Group
from assay.verify.bounds.layers import Imprecise, batch_box, by_intervals, by_linear_bounds, meet
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


@given(st.integers(0, 10**6), st.booleans(), st.integers(1, 400))
def test_layers_that_are_cut_short_hold_and_are_between_intervals_and_linear_bounds(
    seed: int, image: bool, seconds: int
) -> None:
    """Each question for the time takes a second."""
    network = random_graph(seed, image)
    lower, upper = random_box(network, seed)
    region = batch_box(Box(lower, upper), network.input_shape)
    asked: list[int] = []

    def now() -> float:
        asked.append(1)
        return float(len(asked))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("assay.verify.core.budget.time.monotonic", now)
        try:
            relaxed = by_linear_bounds(network, region, torch.float64, Budget(seconds), rows=1)
        except Expired:  # before the intervals are there
            return
    loose = by_intervals(network, region, torch.float64).bounds
    tight = by_linear_bounds(network, region, torch.float64).bounds
    cut = relaxed.unrefined[0] if relaxed.unrefined else len(tight)
    for i, (value, wide, some) in enumerate(
        zip(network.values(members(lower, upper, 64)), loose, relaxed.bounds, strict=True)
    ):
        slack = 1e-9 * (1 + value.abs().amax())
        assert bool((some.lower <= value + slack).all())
        assert bool((value <= some.upper + slack).all())
        assert bool((some.lower >= wide.lower - slack).all())
        assert bool((some.upper <= wide.upper + slack).all())
        if i < cut:  # layers before the first one that is cut short have all that there is
            torch.testing.assert_close(some.lower, tight[i].lower, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(some.upper, tight[i].upper, rtol=1e-9, atol=1e-9)


def test_a_layer_that_is_cut_short_is_named_and_time_is_kept_for_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each operation on the way up takes a second, each chunk of rows a hundred, at each of which the time is asked."""
    clock, propagate, lowest = [0.0], relaxed_room.propagate, layers.lowest

    def up(*arguments: Any) -> Any:
        clock[0] += 1
        return propagate(*arguments)

    def down(group: Group, *arguments: Any) -> Any:
        for _ in range(100):
            clock[0] += 1
            group.relaxed.budget.check()
        return lowest(group, *arguments)

    ops = [Linear(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), torch.zeros(2)), Relu()] * 4
    network, box = chain((2,), ops), Box(-torch.ones(1, 2), torch.ones(1, 2))
    monkeypatch.setattr("assay.verify.core.budget.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(relaxed_room, "propagate", up)
    monkeypatch.setattr(layers, "lowest", down)

    def unrefined(seconds: float, rows: int) -> list[int]:
        clock[0] = 0.0
        return by_linear_bounds(replace(network), box, torch.float64, Budget(seconds), rows=rows).unrefined

    assert unrefined(1000, 1) == []
    assert unrefined(150, 1) == [5, 7]
    assert 130 < clock[0] < 150, "time is kept for the intervals to come, and for a row"
    assert unrefined(150, 100) == [3, 5, 7]
    assert 70 < clock[0] < 90, "at most half of it"
    with pytest.raises(Expired):
        unrefined(150, 0)


def test_no_row_is_bounded_of_which_rounding_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    deep = [Linear(100 * torch.eye(2), torch.zeros(2)), Relu()] * 4
    box = Box(-torch.ones(1, 2), torch.ones(1, 2)).box()
    monkeypatch.setattr(relaxed_room.Relaxed, "lost", lambda self, position: torch.full((1, 2), 1e9))
    monkeypatch.setattr(layers, "lowest", None)
    plain = by_intervals(chain((2,), deep), box, torch.float64).bounds
    for a, b in zip(by_linear_bounds(chain((2,), deep), box, torch.float64).bounds, plain, strict=True):
        assert torch.equal(a.lower, b.lower)
    with pytest.raises(Imprecise):
        by_linear_bounds(chain((2,), deep), box, torch.float32)


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
