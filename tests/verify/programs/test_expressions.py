"""Tests of verify.programs.expressions: affine networks as matrices, value by value."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch

from assay.verify.bounds.backward import matrix
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.network import Builder, Network
from assay.verify.core.ops import Concat, Conv2d, ConvTranspose2d, Gather, Linear, Op, Relu, Reshape, Scale, Smooth
from assay.verify.programs import expressions
from assay.verify.programs.expressions import Expression, express, is_affine, of_columns
from tests import nets
from tests.contract.graphs import random_graph


def expressed(network: Network, columns: np.ndarray, constant: np.ndarray) -> Expression:
    """The output as a function of the columns that the inputs are."""
    values = [of_columns(columns, constant)]
    for node in network.nodes[1:]:
        shapes = [network.nodes[i].shape for i in node.inputs]
        values.append(express(node.op, node.shape, shapes, *(values[i] for i in node.inputs)))
    return values[-1]


def agrees(network: Network, seed: int) -> None:
    """With all inputs as columns, out of order, and with some of them constant."""
    size = network.nodes[0].size
    rng = np.random.default_rng(seed)
    for fixed in (np.zeros(size, dtype=bool), rng.random(size) < 0.5):
        columns = np.where(fixed, -1, rng.permutation(size))
        constant = rng.normal(size=size)
        output = expressed(network, columns, constant).over(size)
        for _ in range(3):
            x = rng.normal(size=size)
            at = torch.from_numpy(np.where(fixed, constant, x[columns])).view(1, *network.input_shape)
            want = network(at).flatten().numpy()
            np.testing.assert_allclose(output.matrix @ x + output.constant, want, rtol=1e-9, atol=1e-9)


def convolution(shape: tuple[int, ...], seed: int, transposed: bool) -> Network:
    rng = nets.generator(seed)
    weight = torch.randn(2, 3, 2, 3, dtype=torch.float64, generator=rng)
    bias = torch.randn(3 if transposed else 2, dtype=torch.float64, generator=rng)
    builder = Builder(shape)
    if transposed:
        builder.add(ConvTranspose2d(weight, bias, (2, 1), (1, 0), (1, 0)), 0)
    else:
        builder.add(Conv2d(weight, bias, (1, 2), (1, 1), (2, 1)), 0)
    return builder.build(1)


def moved() -> Network:
    """Values picked twice, filled in, joined along every axis, scaled by channel."""
    builder = Builder((2, 3, 2))
    index = torch.tensor([5, -1, 0, 0, 11, 3, -1, 7, 2, 9, 10, 4])
    gathered = builder.add(Gather(index, (2, 3, 2), 0.75), 0)
    joined = builder.add(Concat(0), 0, gathered)
    joined = builder.add(Concat(2), joined, joined)
    factor = torch.arange(4, dtype=torch.float64).view(4, 1, 1)
    scaled = builder.add(Scale(factor, factor + 0.5), joined)
    last = builder.add(Linear(torch.randn(3, 4, generator=nets.generator(0)), torch.ones(3)), scaled)
    return builder.build(builder.add(Reshape((36,)), last))


MADE: dict[str, Callable[[], Network]] = {
    "convolution": lambda: convolution((3, 4, 5), 0, transposed=False),
    "transposed": lambda: convolution((2, 3, 3), 1, transposed=True),
    "moved": moved,
}


@pytest.mark.parametrize("name", MADE)
def test_operations(name: str) -> None:
    agrees(MADE[name](), 0)


def test_random_graphs() -> None:
    """Sums, differences, scalings and reshapes of every wiring, without activations."""
    for seed in range(60):
        agrees(random_graph(seed, image=seed % 2 == 0, neurons=0), seed)


@pytest.mark.parametrize("op", [Relu(), Smooth("tanh")])
def test_activations_are_not_affine(op: Op) -> None:
    assert not is_affine(op)
    with pytest.raises(UnsupportedError, match=re.escape(op.label)):
        express(op, (1,), [(1,)], of_columns(np.array([0]), np.zeros(1)))


@pytest.mark.parametrize("largest", [60, 200])
def test_convolutions_too_large_to_be_kept(largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks of one output channel, and of several; no more is written out than may be."""
    for module in (matrix, expressions):
        monkeypatch.setattr(module, "LARGEST", largest)
    agrees(wide(), 0)
    monkeypatch.setattr(expressions, "MOST", 100)
    with pytest.raises(MemoryError, match="too large to be written out"):
        agrees(wide(), 0)


def wide() -> Network:
    """A convolution of 5 output channels that have at most 9 * 6 entries each."""
    rng = nets.generator(2)
    weight, bias = (torch.randn(*size, dtype=torch.float64, generator=rng) for size in ((5, 1, 3, 3), (5,)))
    builder = Builder((1, 3, 2))
    return builder.build(builder.add(Conv2d(weight, bias, (1, 1), (1, 1)), 0))
