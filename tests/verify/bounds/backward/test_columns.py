"""Tests of bounds.backward.columns: forms, rules, the least value over a region, and the whole propagation."""

from __future__ import annotations

from math import inf

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from assay.verify.bounds.backward.columns import lower_bound, minimum, pull
from assay.verify.bounds.backward.forms import Form, Owners, Units
from assay.verify.bounds.layers import by_linear_bounds
from assay.verify.core.budget import Budget
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.network import Network, chain, to_network
from assay.verify.core.ops import Add, Linear, Op, Relu, Reshape, Scale, Sub
from assay.verify.core.region import Box, LpBall, Region
from assay.verify.registry import get_bounder
from tests.contract.graphs import eye, members, random_box, random_graph
from tests.verify.bounds.groups import group_of


class Strange(Op):
    """An operation without any rule."""


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def crown(network: Network, region: Region, objective: Tensor | None = None) -> tuple[Tensor, Tensor]:
    bounds = get_bounder("crown").bound(network, region, eye(network) if objective is None else objective, Budget())
    return bounds.lower, bounds.upper


@given(st.integers(0, 10**6), st.booleans(), st.booleans())
def test_every_node_from_every_form_is_below_its_values(seed: int, image: bool, units: bool) -> None:
    """Linear bounds of each node, unit rows and dense rows alike, stay under the node's sampled values."""
    network = random_graph(seed, image)
    lower, upper = random_box(network, seed)
    group = group_of(network, Box(lower, upper))
    values = network.values(members(lower, upper, 64))
    for position, node in enumerate(network.nodes):
        rows = Owners.of(torch.zeros(node.size, dtype=torch.long), torch.float64)
        sign = torch.where(torch.arange(node.size) % 2 == 0, 1.0, -1.0).double()
        form = Units(torch.arange(node.size), sign) if units else Form(torch.diag(sign))
        lowest = lower_bound(group, position, form, rows)
        true = (values[position].flatten(1) * sign).amin(0)
        assert bool((lowest <= true + 1e-9 * (1 + true.abs())).all()), (position, node.op.label)


@given(st.integers(0, 10**6), st.booleans())
def test_both_forms_of_a_row_give_one_bound(seed: int, image: bool) -> None:
    network = random_graph(seed, image)
    group = group_of(network, Box(*random_box(network, seed)))
    size, last = network.output_size, len(network.nodes) - 1
    rows = Owners.of(torch.zeros(size, dtype=torch.long), torch.float64)
    units = lower_bound(group, last, Units(torch.arange(size), torch.ones(size, dtype=torch.float64)), rows)
    dense = lower_bound(group, last, Form(torch.eye(size, dtype=torch.float64)), rows)
    torch.testing.assert_close(units, dense, rtol=1e-9, atol=1e-9)


@given(st.integers(0, 10**6))
def test_without_activations_the_bounds_are_exact(seed: int) -> None:
    """Affine networks: the least corner is the bound, whatever the wiring."""
    network = random_graph(seed, neurons=0)
    box = Box(*random_box(network, seed)).box()
    lower, upper = box.lower, box.upper
    bounds, _ = crown(network, box)
    corners = members(lower, upper, 2 * 4 ** network.nodes[0].size, seed)
    least = network(corners).flatten(1).amin(0)
    assert bool((bounds[0] <= least + 1e-9 * (1 + least.abs())).all())
    moved = network(torch.cat([lower[None], torch.zeros_like(lower)[None]])).flatten(1)
    slope = torch.stack([network(e[None]).flatten() for e in _units(network)]) - moved[1]
    true = moved[1] + slope.clamp(min=0).T @ lower.flatten() + slope.clamp(max=0).T @ upper.flatten()
    torch.testing.assert_close(bounds[0], true, rtol=1e-9, atol=1e-9)


def _units(network: Network) -> Tensor:
    size = network.nodes[0].size
    return torch.eye(size, dtype=torch.float64).view(size, *network.input_shape)


def test_the_shift_of_a_scaling_after_inactive_neurons_counts() -> None:
    """relu, then a * relu + b (BatchNorm after ReLU), then Linear: what is inactive still passes on b."""
    dead = Linear(randn(10, 1), torch.full((10,), -50.0, dtype=torch.float64))
    ops = [dead, Relu(), Scale(randn(10, seed=1), randn(10, seed=2)), Linear(randn(2, 10, seed=3), randn(2))]
    network = chain((1,), ops)
    lower, upper = crown(network, Box(-torch.ones(1), torch.ones(1)))
    true = network(torch.zeros(1, 1, dtype=torch.float64))
    torch.testing.assert_close(lower, true)
    torch.testing.assert_close(upper, true)


@pytest.mark.parametrize("kind", [Add, Sub])
def test_a_node_with_itself(kind: type[Op]) -> None:
    network = chain((2,), [Linear(randn(2, 2), randn(2)), Relu()])
    last = len(network.nodes) - 1
    nodes = (*network.nodes, type(network.nodes[0])(kind(), (last, last), (2,)))
    lower, upper = crown(Network(nodes), Box(-torch.ones(2), torch.ones(2)))
    single = crown(network, Box(-torch.ones(2), torch.ones(2)))
    factor = 2.0 if kind is Add else 0.0
    torch.testing.assert_close(lower, factor * single[0])
    torch.testing.assert_close(upper, factor * single[1])


