"""Networks: conversion, values, casts that are kept, the bound on rounding errors, hashes of the content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from math import inf, nan

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from assay.verify.core.errors import InputError, InternalError
from assay.verify.core.network import Builder, Network, Node, chain, content_hash, to_network
from assay.verify.core.ops import (
    Add,
    Conv2d,
    Input,
    InverseSumExp,
    Linear,
    Max,
    Op,
    Product,
    Relu,
    Reshape,
    Scale,
    Sub,
)
from tests.breadth import slow
from tests.nets import TRAPS, Shape, generator, networks, random_cnn, random_mlp, random_resnet, rational, seeds, trap


def linear(weight: list[list[float]], bias: list[float]) -> Linear:
    return Linear(torch.tensor(weight, dtype=torch.float64), torch.tensor(bias, dtype=torch.float64))


def diamond() -> Network:
    """y = relu(2 x) - x / 2, and a node that leads nowhere."""
    builder = Builder((2,))
    left = builder.add(Relu(), builder.add(Scale(torch.tensor(2.0), torch.tensor(0.0)), 0))
    builder.add(Relu(), left)
    right = builder.add(linear([[0.5, 0.0], [0.0, 0.5]], [0.0, 0.0]), 0)
    return builder.build(builder.add(Sub(), left, right), name="diamond")


def test_a_network_is_its_own_network() -> None:
    network = diamond()
    assert to_network(network) is network
    assert to_network(network, (2,)) is network
    assert to_network(network, [2]) is network


@pytest.mark.parametrize("op", [Max(), Product(), InverseSumExp()], ids=lambda op: op.label)
def test_of_a_vector_a_vector_of_one_is_made(op: Op) -> None:
    network = chain((2,), [op, Relu()])
    assert [node.shape for node in network.nodes] == [(2,), (1, 2), (1,), (1,)]
    assert network(torch.ones(3, 2)).shape == (3, 1)


def test_a_network_refuses_another_shape() -> None:
    with pytest.raises(InputError, match=r"expected inputs of shape \(2,\), got \(3,\)"):
        to_network(diamond(), (3,))


@pytest.mark.parametrize("model", [None, 3, "zoo:mlp", lambda x: x, torch.zeros(2)])
def test_what_is_no_model_is_refused(model: object) -> None:
    with pytest.raises(
        InputError, match=f"expected a torch.nn.Module, a Network, or the Path.*, got {type(model).__name__}"
    ):
        to_network(model, (2,))


@pytest.mark.parametrize("shape", [(), (2,), (2, 3), (2, 2, 1), (1, 1)])
def test_inputs_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected a batch of inputs of shape \(2,\), got"):
        diamond()(torch.zeros(shape))


def test_values_are_those_of_every_node() -> None:
    network = diamond()
    x = torch.tensor([[1.0, -2.0], [0.0, 3.0]])
    assert network(x).tolist() == [[1.5, 1.0], [0.0, 4.5]]
    values = dict(zip((n.op.label for n in network.nodes), network.values(x), strict=True))
    assert torch.equal(values["Input"], x)
    assert values["Scale"].tolist() == [[2.0, -4.0], [0.0, 6.0]]
    assert values["Relu"].tolist() == [[2.0, 0.0], [0.0, 6.0]]
    assert values["Linear"].tolist() == [[0.5, -1.0], [0.0, 1.5]]
    assert torch.equal(values["Sub"], network(x))


def test_nodes_that_lead_nowhere_are_left_out() -> None:
    network = diamond()
    assert [n.op.label for n in network.nodes] == ["Input", "Scale", "Relu", "Linear", "Sub"]
    assert [n.inputs for n in network.nodes] == [(), (0,), (1,), (0,), (2, 3)]
    assert (network.input_shape, network.output_size, network.name) == ((2,), 2, "diamond")


@settings(max_examples=30)
@given(networks(), seeds)
def test_networks_compute_what_their_modules_compute(case: tuple[nn.Module, Shape], seed: int) -> None:
    module, shape = case
    network = to_network(module, shape)
    x = torch.rand((3, *shape), generator=generator(seed))
    assert network.input_shape == shape
    assert network.output_size == module(x).shape[1]
    assert torch.allclose(network(x.double()), module.double()(x.double()), rtol=1e-9, atol=1e-9)
    for node, value in zip(network.nodes, network.values(x), strict=True):
        assert value.shape == (3, *node.shape)
        assert value.dtype == x.dtype
        assert value[0].numel() == node.size


def test_casts_are_kept() -> None:
    network = to_network(random_mlp(0), (4,))
    single = network.to(torch.float32)
    assert network.to(torch.float32) is single
    assert network.to(torch.float32, torch.device("cpu")) is single
    assert network.to(torch.float64) is not single
    for cast, dtype in ((single, torch.float32), (network.to(torch.float64), torch.float64)):
        ops = [n.op for n in cast.nodes if isinstance(n.op, Linear)]
        assert ops
        assert {tensor.dtype for op in ops for tensor in (op.weight, op.bias)} == {dtype}
    assert (single.oracle, single.dtype, single.name) == (network.oracle, network.dtype, network.name)


def test_operations_hold_float64() -> None:
    network = chain((2,), [Linear(torch.ones(3, 2), torch.zeros(3))])
    op = network.nodes[1].op
    assert isinstance(op, Linear)
    assert (op.weight.dtype, op.bias.dtype) == (torch.float64, torch.float64)


def test_a_network_that_is_none_is_an_internal_error() -> None:
    with pytest.raises(InternalError, match="starts with its input node"):
        Network(())
    with pytest.raises(InternalError, match="starts with its input node"):
        Network((Node(Relu(), (), (1,)),))
    with pytest.raises(InternalError, match="topological order"):
        Network((Node(Input(), (), (1,)), Node(Relu(), (1,), (1,))))
    with pytest.raises(InternalError, match="topological order"):
        Network((Node(Input(), (), (1,)), Node(Relu(), (-1,), (1,))))


@pytest.mark.parametrize("examples", [20, slow(60)])
def test_the_rounding_error_covers_float32(examples: int) -> None:
    @settings(max_examples=examples)
    @given(networks(), seeds, st.sampled_from([1e-3, 1.0, 1e3]))
    def check(case: tuple[nn.Module, Shape], seed: int, scale: float) -> None:
        module, shape = case
        network = to_network(module, shape)
        x = scale * torch.randn((4, *shape), generator=generator(seed))
        error, magnitude = network.rounding_error(x, torch.float32)
        real = network(x.double())
        assert (error.dtype, magnitude.dtype, error.shape) == (torch.float64, torch.float64, real.shape)
        assert error.isfinite().all()
        assert ((network(x).double() - real).abs() <= error).all()
        assert (real.abs() <= magnitude * (1 + 1e-12)).all()
        assert (error <= 1e-3 * magnitude).all()

    check()


def test_the_rounding_error_covers_float64_in_rational_arithmetic() -> None:
    module = random_mlp(1, (3, 5, 4, 2)).double()
    network = to_network(module, (3,))
    xs = torch.rand((5, 3), generator=generator(0), dtype=torch.float64)
    for dtype in (torch.float32, torch.float64):
        x = xs.to(dtype)
        error, _ = network.rounding_error(x, dtype)
        for row, point, bound in zip(network(x).tolist(), x.tolist(), error.tolist(), strict=True):
            for value, real, most in zip(row, rational(module, point), bound, strict=True):
                assert abs(Fraction(value) - real) <= Fraction(most)
                assert most < (1e-4 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("name", TRAPS)
@pytest.mark.parametrize(("B", "dtype"), [(2.0**25, torch.float32), (2.0**54, torch.float64)])
def test_the_rounding_error_covers_the_float_traps(name: str, B: float, dtype: torch.dtype) -> None:
    module = trap(name, B, dtype)
    network = to_network(module, (1,))
    x = torch.rand((50, 1), generator=generator(0), dtype=dtype)
    x[0] = 1
    error, _ = network.rounding_error(x, dtype)
    for point, value, most in zip(x.tolist(), module(x).flatten().tolist(), error.flatten().tolist(), strict=True):
        assert abs(Fraction(value) - rational(module, point)[0]) <= Fraction(most)


def test_the_rounding_error_covers_underflow() -> None:
    tiny, huge = linear([[2.0**-80]], [0.0]), linear([[2.0**80]], [0.0])
    network = chain((1,), [tiny, tiny, huge, huge])
    x = torch.ones(1, 1)
    error, _ = network.rounding_error(x, torch.float32)
    assert abs(network(x).double() - network(x.double())).item() == 1
    assert error.item() >= 1


def test_the_rounding_error_grows_with_what_cancels() -> None:
    x = torch.ones(1, 1)
    errors = [
        chain((1,), [linear([[1.0]], [B]), linear([[1.0]], [-B])]).rounding_error(x, torch.float32)[0].item()
        for B in (0.0, 2.0**10, 2.0**25)
    ]
    assert errors[0] < 1e-5 < errors[1] < 1 < errors[2]


def test_where_nothing_is_summed_only_the_inputs_rounding_remains() -> None:
    network = chain((2, 2), [Relu(), Reshape((4,))])
    error, magnitude = network.rounding_error(torch.full((1, 2, 2), 0.5), torch.float32)
    assert magnitude.tolist() == [[0.5] * 4]
    assert error.tolist() == [[2.0**-25] * 4]


@dataclass(frozen=True)
class Point:
    """A dataclass to hash."""

    x: object
    y: object = 0


@dataclass(frozen=True)
class Pair:
    """Another with the same fields."""

    x: object
    y: object = 0


def test_hashes_follow_the_content() -> None:
    values: list[object] = [
        0,
        1,
        True,
        None,
        0.0,
        -0.0,
        1.0,
        5e-324,
        inf,
        nan,
        "",
        "1",
        "ab",
        (),
        (1,),
        (1, 2),
        ((1,), 2),
        (1, (2,)),
        Point(1, 2),
        Point(2, 1),
        Pair(1, 2),
        torch.zeros(2),
        -torch.zeros(2),
        torch.zeros(2, dtype=torch.float64),
        torch.zeros(2, dtype=torch.int32),
        torch.zeros(1, 2),
        torch.zeros(2, 1),
        torch.zeros(0),
        torch.zeros(()),
        torch.tensor([0.0, 5e-324], dtype=torch.float64),
        torch.tensor([True, False]),
    ]
    hashes = [content_hash(v) for v in values]
    assert len(set(hashes)) == len(values)
    assert hashes == [content_hash(v) for v in values]
    assert all(len(h) == 32 and set(h) <= set("0123456789abcdef") for h in hashes)
    assert content_hash("a", "b") != content_hash("ab")
    assert content_hash([1, 2]) == content_hash((1, 2))


def test_hashes_of_tensors_ignore_how_they_are_stored() -> None:
    x = torch.arange(6.0).reshape(2, 3)
    assert content_hash(x.T.contiguous()) == content_hash(x.T)
    assert content_hash(x[:, 1]) == content_hash(torch.tensor([1.0, 4.0]))
    assert content_hash(torch.tensor(2.0).expand(1)) == content_hash(torch.tensor([2.0]))
    assert content_hash(x.clone().requires_grad_()) == content_hash(x)


@pytest.mark.parametrize("make", [random_mlp, random_cnn, random_resnet])
def test_the_id_of_a_network_follows_its_weights(make: Callable[[int], nn.Module]) -> None:
    shape = {random_mlp: (4,), random_cnn: (1, 6, 6), random_resnet: (1, 4, 4)}[make]
    assert to_network(make(0), shape).id == to_network(make(0), shape).id
    assert to_network(make(0), shape).id != to_network(make(1), shape).id


def test_the_id_of_a_network_follows_its_operations_wiring_and_dtype() -> None:
    weight, bias = torch.ones(1, 1, 2, 2, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    convolution = Conv2d(weight, bias)
    convolutions: list[Op] = [
        convolution,
        replace(convolution, stride=(2, 2)),
        replace(convolution, padding=(1, 1)),
        replace(convolution, dilation=(2, 2)),
    ]
    variants = [chain((1, 5, 5), [op]) for op in convolutions] + [chain((2,), []), chain((2,), [Relu()])]
    for op, order in ((Sub(), (0, 1)), (Sub(), (1, 0)), (Add(), (0, 1))):
        builder = Builder((2,))
        builder.add(Relu(), 0)
        variants.append(builder.build(builder.add(op, *order)))
    variants.append(replace(diamond(), dtype=torch.float64))
    variants.append(diamond())
    assert len({network.id for network in variants}) == len(variants)


def test_the_id_of_a_network_ignores_its_name_and_its_oracle() -> None:
    def oracle(x: Tensor) -> Tensor:
        return x

    assert replace(diamond(), name="other", oracle=oracle).id == diamond().id
