"""What layers are composed of is what torch computes, on one sample of any shape."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from assay.verify.core.network import Builder
from assay.verify.core.ops import Op, Relu, Scale, Step, Sub
from assay.verify.frontends import composed
from assay.verify.frontends.choice import chosen
from assay.verify.frontends.composed import Emit, Value
from assay.verify.frontends.refusal import Untranslatable
from tests.nets import generator


def value_of(made: Callable[..., Value], *operands: Tensor) -> Tensor:
    """What is composed, of one sample of each operand, in float64; the shape that it says is its own."""
    builder, emit = begun(sum(x.numel() for x in operands))
    values, start = [], 0
    for x in operands:
        index = torch.arange(x.numel()) + start
        values.append(composed.picked(emit, Value(0, builder.nodes[0].shape), index, tuple(x.shape)))
        start += x.numel()
    result = made(emit, *values)
    network = builder.build(result.position)
    output = network(torch.cat([x.flatten() for x in operands])[None])[0]
    assert result.shape == tuple(output.shape)
    return output


def begun(size: int) -> tuple[Builder, Emit]:
    """A network to append to, and what appends to it; the shapes that it is told are those that come out."""
    builder = Builder((size,))

    def emit(op: Op, *values: Value, shape: tuple[int, ...]) -> Value:
        position = builder.add(op, *(value.position for value in values))
        assert builder.nodes[position].shape == shape
        return Value(position, shape)

    return builder, emit


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=generator(seed))


OF_ONE: dict[str, tuple[Callable[[Emit, Value], Value], Callable[[Tensor], Tensor]]] = {
    "softmax": (composed.softmax, lambda x: x.softmax(-1)),
    "log_softmax": (composed.log_softmax, lambda x: x.log_softmax(-1)),
    "sigmoid": (composed.sigmoid, torch.sigmoid),
    "centred": (composed.centred, lambda x: x - x.mean(-1, keepdim=True)),
    "mean": (composed.mean, lambda x: x.mean(-1, keepdim=True)),
    "total": (composed.total, lambda x: x.sum(-1, keepdim=True)),
    "rms": (lambda e, x: composed.normalised(e, x, 0.01), lambda x: F.rms_norm(x, x.shape[-1:], eps=0.01)),
    "layer norm": (
        lambda e, x: composed.normalised(e, composed.centred(e, x), 0.01),
        lambda x: F.layer_norm(x, x.shape[-1:], eps=0.01),
    ),
    "doubted": (
        lambda e, x: composed.normalised(e, x, 0.01, composed.cancelling(e, x)),
        lambda x: F.rms_norm(x, x.shape[-1:], eps=0.01),
    ),
    "truncated": (composed.truncated, torch.trunc),
    "positive": (composed.positive, lambda x: (x > 0).double()),
    "square": (lambda e, x: composed.product(e, x, x), torch.square),
    **{f"power {p}": (lambda e, x, p=p: composed.power(e, x, p), lambda x, p=p: x**p) for p in (0, 1, 2, 3, -1, -2)},
}


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4), (1,), (2, 1)])
@pytest.mark.parametrize("name", OF_ONE)
def test_of_one_value(name: str, shape: tuple[int, ...]) -> None:
    ours, theirs = OF_ONE[name]
    x = 2 * randn(*shape)
    torch.testing.assert_close(value_of(ours, x), theirs(x))


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4)])
def test_the_logarithm_of_a_sum_of_exponentials(shape: tuple[int, ...]) -> None:
    x = 2 * randn(*shape)
    torch.testing.assert_close(value_of(composed.log_sum_exp, x), x.logsumexp(-1).view(shape[:-1] or (1,)))


def test_means_of_many_values_need_no_matrix() -> None:
    x = randn(2, composed.DENSE + 5)
    torch.testing.assert_close(value_of(composed.centred, x), x - x.mean(-1, keepdim=True))


def test_of_two_values() -> None:
    a, b = randn(3, 4), randn(3, 4, seed=1).abs() + 0.5
    torch.testing.assert_close(value_of(composed.product, a, b), a * b)
    torch.testing.assert_close(value_of(composed.quotient, a, b), a / b)
    left, right = randn(2, 3, 4), randn(2, 4, 5, seed=1)
    torch.testing.assert_close(value_of(composed.matrix_product, left, right), left @ right)


def test_attention() -> None:
    q, k, v = randn(2, 3, 4), randn(2, 5, 4, seed=1), randn(2, 5, 6, seed=2)
    ours = value_of(lambda e, q, k, v: composed.attention(e, q, k, v, 0.5), q, k, v)
    torch.testing.assert_close(ours, F.scaled_dot_product_attention(q, k, v, scale=0.5))


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_what_is_absent_counts_for_nothing(scale: float) -> None:
    x = scale * randn(4, 4)
    absent = torch.ones(4, 4, dtype=torch.bool).triu(1)
    ours = value_of(lambda e, x: composed.softmax(e, x, absent), x)
    true = x.masked_fill(absent, -math.inf).softmax(-1)
    torch.testing.assert_close(ours[~absent], true[~absent])
    assert bool(ours.isfinite().all())  # in the places that mean nothing, too: bounds go through them


def test_what_would_not_fit_into_memory_is_refused_before_it_is_made() -> None:
    _, emit = begun(2)
    wide = Value(0, (1, 5000))
    for make in (
        lambda: composed.softmax(emit, wide),
        lambda: composed.matrix_product(emit, Value(0, (1, 500, 500)), Value(0, (1, 500, 500))),
        lambda: composed.product(emit, Value(0, (2**24,)), Value(1, (2**24,))),
    ):
        with pytest.raises(Untranslatable, match="at most 16777216 are read"):
            make()


def test_a_choice_is_made_of_relus_only_where_it_is_piecewise_linear() -> None:
    x = randn(6)
    for left, right, true in (
        (1.0, 0.0, x.relu()),
        (1.0, 0.25, torch.where(x > 0, x, 0.25 * x)),
        (0.0, 1.0, torch.where(x > 0, 0.0, x)),
    ):
        builder, emit = begun(6)
        value = Value(0, (6,))
        sides = [composed.scaled(emit, value, factor) for factor in (left, right)]
        result = chosen(emit, builder.nodes, composed.positive(emit, value), *sides)
        network = builder.build(result.position)
        torch.testing.assert_close(network(x[None])[0], true)
        kinds = {type(node.op) for node in network.nodes}
        assert Relu in kinds
        assert Step not in kinds


def test_a_choice_of_the_larger_is_a_relu() -> None:
    builder, emit = begun(6)
    x, y = Value(0, (6,)), emit(Scale(torch.tensor(-0.5), torch.tensor(0.1)), Value(0, (6,)), shape=(6,))
    above = composed.positive(emit, emit(Sub(), x, y, shape=(6,)))
    network = builder.build(chosen(emit, builder.nodes, above, x, y).position)
    points = randn(5, 6)
    torch.testing.assert_close(network(points), torch.maximum(points, 0.1 - 0.5 * points))
    assert not any(isinstance(node.op, Step) for node in network.nodes)


def test_what_jumps_stays_a_choice() -> None:
    builder, emit = begun(6)
    x = Value(0, (6,))
    shifted = composed.scaled(emit, x, 1.0, 0.5)
    result = chosen(emit, builder.nodes, composed.positive(emit, x), shifted, torch.tensor(0.0, dtype=torch.float64))
    points = randn(5, 6)
    torch.testing.assert_close(builder.build(result.position)(points), torch.where(points > 0, points + 0.5, 0.0))
    with pytest.raises(Untranslatable, match="not finite"):
        chosen(emit, builder.nodes, composed.positive(emit, x), x, torch.tensor(-math.inf))