@pytest.mark.parametrize(
    "ops",
    [
        [],
        [Relu()],
        [Relu(), Relu()],
        [Reshape((2, 1)), Relu(), Reshape((2,))],
        [Linear(torch.ones(2, 2), torch.full((2,), -9.0)), Relu()],
        [Linear(torch.eye(2), torch.zeros(2)), Relu(), Relu(), Linear(torch.eye(2), torch.zeros(2))],
    ],
    ids=["nothing", "relu", "two-relus", "reshaped", "all-inactive", "two-between"],
)
def test_odd_shapes_of_networks_are_exact(ops: list[Op]) -> None:
    network = chain((2,), ops)
    lower, upper = torch.tensor([-1.0, 0.5]), torch.tensor([2.0, 0.75])
    bounds = crown(network, Box(lower, upper))
    ends = network(torch.stack([lower, upper]).double())
    torch.testing.assert_close(bounds[0][0], ends[0].clamp(min=-1.0))
    torch.testing.assert_close(bounds[1][0], ends[1])


@given(st.integers(0, 10**6), st.sampled_from([1, 2, inf]), st.sampled_from([0.0, 1e-3, 0.3, 5.0]), st.booleans())
def test_minimum_is_valid_over_clipped_balls_and_exact_over_boxes(seed: int, p: float, eps: float, clip: bool) -> None:
    centre = torch.rand(5, generator=torch.Generator().manual_seed(seed))
    ball = LpBall(centre, eps, p, (0.0, 1.0) if clip else None)
    network = chain((5,), [])
    group = group_of(network, ball)
    coef = randn(5, 4, seed=seed)
    lowest = minimum(group, coef.clone(), Owners.of(torch.zeros(4, dtype=torch.long), torch.float64))
    points = ball.sample(200).double() @ coef
    assert bool((lowest <= points.amin(0) + 1e-9).all())
    box = ball.box()
    over_box = (torch.minimum(box.lower[:, None] * coef, box.upper[:, None] * coef)).sum(0)
    assert bool((lowest >= over_box - 1e-9).all())
    if p == inf:
        torch.testing.assert_close(lowest, over_box, rtol=1e-12, atol=1e-12)
    elif not clip:
        dual = coef.abs().amax(0) if p == 1 else coef.norm(dim=0)
        torch.testing.assert_close(lowest, centre.double() @ coef - eps * dual, rtol=1e-9, atol=1e-9)


def test_each_sample_of_a_group_has_its_own_region() -> None:
    network = random_graph(11)
    boxes = [random_box(network, seed) for seed in range(6)]
    together = Box(torch.stack([b[0] for b in boxes]), torch.stack([b[1] for b in boxes]))
    lower, upper = crown(network, together)
    for i, box in enumerate(boxes):
        alone = crown(network, Box(*box))
        torch.testing.assert_close(lower[i], alone[0][0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(upper[i], alone[1][0], rtol=1e-9, atol=1e-9)


def test_an_objective_per_sample() -> None:
    network = random_graph(12)
    lower, upper = random_box(network, 2)
    both = Box(torch.stack([lower, lower]), torch.stack([upper, upper]))
    objective = randn(2, 3, network.output_size)
    bounds, _ = crown(network, both, objective)
    for i in range(2):
        torch.testing.assert_close(bounds[i], crown(network, Box(lower, upper), objective[i])[0][0])


def test_operations_without_a_rule_are_named() -> None:
    group = group_of(chain((1,), [Relu()]), Box(torch.zeros(1), torch.ones(1)))
    with pytest.raises(UnsupportedError, match="Strange"):
        pull(Strange(), Form(torch.ones(1, 1)), group, 1, Owners.of(torch.zeros(1, dtype=torch.long), torch.float64))


class Inactive(nn.Module):
    """Normalised numbers whose ReLUs are all inactive over the box, beside a path that is active."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.off, self.on, self.last = nn.LayerNorm(2), nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)
        with torch.no_grad():
            self.norm.bias.fill_(-50.0)

    def forward(self, x: Tensor) -> Tensor:
        """(batch x 2) to (batch x 2)."""
        scores: Tensor = self.last(torch.relu(self.off(torch.relu(self.norm(x))) + self.on(x)))
        return scores


def test_rows_of_no_feature_at_all_go_through_lines_of_several_operands() -> None:
    network, x = to_network(Inactive().eval(), (2,)), torch.tensor([0.3, 0.9], dtype=torch.float64)
    for eps in (0.1, 0.9):
        relaxed = by_linear_bounds(network, Box(x - eps, x + eps), torch.float64)
        points = x + eps * (2 * torch.rand(100, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) - 1)
        values, last = network(points), relaxed.bounds[-1]
        assert bool((last.lower <= values + 1e-9).all() and (values <= last.upper + 1e-9).all())
