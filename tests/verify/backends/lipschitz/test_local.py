"""Tests of local bounds: derivatives and deviations never exceed them, and they are tighter than global ones."""

from __future__ import annotations

from itertools import pairwise
from math import inf

import pytest
import torch
from torch import Tensor

from assay.verify.backends.lipschitz.local import local_constants, strays
from assay.verify.backends.lipschitz.product import constants, row_slopes
from assay.verify.backends.lipschitz.radii import dual_norm
from assay.verify.backends.lipschitz.reach import Reach
from assay.verify.bounds import rigorous
from assay.verify.core.budget import Budget
from assay.verify.core.network import Network, chain, to_network
from assay.verify.core.ops import LeakyRelu, Linear, Max, Relu, Reshape, Smooth
from assay.verify.core.region import Box, LpBall
from assay.verify.core.verifier import Bounds
from tests import nets
from tests.breadth import seeds
from tests.contract.graphs import random_graph

D = torch.float64


def at(network: Network, centre: Tensor) -> list[Bounds]:
    return rigorous.intervals(network, Box(centre[None], centre[None]))


def some(seed: int) -> tuple[Network, Tensor]:
    """A network of any wiring or with leaky, smooth or pooling activations, and a point."""
    rng = nets.generator(seed)
    if seed % 3 == 0:
        network = random_graph(seed, image=seed % 2 == 0)
    elif seed % 3 == 1:
        network = to_network(nets.random_mlp(seed, (4, 9, 7, 3)), (4,))
    else:
        middle = (Smooth("tanh"), LeakyRelu(0.2), LeakyRelu(1.7))[seed % 9 // 3]
        ops = [torch.randn(n, m, dtype=D, generator=rng) for n, m in ((12, 4), (6, 4), (3, 6))]
        zero = torch.zeros(12, dtype=D)
        first, second, third = (Linear(w, zero[: len(w)]) for w in ops)
        network = chain((4,), [first, middle, Reshape((4, 3)), Max(), second, Relu(), third])
    return network, torch.rand(network.input_shape, dtype=D, generator=rng)


@pytest.mark.parametrize("p", [1, 2, inf])
@pytest.mark.parametrize("eps", [0.01, 0.3, 3.0])
@seeds(4, of=9)
def test_members_never_stray_further_and_slopes_are_never_steeper(p: float, eps: float, seeds: range) -> None:
    for seed in seeds:
        network, centre = some(seed)
        region = LpBall(centre, eps, p, None)
        reach, values = Reach.of(region), at(network, centre)
        rows = torch.randn(3, network.output_size, dtype=D, generator=nets.generator(seed))
        x = region.sample(600, nets.generator(seed)).double()
        y = network(x).flatten(1) @ rows.T
        far = (y - network(centre[None]).flatten(1) @ rows.T).abs().amax(0)
        assert bool((far <= strays(network, reach, rows, values, Budget()) * (1 + 1e-9) + 1e-9).all()), f"seed {seed}"
        between = (x[1:] - x[:-1]).flatten(1).norm(p=p, dim=1)[:, None]
        slopes = ((y[1:] - y[:-1]).abs() / between).nan_to_num(nan=0.0).amax(0)
        assert bool((slopes <= local_constants(network, reach, rows, values, Budget()) * (1 + 1e-6)).all()), (
            f"seed {seed}"
        )


def test_on_a_tiny_region_the_bound_is_the_gradient() -> None:
    for seed in range(10):
        network = to_network(nets.random_mlp(seed, (4, 9, 7, 3)), (4,))
        centre = torch.rand(4, dtype=D, generator=nets.generator(seed))
        rows = torch.eye(3, dtype=D)
        gradient = torch.autograd.functional.jacobian(lambda x, n=network: n(x[None])[0], centre)
        reach = Reach.of(LpBall(centre, 1e-9, 2, None))
        for constant in (
            local_constants(network, reach, rows, at(network, centre), Budget()),
            strays(network, reach, rows, at(network, centre), Budget()) / 1e-9,
        ):
            torch.testing.assert_close(constant, gradient.norm(dim=1), rtol=1e-6, atol=1e-9)


def test_the_bound_grows_with_the_region_up_to_a_product_of_magnitudes() -> None:
    network = to_network(nets.random_mlp(3, (4, 9, 7, 3)), (4,))
    centre, rows = torch.rand(4, dtype=D, generator=nets.generator(0)), torch.eye(3, dtype=D)
    bounds = [
        local_constants(network, Reach.of(LpBall(centre, eps, inf, None)), rows, at(network, centre), Budget())
        for eps in (1e-6, 0.01, 0.1, 1.0, 100.0)
    ]
    assert all(bool((a <= b * (1 + 1e-9)).all()) for a, b in pairwise(bounds))
    weights = [op.weight.abs() for op in (node.op for node in network.nodes) if isinstance(op, Linear)]
    all_open = dual_norm(weights[2] @ weights[1] @ weights[0], inf)
    assert bool((bounds[-1] <= all_open * (1 + 1e-9)).all())
    product = row_slopes(network, rows, inf, constants(network, inf, Budget())).upper
    assert bool((all_open <= product * (1 + 1e-9)).all())


def test_secants_are_tighter_than_slopes() -> None:
    """relu(x) - 0.5 at x = 1 over [-1, 3]: no point is further than half a step a step, though slopes reach 1 and 0."""
    network = chain((1,), [Relu()])
    reach = Reach.of(Box(torch.tensor([-1.0]), torch.tensor([3.0])))
    row = torch.eye(1, dtype=D)
    values = at(network, torch.ones(1, dtype=D))
    assert strays(network, reach, row, values, Budget()).item() == pytest.approx(2.0)
    two = chain((1,), [Linear(torch.tensor([[1.0], [1.0]], dtype=D), torch.zeros(2, dtype=D)), Relu()])
    row = torch.tensor([[1.0, -1.0]], dtype=D)  # always 0
    values = at(two, torch.ones(1, dtype=D))
    assert local_constants(two, reach, row, values, Budget()).item() == pytest.approx(1.0)
    assert strays(two, reach, row, values, Budget()).item() == pytest.approx(1.0)  # secants from 1 are in [0.5, 1]


def test_boxes_of_uneven_widths() -> None:
    for seed in range(10):
        network = to_network(nets.random_mlp(seed, (4, 9, 7, 3)), (4,))
        box = Box(torch.tensor([0.0, 0.4, 0.2, -1.0]), torch.tensor([0.5, 0.4, 0.3, 1.0]))
        rows = torch.eye(3, dtype=D)
        far = strays(network, Reach.of(box), rows, at(network, box.centre), Budget())
        x = box.sample(2000, nets.generator(seed)).double()
        assert bool(((network(x) - network(box.centre[None])).abs().amax(0) <= far * (1 + 1e-9)).all())
