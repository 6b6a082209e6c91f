"""Tests of verify.frontends.fold: scalings disappear where that is exact, and the function never changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from assay.verify.core.network import Builder, Network, Node
from assay.verify.core.ops import Add, Conv2d, Input, Linear, Op, Relu, Scale, Smooth, Sub
from assay.verify.frontends.fold import fold


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def assert_same(network: Network, ops: list[type[Op]]) -> Network:
    folded = fold(network)
    assert [type(n.op) for n in folded.nodes[1:]] == ops
    x = randn(5, *network.input_shape, seed=9)
    torch.testing.assert_close(folded(x), network(x), rtol=1e-12, atol=1e-12)
    return folded


def built(shape: tuple[int, ...], *ops: Op) -> Network:
    builder = Builder(shape)
    last = 0
    for op in ops:
        last = builder.add(op, last)
    return builder.build(last)


LINEAR = Linear(randn(4, 3), randn(4))
CONV = Conv2d(randn(4, 2, 3, 3), randn(4), padding=(1, 1))


@pytest.mark.parametrize("shape", [(), (1,), (4,)])
def test_into_linear(shape: tuple[int, ...]) -> None:
    assert_same(built((3,), LINEAR, Scale(randn(*shape), randn(*shape, seed=1))), [Linear])


def test_into_linear_on_the_last_axis() -> None:
    assert_same(built((2, 3), LINEAR, Scale(randn(4), randn(4, seed=1))), [Linear])


def test_not_into_linear_along_another_axis() -> None:
    assert_same(built((2, 3), LINEAR, Scale(randn(2, 1), randn(2, 1, seed=1))), [Linear, Scale])


@pytest.mark.parametrize("shape", [(), (4, 1, 1), (1, 1, 1)])
def test_into_convolutions(shape: tuple[int, ...]) -> None:
    assert_same(built((2, 3, 3), CONV, Scale(randn(*shape), randn(*shape, seed=1))), [Conv2d])


@pytest.mark.parametrize("shape", [(3,), (3, 3), (4, 3, 3)])
def test_not_into_convolutions_along_pixels(shape: tuple[int, ...]) -> None:
    assert_same(built((2, 3, 3), CONV, Scale(randn(*shape), randn(*shape, seed=1))), [Conv2d, Scale])


def test_one_shift_that_varies_keeps_the_scaling() -> None:
    assert_same(built((2, 3, 3), CONV, Scale(randn(4, 1, 1), randn(4, 3, 3))), [Conv2d, Scale])


def test_scalings_after_scalings() -> None:
    chain = [Scale(randn(3), randn(3, seed=1)), Scale(randn(), randn(3, seed=2)), Scale(randn(3, seed=3), randn())]
    assert_same(built((3,), *chain), [Scale])
    assert_same(built((3,), LINEAR, *[Scale(randn(4, seed=i), randn(4, seed=9 - i)) for i in range(3)]), [Linear])


def test_not_past_an_activation() -> None:
    assert_same(built((3,), LINEAR, Relu(), Scale(randn(4), randn(4)), Relu()), [Linear, Relu, Scale, Relu])


def test_a_source_with_several_readers_stays() -> None:
    builder = Builder((3,))
    linear = builder.add(LINEAR, 0)
    scaled = builder.add(Scale(randn(4), randn(4, seed=1)), linear)
    again = builder.add(Scale(randn(4, seed=2), randn(4, seed=3)), scaled)
    total = builder.add(Add(), builder.add(Relu(), again), linear)
    assert_same(builder.build(total), [Linear, Scale, Relu, Add])


def test_a_scaling_read_twice_is_folded_once() -> None:
    builder = Builder((3,))
    scaled = builder.add(Scale(randn(4), randn(4, seed=1)), builder.add(LINEAR, 0))
    assert_same(builder.build(builder.add(Add(), scaled, builder.add(Relu(), scaled))), [Linear, Relu, Add])
    assert_same(builder.build(builder.add(Add(), scaled, scaled)), [Linear, Add])


def test_the_two_scalings_of_one_source() -> None:
    builder = Builder((3,))
    linear = builder.add(LINEAR, 0)
    left = builder.add(Scale(randn(4), randn(4, seed=1)), linear)
    right = builder.add(Scale(randn(4, seed=2), randn(4, seed=3)), linear)
    assert_same(builder.build(builder.add(Add(), left, right)), [Linear, Scale, Scale, Add])


def test_oracle_dtype_and_name_are_kept() -> None:
    builder = Builder((3,))
    last = builder.add(Scale(randn(4), randn(4)), builder.add(LINEAR, 0))
    network = builder.build(last, oracle=torch.relu, dtype=torch.float64, name="one")
    folded = fold(network)
    assert (folded.oracle, folded.dtype, folded.name) == (torch.relu, torch.float64, "one")


def test_nothing_is_rounded_to_the_weights_precision() -> None:
    """A float64 number times a float32 tensor is float32 to torch."""
    weight, third = randn(4).float(), torch.tensor(1 / 3, dtype=torch.float64)
    network = Network(
        (
            Node(Input(), (), (4,)),
            Node(Scale(weight, torch.zeros(4)), (0,), (4,)),
            Node(Scale(third, torch.zeros((), dtype=torch.float64)), (1,), (4,)),
        )
    )
    folded = fold(network, torch.float64)
    (scale,) = (node.op for node in folded.nodes[1:])
    assert isinstance(scale, Scale)
    assert torch.equal(scale.factor, weight.double() * third)


def test_what_is_a_value_less_itself_is_not_added() -> None:
    builder = Builder((3,))
    square = builder.add(Smooth("square"), 0)
    nothing = builder.add(Sub(), square, square)
    network = builder.build(builder.add(Add(), square, nothing))
    assert [type(node.op) for node in fold(network).nodes] == [Input, Smooth]
