"""Tests of verify.frontends.extremes: every neuron of a small network reaches its range, and the cost is bounded."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from assay.verify.core.network import Network, to_network
from assay.verify.core.roundings import terms
from assay.verify.frontends import extremes
from tests import nets


def linear(inputs: int = 6, outputs: int = 5) -> tuple[Network, nn.Linear]:
    layer = nets.randomised(nn.Linear(inputs, outputs), 0)
    return to_network(layer.eval(), (inputs,)), layer


def test_neurons_of_a_first_layer_reach_their_extremes_and_zero() -> None:
    network, layer = linear()
    points = extremes.extremes(network)
    outputs = network(points)
    weight, bias = layer.weight.detach().double(), layer.bias.detach().double()
    top, bottom = weight.clamp(min=0).sum(1) + bias, weight.clamp(max=0).sum(1) + bias
    within = ((points >= 0) & (points <= 1)).all(1)
    torch.testing.assert_close(outputs[within].amax(0), top)
    torch.testing.assert_close(outputs[within].amin(0), bottom)
    crossing = (top > 0) & (bottom < 0)
    assert bool(crossing.any())
    assert float(outputs[within].abs().amin(0)[crossing].max()) < 1e-12
    assert bool((outputs.amax(0) > 7 * top.clamp(min=0)).any())  # beyond the cube, too


@pytest.mark.parametrize("make", [nets.random_mlp, nets.random_resnet])
def test_they_reach_further_than_random_points(make: object) -> None:
    module, shape = (nets.random_mlp(0), (4,)) if make is nets.random_mlp else (nets.random_resnet(0), (1, 4, 4))
    network = to_network(module, shape)
    corners = extremes.corners(network, 10**6)
    random = torch.rand((len(corners), *shape), dtype=torch.float64, generator=nets.generator(3))
    reached, chance = network.values(corners), network.values(random)
    for node, far, near in zip(network.nodes[1:], reached[1:], chance[1:], strict=True):
        if terms(node.op):
            assert float((far.amax(0) - far.amin(0)).mean()) >= float((near.amax(0) - near.amin(0)).mean())


def test_no_more_points_than_their_cost_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    network = to_network(nets.random_mlp(0), (4,))
    few = len(extremes.corners(network, 3))
    assert few == 6
    many = len(extremes.extremes(network))
    monkeypatch.setattr(extremes, "PRODUCTS", 1)
    least = extremes.extremes(network)
    assert len(least) == 5 < many
    assert bool(least.isfinite().all())


def test_networks_that_compute_nothing_have_them_too() -> None:
    network = to_network(nn.Flatten().eval(), (2, 2))
    assert extremes.extremes(network).shape[1:] == (2, 2)
