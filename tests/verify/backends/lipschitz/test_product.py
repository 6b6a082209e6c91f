"""Tests of global constants: the worked example, graph rules, and slopes that never exceed a bound."""

from __future__ import annotations

from itertools import product
from math import inf

import pytest
import torch
from torch import Tensor, nn

from assay.verify.backends.lipschitz import radii
from assay.verify.backends.lipschitz.product import constants, row_slopes, without_rule
from assay.verify.core.budget import Budget, Expired
from assay.verify.core.network import Builder, Network, chain, to_network
from assay.verify.core.ops import Add, Concat, Linear, Op, Relu, Scale, Sub
from assay.verify.core.spec import Spec
from tests import nets
from tests.breadth import few
from tests.contract.graphs import random_graph

D = torch.float64
W1 = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.0, 1.0]], dtype=D)
W2 = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]], dtype=D)


def linear(weight: Tensor) -> Linear:
    return Linear(weight, torch.zeros(len(weight), dtype=D))


EXAMPLE = chain((2,), [linear(W1), Relu(), linear(W2)])


def steepest(network: Network, rows: Tensor, p: float, pairs: int, seed: int = 0) -> float:
    """The largest ``|rows (f(x) - f(y))| / ||x - y||_p`` over pairs far apart and close together."""
    rng = nets.generator(seed)
    x = 2 * torch.randn(pairs, *network.input_shape, dtype=D, generator=rng)
    step = torch.randn(x.shape, dtype=D, generator=rng) * 10 ** (-3 * torch.rand(pairs, dtype=D, generator=rng)).view(
        -1, *[1] * (x.dim() - 1)
    )
    rise = ((network(x + step) - network(x)).flatten(1) @ rows.T).abs()
    return (rise / step.flatten(1).norm(p=p, dim=1)[:, None]).amax(0).max().item()


def test_the_worked_example() -> None:
    known = constants(EXAMPLE, 2, Budget())
    assert known[1].upper == pytest.approx(3.199386, abs=1e-5)
    assert known[3].upper / known[1].upper == pytest.approx(2.449490, abs=1e-5)
    spec = Spec.robust(0, 2)
    values = spec.A @ EXAMPLE(torch.ones(1, 2, dtype=D))[0]
    assert values.tolist() == pytest.approx([4.0])
    for p, radius in ((2, 0.376962), (inf, 0.2), (1, 1 / 3)):
        slopes = row_slopes(EXAMPLE, spec.A, p, constants(EXAMPLE, p, Budget())).upper
        assert radii.radius(spec, values, slopes) == pytest.approx(radius, abs=1e-5)
    assert radii.radius_from_constant(values, known[-1].upper) == pytest.approx(0.360913, abs=1e-5)


def test_the_product_is_above_every_activation_pattern() -> None:
    row = torch.tensor([[1.0, -1.0]], dtype=D) @ W2
    patterns = [(row * torch.tensor(signs, dtype=D)) @ W1 for signs in product((0.0, 1.0), repeat=3)]
    assert max(pattern.norm().item() for pattern in patterns) == pytest.approx(6.324555, abs=1e-6)
    slope = row_slopes(EXAMPLE, torch.tensor([[1.0, -1.0]], dtype=D), 2, constants(EXAMPLE, 2, Budget()))
    assert slope.upper.item() == pytest.approx(10.611161, abs=1e-5)
    assert slope.estimate.item() <= slope.upper.item()


@pytest.mark.parametrize("p", [1, 2, inf])
@pytest.mark.parametrize("image", [False, True])
def test_sampled_slopes_never_exceed_the_bounds(p: float, image: bool) -> None:
    for seed in range(12):
        network = random_graph(seed, image)
        rows = torch.randn(3, network.output_size, dtype=D, generator=nets.generator(seed))
        bound = row_slopes(network, rows, p, constants(network, p, Budget())).upper
        for row, upper in zip(rows, bound.tolist(), strict=True):
            assert steepest(network, row[None], p, 10_000) <= upper * (1 + 1e-9) + 1e-9


POOLS = {
    "max": nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(9, 3)),
    "overlapping max": nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), nn.Flatten(), nn.Linear(36, 3)),
    "average": nn.Sequential(nn.AvgPool2d(3, stride=1), nn.Flatten(), nn.Linear(16, 3)),
    "sigmoid": nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(32, 3)),
    "batchnorm": nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(32, 3)),
    "residual": nets.random_resnet(0, (1, 6, 6)),
    "functional": nets.random_functional(0, (1, 6, 6)),
}


@pytest.mark.parametrize("p", few([1, 2, inf], quick=[2]))
@pytest.mark.parametrize("name", POOLS)
def test_sampled_slopes_of_layers_of_every_kind(name: str, p: float) -> None:
    network = to_network(nets.randomised(POOLS[name], 1), (1, 6, 6))
    known = constants(network, p, Budget())
    eye = torch.eye(network.output_size, dtype=D)
    assert steepest(network, eye, p, 10_000) <= row_slopes(network, eye, p, known).upper.max().item() * (1 + 1e-9)


def branches(join: Op) -> Network:
    """``join`` of x times 2 and of relu(x) times 3."""
    builder = Builder((2,))
    double = builder.add(Scale(torch.tensor(2.0), torch.tensor(0.0)), 0)
    triple = builder.add(Scale(torch.tensor(3.0), torch.tensor(0.0)), builder.add(Relu(), 0))
    return builder.build(builder.add(join, double, triple))


@pytest.mark.parametrize(
    ("join", "p", "true"),
    [
        (Add(), 2, 5.0),
        (Sub(), 1, 5.0),
        (Concat(0), 1, 5.0),
        (Concat(0), 2, 13**0.5),
        (Concat(0), inf, 3.0),
    ],
)
def test_rules_of_joins(join: Op, p: float, true: float) -> None:
    assert constants(branches(join), p, Budget())[-1].upper == pytest.approx(true)
    assert constants(branches(join), p, Budget())[-1].upper >= true


def test_a_residual_block_adds_one() -> None:
    builder = Builder((2,))
    body = builder.add(Relu(), builder.add(linear(torch.tensor([[3.0, 0.0], [0.0, 1.0]], dtype=D)), 0))
    network = builder.build(builder.add(Add(), 0, body))
    assert constants(network, 2, Budget())[-1].upper == pytest.approx(4, rel=1e-6)


def test_two_models_in_one_process_have_their_own_constants() -> None:
    """Alternating between models and norms gives what each gives in a process of its own."""
    networks = [to_network(nets.random_cnn(seed), (1, 6, 6)) for seed in range(3)]
    fresh = {
        (i, p): constants(to_network(nets.random_cnn(i), (1, 6, 6)), p, Budget())[-1]
        for i in range(3)
        for p in (1, 2, inf)
    }
    assert len(set(fresh.values())) == 9
    for _ in range(2):
        for p in (2, inf, 1):
            for i in (2, 0, 1):
                assert constants(networks[i], p, Budget())[-1] == fresh[i, p]
                assert constants(networks[i].to(torch.float32), p, Budget())[-1].upper == pytest.approx(
                    fresh[i, p].upper, rel=1e-5
                )


def test_no_time_raises() -> None:
    with pytest.raises(Expired):
        constants(EXAMPLE, 2, Budget(seconds=0).started())


def test_what_has_a_rule() -> None:
    assert without_rule(EXAMPLE) is None
    assert without_rule(to_network(nets.random_resnet(0), (1, 4, 4))) is None
