"""Tests of backward.affine: each rule beside the derivative, in any shape; gradients pass; the rest is refused."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from math import prod

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from assay.verify.backends.crown import CROWN
from assay.verify.bounds.backward.affine import Part, Shape, entries, fan, homogeneous, pull
from assay.verify.core.budget import Budget
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.network import chain
from assay.verify.core.ops import (
    Add,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Gather,
    LeakyRelu,
    Linear,
    Max,
    Op,
    Relu,
    Reshape,
    Scale,
    Smooth,
    Sub,
    evaluate,
)
from assay.verify.core.region import Box
from tests.nets import generator, seeds

D = torch.float64
KINDS = ("linear", "thin", "rows", "conv", "transposed", "scale", "reshape", "gather", "concat", "add", "sub")


def drawn(kind: str, seed: int) -> tuple[Op, list[Shape]]:
    """An operation and the shapes of its operands."""
    choice, rng = random.Random(seed), generator(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=D, generator=rng)

    flat, image = (choice.randint(1, 6),), (choice.randint(1, 4), choice.randint(3, 7), choice.randint(3, 7))
    some: Shape = choice.choice([flat, image])
    if kind == "linear":
        outputs = choice.randint(1, 6)
        return Linear(normal(outputs, *flat), normal(outputs)), [flat]
    if kind == "thin":  # few entries other than zero, in some rows none
        weight = torch.where(torch.rand(40, 30, generator=rng) < 0.04, normal(40, 30), torch.zeros(40, 30, dtype=D))
        return Linear(weight, normal(40)), [(30,)]
    if kind == "rows":
        shape = choice.choice([(3, *flat), image])
        return Linear(normal(4, shape[-1]), normal(4)), [shape]
    if kind in ("conv", "transposed"):
        groups = choice.choice([1, 2, 3])
        inside, outside = groups * choice.randint(1, 2), groups * choice.randint(1, 2)
        kernel, stride = ((choice.randint(1, 3), choice.randint(1, 3)) for _ in range(2))
        padding, dilation = (choice.randint(0, 1), choice.randint(0, 1)), (choice.randint(1, 2), choice.randint(1, 2))
        shape = (inside, choice.randint(5, 8), choice.randint(5, 8))
        if kind == "conv":
            weight = normal(outside, inside // groups, *kernel)
            return Conv2d(weight, normal(outside), stride, padding, dilation, groups), [shape]
        more = tuple(choice.randrange(max(s, d)) for s, d in zip(stride, dilation, strict=True))
        weight = normal(inside, outside // groups, *kernel)
        options = stride, padding, (more[0], more[1]), dilation, groups
        return ConvTranspose2d(weight, normal(outside), *options), [shape]
    if kind == "scale":
        part: Shape = choice.choice([(), some, (*some[:1], *[1] * (len(some) - 1))])
        return Scale(normal(*part), normal(*part)), [some]
    if kind == "reshape":
        return Reshape(choice.choice([(prod(some),), (1, prod(some)), (prod(some), 1)])), [some]
    if kind == "gather":
        count = choice.randint(1, 12)
        index = torch.randint(-1, prod(some), (count,), generator=rng)
        return Gather(index, (count, 1), choice.choice([0.0, -2.5])), [some]
    if kind == "concat":
        axis = choice.randrange(len(some))
        sizes = [choice.randint(1, 3) for _ in range(choice.randint(1, 3))]
        return Concat(axis), [(*some[:axis], size, *some[axis + 1 :]) for size in sizes]
    return (Add() if kind == "add" else Sub()), [some, some]


def value_shape(op: Op, operands: Sequence[Shape]) -> Shape:
    return tuple(evaluate(op, *(torch.zeros(1, *s, dtype=D) for s in operands)).shape[1:])


def by_derivative(op: Op, part: Part, operands: Sequence[Shape], shape: Shape) -> tuple[list[Tensor], Tensor]:
    """The default rule, dense: coefficients of each operand (rows x features) and the constants (rows)."""
    default = pull.dispatch(object)
    parts, constant = default(op, Part(part.dense(prod(shape))), operands, shape)
    assert constant is not None
    return [p.dense(prod(s)) for p, s in zip(parts, operands, strict=True)], constant


def some_rows(size: int, seed: int, supported: bool) -> Part:
    rng = generator(seed)
    if not supported:
        return Part(torch.randn(3, size, dtype=D, generator=rng))
    kept = (torch.rand(size, generator=rng) < 0.4).nonzero().flatten()
    return Part(torch.randn(3, len(kept), dtype=D, generator=rng), kept)


@pytest.mark.parametrize("kind", KINDS)
@given(seed=seeds, supported=st.booleans())
def test_every_rule_is_the_derivative(kind: str, seed: int, supported: bool) -> None:
    op, operands = drawn(kind, seed)
    shape = value_shape(op, operands)
    part = some_rows(prod(shape), seed, supported)
    kept = part.coef.clone()
    parts, constant = pull(op, part, operands, shape)
    expected, shift = by_derivative(op, part, operands, shape)
    for pulled, other, operand in zip(parts, expected, operands, strict=True):
        torch.testing.assert_close(pulled.dense(prod(operand)), other, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.zeros(3, dtype=D) if constant is None else constant, shift, rtol=1e-12, atol=1e-12)
    assert torch.equal(part.coef, kept), "nothing is overwritten"


@pytest.mark.parametrize("kind", KINDS)
def test_the_default_rule_gives_the_value_at_a_point(kind: str) -> None:
    for seed in range(5):
        op, operands = drawn(kind, seed)
        xs = [torch.randn(1, *s, dtype=D, generator=generator(seed + k)) for k, s in enumerate(operands)]
        value = evaluate(op, *xs)
        part = some_rows(value.numel(), seed, False)
        parts, shift = by_derivative(op, part, operands, tuple(value.shape[1:]))
        here = shift + sum(p @ x.flatten() for p, x in zip(parts, xs, strict=True))
        torch.testing.assert_close(here, part.coef @ value.flatten(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("default", [False, True])
def test_gradients_pass(kind: str, default: bool) -> None:
    """In the coefficients, of the first and of the second order."""
    op, operands = drawn(kind, 5)
    shape = value_shape(op, operands)
    rule = pull.dispatch(object) if default else pull

    def pulled(coef: Tensor) -> Tensor:
        parts, constant = rule(op, Part(coef), operands, shape)
        total = torch.cat([p.dense(prod(s)) for p, s in zip(parts, operands, strict=True)], 1).square().sum(1)
        return total if constant is None else total + constant.square()

    coef = torch.randn(2, prod(shape), dtype=D, generator=generator(1), requires_grad=True)
    assert torch.autograd.gradcheck(pulled, [coef], fast_mode=True)
    assert torch.autograd.gradgradcheck(pulled, [coef], fast_mode=True)


@pytest.mark.parametrize("kind", ["linear", "rows", "conv", "transposed", "scale"])
@pytest.mark.parametrize("default", [False, True])
def test_gradients_pass_in_live_weights(kind: str, default: bool) -> None:
    op, operands = drawn(kind, 5)
    shape = value_shape(op, operands)
    rule = pull.dispatch(object) if default else pull
    names = ("factor", "shift") if isinstance(op, Scale) else ("weight", "bias")
    coef = torch.randn(2, prod(shape), dtype=D, generator=generator(1))

    def pulled(weight: Tensor, bias: Tensor) -> Tensor:
        live = replace(op, **dict(zip(names, (weight, bias), strict=True)))
        parts, constant = rule(live, Part(coef), operands, shape)
        assert constant is not None
        return parts[0].coef.sum(1) + constant

    weights = [getattr(op, name).clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(pulled, weights)


@pytest.mark.parametrize("kind", KINDS)
def test_the_default_rule_works_in_inference_mode_too(kind: str) -> None:
    op, operands = drawn(kind, 3)
    shape = value_shape(op, operands)
    part = some_rows(prod(shape), 3, False)
    expected, shift = by_derivative(op, part, operands, shape)
    with torch.inference_mode():
        pulled, constant = by_derivative(op, Part(part.coef + 0.0), operands, shape)
    for a, b in zip([*pulled, constant], [*expected, shift], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
        assert not a.requires_grad


@pytest.mark.parametrize("op", [Relu(), LeakyRelu(0.5), Smooth("tanh"), Max()], ids=lambda op: op.label)
def test_what_is_not_affine_is_refused(op: Op) -> None:
    with pytest.raises(UnsupportedError, match=re.escape(op.label)):
        pull(op, Part(torch.zeros(1, 3)), [(3,)], (3,))


@pytest.mark.parametrize("kind", KINDS)
def test_without_its_constant_nothing_is_left_at_zero(kind: str) -> None:
    op, operands = drawn(kind, 4)
    zeros = [torch.zeros(1, *s, dtype=D) for s in operands]
    bare = homogeneous(op)
    assert not bool(evaluate(bare, *zeros).any())
    xs = [torch.randn(1, *s, dtype=D, generator=generator(k)) for k, s in enumerate(operands)]
    torch.testing.assert_close(evaluate(bare, *xs), evaluate(op, *xs) - evaluate(op, *zeros), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["linear", "thin", "scale", "reshape", "add", "sub"])
def test_no_feature_reads_more_than_its_fan(kind: str) -> None:
    for seed in range(5):
        op, operands = drawn(kind, seed)
        shape = value_shape(op, operands)
        eye = Part(torch.eye(prod(shape), dtype=D))
        parts, _ = by_derivative(op, eye, operands, shape)
        assert max(int((p != 0).sum(1).max()) for p in parts) <= fan(op)
    assert fan(drawn("conv", 0)[0]) == torch.inf


def test_few_entries_are_read_alone() -> None:
    op, operands = drawn("thin", 0)
    assert entries(op) is not None
    assert entries(drawn("linear", 0)[0]) is None
    support = torch.tensor([3, 17])
    (part,), _ = pull(op, Part(torch.ones(1, 2, dtype=D), support), operands, (40,))
    assert part.support is not None
    assert isinstance(op, Linear)
    assert {*(op.weight[support] != 0).any(0).nonzero().flatten().tolist()} <= {*part.support.tolist()}
    assert len(part.support) <= 15


def test_a_weight_that_is_learned_is_never_taken_for_a_thin_one() -> None:
    op, operands = drawn("thin", 0)
    assert isinstance(op, Linear)
    live = Linear(op.weight.clone().requires_grad_(), op.bias)
    (part,), _ = pull(live, Part(torch.ones(1, 40, dtype=D)), operands, (40,))
    (gradient,) = torch.autograd.grad(part.coef.sum(), live.weight)
    assert bool((gradient == 1).all())


def test_a_linear_layer_on_the_last_axis_below_a_choice() -> None:
    """What comes back from a Gather lies in memory as part of something larger."""
    weight = torch.arange(12.0, dtype=torch.float64).view(4, 3)
    network = chain((2, 3), [Linear(weight, torch.zeros(4)), Gather(torch.tensor([0, 1]), (2,))])
    box = Box(torch.zeros(2, 3), torch.ones(2, 3))
    bounds = CROWN().bound(network, box, torch.eye(2), Budget()).lower
    torch.testing.assert_close(bounds, torch.zeros(1, 2, dtype=torch.float64), rtol=0, atol=1e-9)
