"""Tests of bounds.backward.convolution: beside the derivative, in any shape and both precisions; gradients pass."""

from __future__ import annotations

import random

import pytest
import torch
from torch.nn import functional as F

from assay.verify.bounds.backward.convolution import transpose
from assay.verify.core.ops import Conv2d
from assay.verify.support.floats import gamma
from tests.breadth import few
from tests.nets import generator


def drawn(seed: int, dtype: torch.dtype, divides: bool, plain: bool = False) -> tuple[Conv2d, tuple[int, int, int]]:
    """A convolution whose stride divides its kernel, or any one, or one of stride 1; and the shape of its operand."""
    choice, rng = random.Random(seed), generator(seed)
    stride = choice.choice([2, 3])
    sides = [stride * choice.randint(1, 2) if divides else choice.randint(1, 5) for _ in range(2)]
    inputs, outputs = choice.randint(1, 3), choice.randint(1, 3)
    if plain:
        stride, inputs = 1, 8
    shape = (inputs, choice.randint(sides[0], 12), choice.randint(sides[1], 12))
    weight = torch.randn(outputs, inputs, *sides, generator=rng, dtype=dtype)
    padding = (choice.randint(0, 3), choice.randint(0, 3))
    return Conv2d(weight, torch.zeros(outputs, dtype=dtype), (stride, stride), padding, (1, 1), 1), shape


@pytest.mark.parametrize("divides", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", few(range(30), range(8)))
def test_it_is_the_derivative_backwards(seed: int, dtype: torch.dtype, divides: bool) -> None:
    op, shape = drawn(seed, dtype, divides)
    x = torch.zeros(2, *shape, dtype=dtype, requires_grad=True)
    value = F.conv2d(x, op.weight, None, op.stride, op.padding)
    coef = torch.randn(value.shape, generator=generator(seed + 1), dtype=dtype)
    (expected,) = torch.autograd.grad(value, x, coef)
    torch.testing.assert_close(transpose(op, coef, shape), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", few(range(20), range(5)))
def test_so_it_is_with_stride_1_and_many_inputs(seed: int, dtype: torch.dtype) -> None:
    op, shape = drawn(seed, dtype, False, plain=True)
    x = torch.zeros(2, *shape, dtype=dtype, requires_grad=True)
    value = F.conv2d(x, op.weight, None, op.stride, op.padding)
    coef = torch.randn(value.shape, generator=generator(seed + 1), dtype=dtype)
    torch.testing.assert_close(transpose(op, coef, shape), torch.autograd.grad(value, x, coef)[0])


@pytest.mark.parametrize(("outputs", "kernel", "width"), [(64, 3, 9), (64, 3, 32), (64, 1, 9), (64, 3, 5), (8, 3, 9)])
def test_so_it_is_wherever_channels_are_in_memory(outputs: int, kernel: int, width: int) -> None:
    rng = generator(outputs + kernel + width)
    weight = torch.randn(outputs, 8, kernel, kernel, generator=rng)
    op = Conv2d(weight, torch.zeros(outputs), padding=(kernel // 2, kernel // 2))
    coef = torch.randn(2, outputs, 4, width, generator=rng)
    ours = transpose(op, coef, (8, 4, width))
    pairs = (coef, weight), (coef.abs(), weight.abs())
    true, size = (F.conv_transpose2d(c.double(), w.double(), None, 1, op.padding) for c, w in pairs)
    assert bool(((ours - true).abs() <= gamma(weight[:, 0].numel(), 2.0**-24) * size).all())


def test_gradients_pass_to_the_weight() -> None:
    op, shape = drawn(0, torch.float32, True)
    weight = op.weight.clone().requires_grad_()
    live = Conv2d(weight, op.bias, op.stride, op.padding, op.dilation, op.groups)
    size = F.conv2d(torch.zeros(1, *shape), op.weight, None, op.stride, op.padding).shape
    coef = torch.randn(size, generator=generator(3))
    (ours,) = torch.autograd.grad(transpose(live, coef, shape).square().sum(), weight)
    side, padding = [n + 2 * p for n, p in zip(shape[1:], op.padding, strict=True)], op.padding
    spans = zip(side, coef.shape[2:], op.stride, op.weight.shape[2:], strict=True)
    rest = [n - ((m - 1) * s + k) for n, m, s, k in spans]
    theirs = F.conv_transpose2d(coef, weight, None, op.stride, padding, rest).square().sum()
    torch.testing.assert_close(ours, torch.autograd.grad(theirs, weight)[0])
