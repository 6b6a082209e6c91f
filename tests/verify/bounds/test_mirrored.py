"""Tests of verify.bounds.mirrored: neurons that read opposite numbers are one, and their network the same function."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from assay.verify.backends.alpha_crown import AlphaCROWN
from assay.verify.backends.bab.inputs.input_split import InputSplit
from assay.verify.backends.crown import CROWN
from assay.verify.backends.smt.method import SMT
from assay.verify.bounds.mirrored import merged
from assay.verify.core.budget import UNLIMITED
from assay.verify.core.network import Builder, Network
from assay.verify.core.ops import Linear, Relu
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.result import Verdict
from assay.verify.core.spec import Spec
from tests.nets import generator

D = torch.float64
MIN = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]], dtype=D)  # a + b, its opposite, a - b, its own
HALF = torch.tensor([[0.5, -0.5, -0.5, -0.5]], dtype=D)


def chained(inputs: int, *layers: tuple[Tensor, Tensor]) -> Network:
    """Linear layers of these weights and biases, ReLUs between them."""
    builder, at = Builder((inputs,)), 0
    for number, (weight, bias) in enumerate(layers):
        at = builder.add(Relu(), at) if number else at
        at = builder.add(Linear(weight, bias), at)
    return builder.build(at, dtype=D)


def blocks(weight: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """``count`` copies of a weight along the diagonal, and no bias."""
    return torch.block_diag(*[weight] * count), torch.zeros(count * len(weight), dtype=D)


def lattice(seed: int, pieces: int = 8) -> tuple[Network, Tensor, Tensor]:
    """The least of so many linear functions of two inputs, two and two; and these functions."""
    rng = generator(seed)
    weight, bias = torch.randn(pieces, 2, generator=rng, dtype=D).round(decimals=1), torch.zeros(pieces, dtype=D)
    builder = Builder((2,))
    at = builder.add(Linear(weight, bias), 0)
    while pieces > 1:
        pieces //= 2
        for part, last in ((MIN, False), (HALF, True)):
            at = builder.add(Linear(*blocks(part, pieces)), at)
            at = at if last else builder.add(Relu(), at)
    return builder.build(at, dtype=D), weight, bias


def relus(network: Network) -> int:
    return sum(node.size for node in network.nodes if isinstance(node.op, Relu))


@pytest.mark.parametrize("seed", range(3))
def test_a_least_value_is_one_neuron_each_and_the_same_function(seed: int) -> None:
    network, weight, bias = lattice(seed)
    one = merged(network)
    assert (relus(network), relus(one)) == (28, 7)
    assert merged(network) is one
    x = 4 * torch.rand(200, 2, generator=generator(seed), dtype=D) - 2
    wanted = (x @ weight.T + bias).amin(1, keepdim=True)
    torch.testing.assert_close(one(x), wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(network(x), wanted, rtol=0, atol=1e-12)


def test_what_is_no_kink_is_bounded_exactly_and_one_kink_by_its_hull() -> None:
    both = torch.tensor([[1.0], [-1.0]], dtype=D)
    read = torch.tensor([[1.0, -1.0], [1.0, 1.0], [3.0, -1.0]], dtype=D)
    network = chained(1, (both, torch.tensor([0.5, -0.5], dtype=D)), (read, torch.zeros(3, dtype=D)))
    bounds = CROWN().bound(network, Box(torch.tensor([-2.0]), torch.tensor([1.0])), torch.eye(3, dtype=D), UNLIMITED)
    # s between -1.5 and 1.5; s itself, |s|, and 3 relu(s) - relu(-s), which is convex
    torch.testing.assert_close(bounds.lower[0, 0], torch.tensor(-1.5, dtype=D), rtol=0, atol=1e-9)
    torch.testing.assert_close(bounds.upper[0], torch.tensor([1.5, 1.5, 4.5], dtype=D), rtol=0, atol=1e-9)
    assert float(bounds.lower[0, 2]) >= -4.5


@pytest.mark.parametrize("seed", range(4))
def test_repeated_and_opposite_neurons_of_any_weights(seed: int) -> None:
    rng = generator(seed)
    rows = torch.randn(5, 3, generator=rng, dtype=D).float().double()
    pick, sign = torch.randint(5, (12,), generator=rng), 1 - 2 * torch.randint(2, (12,), generator=rng).to(D)
    first = sign[:, None] * rows[pick], sign * torch.arange(5, dtype=D)[pick] / 8
    second = torch.randn(6, 12, generator=rng, dtype=D).float().double(), torch.zeros(6, dtype=D)
    third = torch.randn(2, 6, generator=rng, dtype=D), torch.ones(2, dtype=D)
    network = chained(3, first, second, third)
    one = merged(network)
    assert relus(one) == 6 + len(pick.unique())
    box = Box(-torch.ones(3, dtype=D), torch.ones(3, dtype=D))
    x = 2 * torch.rand(500, 3, generator=rng, dtype=D) - 1
    torch.testing.assert_close(one(x), network(x), rtol=0, atol=1e-12)
    bounds = CROWN().bound(network, box, torch.eye(2, dtype=D), UNLIMITED)
    assert bool(((bounds.lower <= network(x)) & (network(x) <= bounds.upper)).all())


def test_sums_that_would_be_rounded_and_rows_that_are_nearly_alike_are_left() -> None:
    rows = torch.tensor([[1.0, 2.0], [-1.0, -2.0]], dtype=D)
    tiny, zero = torch.tensor([[1.0, 2.0**-60]], dtype=D), torch.zeros(1, dtype=D)
    assert merged(network := chained(2, (rows, torch.zeros(2, dtype=D)), (tiny, zero))) is network
    near = rows * torch.tensor([[1.0], [1 + 1e-14]], dtype=D)
    assert merged(network := chained(2, (near, torch.zeros(2, dtype=D)), (tiny.round(), zero))) is network
    beyond = torch.tensor([[1.0, 0.125]], dtype=D) * (1 + 2.0**-52) * 2.0**-1000  # a sum of 56 digits
    assert merged(network := chained(2, (rows, torch.zeros(2, dtype=D)), (beyond, zero))) is network
    apart = torch.tensor([0.0, 1.0], dtype=D)
    assert merged(network := chained(2, (rows, apart), (tiny.round(), zero))) is network


@pytest.mark.parametrize("shift", [-0.05, 0.05])
def test_boxes_decide_as_exact_rationals_do(shift: float) -> None:
    network, weight, _ = lattice(1, pieces=4)
    box = Box(-torch.ones(2, dtype=D), torch.ones(2, dtype=D))
    least = float((-weight.abs().sum(1)).amin())  # of the least of linear functions, at a corner
    spec = Spec.halfspaces([[1.0]], [least - shift])
    problem = Problem(network, box, spec)
    wanted = Verdict.VERIFIED if shift > 0 else Verdict.FALSIFIED
    results = [method.verify(problem) for method in (InputSplit(), InputSplit(merge=False, proof=True), SMT())]
    assert [result.verdict for result in results] == [wanted] * 3
    assert results[0].stats["domains"] <= results[1].stats["domains"]
    assert InputSplit(proof=True).verify(problem).certificate is None


@pytest.mark.parametrize("proof", [False, True])
def test_raised_bounds_are_never_below_plain_ones(proof: bool) -> None:
    network, _, _ = lattice(5)
    region, objective = (
        Box(torch.tensor([0.1, 0.2], dtype=D), torch.tensor([0.6, 0.5], dtype=D)),
        torch.ones(1, 1, 1, dtype=D),
    )
    plain, raised = (method.bound(network, region, objective) for method in (CROWN(), AlphaCROWN(steps=3, proof=proof)))
    assert bool((raised.lower >= plain.lower).all())
    assert bool((raised.upper <= plain.upper).all())
