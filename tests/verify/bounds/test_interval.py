"""Tests of verify.bounds.interval: every rule contains what it must, and turns overflow into NaN."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from assay.verify.bounds.interval import propagate, propagate_box, unsupported
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.network import Network, chain
from assay.verify.core.ops import Add, Linear, Op, Relu, Scale, Sub, evaluate
from assay.verify.core.verifier import Bounds
from tests.contract.graphs import members, random_box, random_graph


class Strange(Op):
    """An operation without any rule."""


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def bounds(low: float, high: float) -> Bounds:
    return Bounds(tensor(low)[None], tensor(high)[None])


@given(st.integers(0, 10**6), st.booleans(), st.sampled_from([1.0, 1e-30, 1e30]))
def test_every_node_stays_within_its_bounds(seed: int, image: bool, size: float) -> None:
    network = random_graph(seed, image)
    lower, upper = (size * t for t in random_box(network, seed))
    bounds = propagate_box(network, Bounds(lower.view(-1, *network.input_shape), upper.view(-1, *network.input_shape)))
    for value, box in zip(network.values(members(lower, upper, 64)), bounds, strict=True):
        slack = 1e-12 * (1 + value.abs().amax())
        assert bool((box.lower <= value + slack).all())
        assert bool((value <= box.upper + slack).all())


@given(st.integers(0, 10**6))
def test_a_box_of_no_width_gives_the_value(seed: int) -> None:
    network = random_graph(seed)
    centre, _ = random_box(network, seed)
    bounds = propagate_box(
        network, Bounds(centre.view(-1, *network.input_shape), centre.view(-1, *network.input_shape))
    )
    for value, box in zip(network.values(centre[None]), bounds, strict=True):
        torch.testing.assert_close(box.lower, value, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(box.upper, value, rtol=1e-12, atol=1e-12)


def test_one_affine_layer_is_exact() -> None:
    op = Linear(tensor(2.0, -1.0)[None], tensor(0.5))
    box = propagate(op, Bounds(tensor(0.0, 1.0)[None], tensor(1.0, 3.0)[None]))
    assert (box.lower.item(), box.upper.item()) == (-2.5, 1.5)


def test_a_negative_factor_swaps_the_ends() -> None:
    box = propagate(Scale(tensor(-2.0), tensor(1.0)), bounds(0.0, 3.0))
    assert (box.lower.item(), box.upper.item()) == (-5.0, 1.0)


def test_sum_and_difference() -> None:
    a, b = bounds(-1.0, 2.0), bounds(3.0, 5.0)
    total, difference = propagate(Add(), a, b), propagate(Sub(), a, b)
    assert (total.lower.item(), total.upper.item()) == (2.0, 7.0)
    assert (difference.lower.item(), difference.upper.item()) == (-6.0, -1.0)


@pytest.mark.parametrize("low", [float("nan"), -float("inf")])
def test_relu_keeps_nan_and_is_never_fooled_by_infinity(low: float) -> None:
    box = propagate(Relu(), bounds(low, float("nan")))
    assert box.upper.isnan().all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_large_bounds_do_not_overflow_to_a_false_bound(sign: float) -> None:
    """The middle of [1.2e308, 1.3e308] exists; (a + b) / 2 does not find it."""
    ends = sorted((sign * 1.2e308, sign * 1.3e308))
    box = propagate(Linear(tensor(1.0)[None], tensor(0.0)), bounds(*ends))
    assert not bool((box.lower > ends[0] + 1e-12 * abs(ends[0])).any())
    assert not bool((box.upper < ends[1] - 1e-12 * abs(ends[1])).any())


@given(st.floats(1e300, 1e308), st.sampled_from([1.0, -1.0]), st.floats(1, 100))
def test_what_overflowed_never_counts_as_inactive_or_as_a_number(size: float, sign: float, weight: float) -> None:
    """Infinite bounds are no bounds: what a ReLU makes of them must not be finite and wrong."""
    ops = [Linear(tensor(sign * weight)[None], tensor(0.0)), Linear(tensor(1e-308)[None], tensor(5.0)), Relu()]
    network = chain((1,), ops)
    box = propagate_box(network, bounds(size, 1.1 * size))[-1]
    true = max(0.0, 5 + sign * weight * 1e-308 * size), max(0.0, 5 + sign * weight * 1e-308 * 1.1 * size)
    assert not box.lower.item() > min(true) + 1e-9
    assert not box.upper.item() < max(true) - 1e-9


def test_operations_without_a_rule_are_named() -> None:
    network: Network = chain((1,), [Relu()])
    assert unsupported(network) == []
    with pytest.raises(UnsupportedError, match="Strange"):
        propagate(Strange(), bounds(0.0, 1.0))


def test_the_rules_agree_with_evaluation_at_points() -> None:
    point = tensor(-0.5, 2.0)[None]
    op = Scale(tensor(-3.0, 0.0), tensor(1.0, -1.0))
    box = propagate(op, Bounds(point, point))
    assert torch.equal(box.lower, evaluate(op, point))
    assert torch.equal(box.upper, evaluate(op, point))
