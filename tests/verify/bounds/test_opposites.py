"""Tests of verify.bounds.opposites: differences of a softmax are bounded on one side, their opposites on the other."""

from __future__ import annotations

import pytest
import torch

from assay.verify.bounds import layers
from assay.verify.bounds.opposites import partners
from assay.verify.bounds.optimised import raised
from assay.verify.bounds.optimised.slopes import Ascent
from assay.verify.core.budget import UNLIMITED
from assay.verify.core.network import Network, to_network
from assay.verify.core.ops import Sub
from assay.verify.core.region import Box
from tests.curved import boxes, points
from tests.nets import generator

D = torch.float64


def network() -> tuple[Network, int]:
    """A softmax behind a ReLU, and where its differences are."""
    layer = torch.nn.Sequential(torch.nn.Linear(3, 6), torch.nn.ReLU(), torch.nn.Linear(6, 4), torch.nn.Softmax(-1))
    model = torch.nn.Sequential(layer, torch.nn.Linear(4, 2)).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator(2), dtype=D))
    made = to_network(model.eval(), (3,))
    return made, next(i for i, node in enumerate(made.nodes) if isinstance(node.op, Sub))


def test_every_difference_has_its_opposite() -> None:
    net, position = network()
    sample, feature = torch.arange(32) // 16, torch.arange(32) % 16
    other = partners(net, position, sample, feature)
    assert other is not None
    values = net.values(torch.randn(2, 3, generator=generator(1), dtype=D))[position].flatten()
    torch.testing.assert_close(values[other], -values, rtol=0, atol=0)
    assert partners(net, position, sample[1:15], feature[1:2].expand(14)) is None  # its opposite is not among them
    assert partners(net, position - 1, sample, feature) is None


@pytest.mark.parametrize("alpha", [False, True])
def test_bounds_are_those_of_both_sides(alpha: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    net, position = network()
    low, high = boxes(net, 4, 0.4)
    ascent = Ascent(5, 0.4, 0.9)

    def bounds() -> torch.Tensor:
        further = (lambda *given: raised.tighten(*given, ascent)) if alpha else None
        relaxed = layers.by_linear_bounds(net, Box(low, high), D, UNLIMITED, further=further)
        here = relaxed.bounds[position]
        return torch.stack([here.lower, here.upper])

    half = bounds()
    for module in (layers, raised):
        monkeypatch.setattr(module, "partners", lambda *given: None)
    torch.testing.assert_close(half, bounds(), rtol=1e-6, atol=1e-6)
    x = points(low, high, 200)
    values = net.values(x.flatten(0, 1))[position].view(200, *half.shape[1:])
    assert bool((half[0] <= values).all())
    assert bool((values <= half[1]).all())
