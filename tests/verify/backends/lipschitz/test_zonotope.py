"""Tests of zonotopes of derivatives: every derivative over the region lies in them, and they are tighter than boxes."""

from __future__ import annotations

from math import inf

import pytest
import torch
from torch import Tensor

from assay.verify.backends.lipschitz import zonotope
from assay.verify.backends.lipschitz.jacobian import jacobian
from assay.verify.backends.lipschitz.zonotope import derivatives
from assay.verify.bounds import rigorous
from assay.verify.core.network import Builder, Network, chain, to_network
from assay.verify.core.ops import Linear, Relu, Scale, Sub
from assay.verify.core.region import Box
from assay.verify.core.verifier import Bounds
from tests import nets
from tests.breadth import seeds
from tests.verify.backends.lipschitz.test_local import at, some

D = torch.float64


def around(network: Network, centre: Tensor, eps: float) -> list[Bounds]:
    return rigorous.intervals(network, Box((centre - eps)[None], (centre + eps)[None]))


def gradients(network: Network, x: Tensor, row: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((network(x).flatten(1) @ row).sum(), x)
    return gradient.flatten(1)


@pytest.mark.parametrize("entries", [1 << 22, 40])
@pytest.mark.parametrize("eps", [0.01, 0.3, 3.0])
@seeds(4, of=12)
def test_no_derivative_in_the_region_lies_outside(
    eps: float, entries: int, monkeypatch: pytest.MonkeyPatch, seeds: range
) -> None:
    """Of any wiring; with few entries allowed, generators are given up on the way."""
    monkeypatch.setattr(zonotope, "ENTRIES", entries)
    for seed in seeds:
        network, centre = some(seed)
        rows = torch.randn(2, network.output_size, dtype=D, generator=nets.generator(seed))
        bounds = around(network, centre, eps)
        slopes, held = derivatives(network, bounds, rows), jacobian(network, bounds, rows)
        assert bool((slopes.sizes <= held * (1 + 1e-12)).all())
        x = Box(centre - eps, centre + eps).sample(500, nets.generator(seed)).double()
        for i, row in enumerate(rows):
            true = gradients(network, x, row)
            assert bool((true.abs() <= slopes.sizes[i] * (1 + 1e-9) + 1e-12).all()), f"seed {seed}"
            assert true.norm(dim=1).max().item() <= slopes.lengths[i].item() * (1 + 1e-9) + 1e-12, f"seed {seed}"


@pytest.mark.parametrize("eps", [0.05, 0.5])
@seeds(5, of=12)
def test_no_secant_from_the_centre_lies_outside(eps: float, seeds: range) -> None:
    for seed in seeds:
        network, centre = some(seed)
        rows = torch.randn(2, network.output_size, dtype=D, generator=nets.generator(seed))
        slopes = derivatives(network, around(network, centre, eps), rows, at(network, centre))
        x = Box(centre - eps, centre + eps).sample(500, nets.generator(seed)).double()
        rise = ((network(x) - network(centre[None])).flatten(1) @ rows.T).abs()
        step = (x - centre).flatten(1)
        assert bool((rise <= step.norm(dim=1)[:, None] * slopes.lengths * (1 + 1e-9) + 1e-12).all()), f"seed {seed}"
        assert bool((rise <= step.abs() @ slopes.sizes.T * (1 + 1e-9) + 1e-12).all()), f"seed {seed}"


def test_branches_do_not_share_their_generators() -> None:
    """relu(x) - relu(2 x - 1): slopes 0, 1 and -1 all occur, and independent ones would reach from -2 to 1."""
    builder = Builder((1,))
    other = builder.add(Relu(), builder.add(Scale(torch.tensor(2.0), torch.tensor(-1.0)), 0))
    network = builder.build(builder.add(Sub(), builder.add(Relu(), 0), other)).to(D)
    slopes = derivatives(network, around(network, torch.zeros(1, dtype=D), 1.0), torch.eye(1, dtype=D))
    assert slopes.sizes.item() == pytest.approx(2.0)


def test_what_neurons_do_to_several_inputs_stays_together() -> None:
    """(1, 1) and (1, -1), each times a slope: both derivatives reach far, though never together."""
    weight = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=D)
    zero = torch.zeros(2, dtype=D)
    network = chain((2,), [Linear(weight, zero), Relu(), Linear(torch.ones(1, 2, dtype=D), zero[:1])])
    bounds = around(network, zero, 1.0)
    slopes, held = derivatives(network, bounds, torch.eye(1, dtype=D)), jacobian(network, bounds, torch.eye(1, dtype=D))
    assert held.norm().item() == pytest.approx(5**0.5)
    assert slopes.lengths.item() == pytest.approx(2.0, rel=0.12)
    assert slopes.lengths.item() >= 2.0


def test_it_is_tighter_by_far_on_networks_with_many_undecided_neurons() -> None:
    ratios = []
    for seed in range(5):
        network = to_network(nets.random_mlp(seed, (10, 40, 40, 3)), (10,)).to(D)
        bounds = around(network, torch.rand(10, dtype=D, generator=nets.generator(seed)), 0.1)
        rows = torch.eye(3, dtype=D)
        ratios += (derivatives(network, bounds, rows).lengths / jacobian(network, bounds, rows).norm(dim=1)).tolist()
    assert max(ratios) < 1
    assert sum(ratios) / len(ratios) < 0.8


def test_weights_that_overflow_bound_nothing() -> None:
    big = Linear(torch.full((2, 2), 1e200, dtype=D), torch.zeros(2, dtype=D))
    network = chain((2,), [big, Relu(), big])
    slopes = derivatives(network, around(network, torch.zeros(2, dtype=D), 1.0), torch.eye(2, dtype=D))
    assert not bool((slopes.lengths < inf).any())
    assert not bool((slopes.sizes < inf).any())
