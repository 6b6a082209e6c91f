"""Tests of constants of blocks: steps down a convex function, and halves side by side."""

from __future__ import annotations

from math import inf

import pytest
import torch
from torch import Tensor

from assay.verify.backends.lipschitz.product import constants
from assay.verify.core.budget import Budget
from assay.verify.core.network import Builder, Network
from assay.verify.core.ops import Add, Concat, Conv2d, LeakyRelu, Linear, Op, Relu, Scale, Smooth
from tests import nets

D = torch.float64
PAIRS = torch.tensor([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]], dtype=D)


def step(weight: Tensor, back: Tensor, activation: Op, image: bool = False) -> Network:
    """``x + back s(weight x + b)``."""
    bias = torch.linspace(-1, 1, len(weight), dtype=D)
    builder = Builder((weight.shape[1], 2, 3) if image else (weight.shape[1],))
    down = Conv2d(weight[:, :, None, None], bias) if image else Linear(weight, bias)
    zero = torch.zeros(len(back), dtype=D)
    up = Conv2d(back[:, :, None, None], zero) if image else Linear(back, zero)
    change = builder.add(up, builder.add(activation, builder.add(down, 0)))
    return builder.build(builder.add(Add(), 0, change))


def upper(network: Network, p: float) -> float:
    return constants(network, p, Budget())[-1].upper


def steepest(network: Network, p: float) -> float:
    """The largest norm of the Jacobian at 300 points, exactly."""
    points = 3 * torch.randn(300, *network.input_shape, dtype=D, generator=nets.generator(3))
    slopes = torch.autograd.functional.jacobian(lambda x: network(x).sum(0), points)  # each sample's in one pass
    return torch.linalg.matrix_norm(slopes.movedim(1, 0), p).max().item()


@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize("p", [1, 2, inf])
def test_sorting_pairs_is_one_lipschitz(p: float, image: bool) -> None:
    assert upper(step(PAIRS, -PAIRS.T, Relu(), image), p) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("activation", [Relu(), Smooth("tanh"), LeakyRelu(0.5), LeakyRelu(3.0)], ids=repr)
@pytest.mark.parametrize("p", [1, 2, inf])
@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_constants_are_above_all_jacobians(activation: Op, p: float, scale: float) -> None:
    """For steps short and long, and for what only looks like a step."""
    for seed in range(4):
        rng = nets.generator(seed)
        weight = scale * torch.randn(3, 5, dtype=D, generator=rng)
        apart = scale * torch.randn(2, 4, dtype=D, generator=rng) * (PAIRS != 0)
        for rows in (weight, apart):
            for back in (-rows.T, rows.T, -1.5 * rows.T):
                network = step(rows, back, activation)
                assert steepest(network, p) <= upper(network, p) * (1 + 1e-9)


def test_a_short_step_is_one_lipschitz_in_l2() -> None:
    weight = torch.randn(3, 5, dtype=D, generator=nets.generator(0))
    weight *= (1.99 / (weight @ weight.T).norm(p=2)) ** 0.5
    assert upper(step(weight, -weight.T, Smooth("tanh")), 2) == pytest.approx(1, abs=1e-12)
    assert upper(step(weight, -weight.T, LeakyRelu(3.0)), 2) > 2


def halves(factor: float, shift: float) -> Network:
    """``relu(x)`` beside ``relu(factor x + shift)``."""
    builder = Builder((3,))
    other = builder.add(Scale(torch.tensor(factor), torch.tensor(shift)), 0)
    return builder.build(builder.add(Concat(0), builder.add(Relu(), 0), builder.add(Relu(), other)))


@pytest.mark.parametrize("p", [1, 2, inf])
def test_halves_are_one_lipschitz(p: float) -> None:
    assert upper(halves(-1.0, 0.0), p) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("factor", "shift"), [(-1.0, 0.5), (1.0, 0.0), (-2.0, 0.0)])
@pytest.mark.parametrize("p", [1, 2, inf])
def test_other_halves_are_not(factor: float, shift: float, p: float) -> None:
    network = halves(factor, shift)
    assert upper(network, p) >= steepest(network, p) * (1 - 1e-12)
    assert upper(network, 1) >= 2
