"""What layers of today are made of: products of two values, softmax, attention and normalisation, as our operations.

The frontends share these: each hands over how it appends an operation to its network. Shapes are those of one sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Protocol

import torch
from torch import Tensor

from assay.verify.core.ops import (
    Add,
    Concat,
    Gather,
    InverseSumExp,
    Linear,
    Normalised,
    Op,
    Product,
    Relu,
    Reshape,
    Scale,
    Smooth,
    Step,
    Sub,
)
from assay.verify.frontends.refusal import Untranslatable

LARGEST = 2**24  # operands of one operation that are made here; in float64 that is 128 MiB
NOTHING = -1000.0  # its exponential is 0 beside 1, in float64 and far beyond
DENSE = 2**10  # values from which their mean is taken by one matrix


@dataclass(frozen=True, eq=False)
class Value:
    """A node of the network under construction, and its shape: of one sample."""

    position: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Its number of elements."""
        return prod(self.shape)


class Emit(Protocol):
    """Appends an operation to the network under construction; ``shape``: of its value."""

    def __call__(self, op: Op, *values: Value, shape: tuple[int, ...]) -> Value:
        """The new node."""
        ...


Softmax = Callable[[Emit, Value, Tensor | None], Value]


def number(value: float) -> Tensor:
    """A float64 scalar."""
    return torch.tensor(float(value), dtype=torch.float64)


def smooth(emit: Emit, x: Value, curve: str, parameter: float = 0.0) -> Value:
    """One curve of each element."""
    return emit(Smooth(curve, parameter), x, shape=x.shape)


def sigmoid(emit: Emit, x: Value) -> Value:
    """``1 / (1 + exp(-x)) = (1 + tanh(x / 2)) / 2``."""
    return scaled(emit, smooth(emit, scaled(emit, x, 0.5), "tanh"), 0.5, 0.5)


def stepped(emit: Emit, x: Value, kind: str) -> Value:
    """A function of each element that is constant in pieces."""
    return emit(Step(kind), x, shape=x.shape)


def power(emit: Emit, x: Value, exponent: float) -> Value:
    """Each element to a power."""
    curves = {2.0: "square", 0.5: "sqrt", -1.0: "reciprocal"}
    if exponent in (0.0, 1.0):
        return scaled(emit, x, exponent, 1 - exponent)
    return smooth(emit, x, curves[exponent]) if exponent in curves else smooth(emit, x, "power", exponent)


def scaled(emit: Emit, x: Value, factor: float, shift: float = 0.0) -> Value:
    """``factor * x + shift``; x itself, where that changes nothing."""
    return x if (factor, shift) == (1, 0) else emit(Scale(number(factor), number(shift)), x, shape=x.shape)


def reshaped(emit: Emit, x: Value, shape: tuple[int, ...]) -> Value:
    """The same elements in another shape."""
    return x if x.shape == shape else emit(Reshape(shape), x, shape=shape)


def picked(emit: Emit, x: Value, index: Tensor, shape: tuple[int, ...]) -> Value:
    """Elements of x by their flat indices, 0 where the index is -1."""
    return emit(Gather(index.flatten(), shape), x, shape=shape)


def paired(emit: Emit, a: Value, b: Value, first: Tensor, second: Tensor) -> Value:
    """Elements of a and of b side by side, by their flat indices (shape): (shape x 2)."""
    within(2 * first.numel(), "its pairs of values")
    shape = (*first.shape, 2)
    if a.position == b.position:
        return picked(emit, a, torch.stack([first, second], -1), shape)
    parts = [reshaped(emit, x, (x.size,)) for x in (a, b)]
    both = emit(Concat(0), *parts, shape=(a.size + b.size,))
    return picked(emit, both, torch.stack([first, second + a.size], -1), shape)


def within(count: int, what: str) -> None:
    """To be asked before anything of so many elements is made."""
    if count > LARGEST:
        raise Untranslatable(f"{what} are {count}, and at most {LARGEST} are read")


def product(emit: Emit, a: Value, b: Value) -> Value:
    """``a * b`` of one shape, element by element; a square, where both are one."""
    if a.position == b.position:
        return smooth(emit, a, "square")
    index = torch.arange(a.size).view(a.shape)
    return emit(Product(), paired(emit, a, b, index, index), shape=a.shape)


def quotient(emit: Emit, a: Value, b: Value) -> Value:
    """``a / b`` of one shape, element by element."""
    return product(emit, a, smooth(emit, b, "reciprocal"))


def matrix_product(emit: Emit, a: Value, b: Value) -> Value:
    """The matrix products of a (batch x n x k) and b (batch x k x m), batch by batch: (batch x n x m)."""
    (count, n, k), m = a.shape, b.shape[2]
    within(2 * count * n * m * k, "the pairs of values of a matrix product")
    first = torch.arange(a.size).view(count, n, 1, k).expand(count, n, m, k)
    second = torch.arange(b.size).view(count, k, m).mT.unsqueeze(1).expand(count, n, m, k)
    terms = emit(Product(), paired(emit, a, b, first, second), shape=(count, n, m, k))
    return reshaped(emit, total(emit, terms), (count, n, m))


def total(emit: Emit, x: Value) -> Value:
    """The sum over the last axis, which keeps the length 1."""
    return emit(Linear(torch.ones(1, x.shape[-1], dtype=torch.float64), number(0).view(1)), x, shape=(*x.shape[:-1], 1))


def mean(emit: Emit, x: Value) -> Value:
    """The mean over the last axis, which keeps the length 1."""
    count = x.shape[-1]
    weight = torch.full((1, count), 1 / count, dtype=torch.float64)
    return emit(Linear(weight, number(0).view(1)), x, shape=(*x.shape[:-1], 1))


def softmax(emit: Emit, x: Value, absent: Tensor | None = None) -> Value:
    """The softmax over the last axis: ``1 / sum_j exp(x_j - x_i)``.

    ``absent`` (x's shape): elements that count for nothing, which a mask has set to -inf; what stands in their own
    places means nothing.
    """
    n, rows = x.shape[-1], x.size // x.shape[-1]
    within(rows * n * n, "the differences of a softmax")
    shape = (*x.shape, n)
    place = torch.arange(n)
    start = torch.arange(rows).view(rows, 1, 1) * n
    own = place[:, None] == place  # x - x reads no element, so that its interval is [0, 0]
    out, shift = own, None
    if absent is not None:  # their exponentials are 0 beside those of others; in their own rows all is 0
        beside, within_row = absent.reshape(rows, 1, n), absent.reshape(rows, n, 1)
        out = own | beside | within_row
        shift = torch.where(beside & ~within_row, NOTHING, 0.0).to(torch.float64).view(shape)
    minuend, subtrahend = (start + place).expand(rows, n, n), (start + place[:, None]).expand(rows, n, n)
    others = [picked(emit, x, index.masked_fill(out, -1), shape) for index in (minuend, subtrahend)]
    differences = emit(Sub(), *others, shape=shape)
    if shift is not None:
        differences = emit(Scale(number(1.0), shift), differences, shape=shape)
    return emit(InverseSumExp(whole=absent is None), differences, shape=x.shape)


def log_softmax(emit: Emit, x: Value, absent: Tensor | None = None) -> Value:
    """The logarithm of the softmax over the last axis."""
    return smooth(emit, softmax(emit, x, absent), "log")


def log_sum_exp(emit: Emit, x: Value) -> Value:
    """``log sum_j exp(x_j)`` over the last axis, which disappears."""
    shape = x.shape[:-1] or (1,)
    x = reshaped(emit, x, (*shape, x.shape[-1]))
    return scaled(emit, smooth(emit, emit(InverseSumExp(), x, shape=shape), "log"), -1.0)


def attention(emit: Emit, q: Value, k: Value, v: Value, scale: float) -> Value:
    """``softmax(scale q k^T) v`` of q (batch x n x d), k (batch x m x d), v (batch x m x e)."""
    turned = torch.arange(k.size).view(k.shape).mT
    scores = matrix_product(emit, q, picked(emit, k, turned, tuple(turned.shape)))
    return matrix_product(emit, softmax(emit, scaled(emit, scores, scale)), v)


def spread(emit: Emit, x: Value, count: int) -> Value:
    """The last axis, of length 1, to the length ``count``."""
    shape = (*x.shape[:-1], count)
    return picked(emit, x, torch.arange(x.size).repeat_interleave(count), shape)


def centred(emit: Emit, x: Value) -> Value:
    """``x`` less its mean over the last axis."""
    count = x.shape[-1]
    if count <= DENSE:
        weight = torch.eye(count, dtype=torch.float64) - 1 / count
        return emit(Linear(weight, torch.zeros(count, dtype=torch.float64)), x, shape=x.shape)
    return emit(Sub(), x, spread(emit, mean(emit, x), count), shape=x.shape)


def normalised(emit: Emit, x: Value, eps: float, doubt: Value | None = None) -> Value:
    """``x / sqrt(mean(x^2) + eps)`` over the last axis (Zhang and Sennrich 2019, arXiv:1910.07467); of what is
    :func:`centred`, ``(x - mean) / sqrt(variance + eps)`` (Ba et al. 2016, arXiv:1607.06450).

    ``doubt``: a :func:`cancelling` value that the mean of the squares is rounded by besides.
    """
    count = x.shape[-1]
    squares = smooth(emit, x, "square")
    if count > DENSE or eps <= 0:  # without what keeps it from 0, a root of others alone may be 0 where no mean is
        size = mean(emit, squares)
        size = scaled(emit, size if doubt is None else emit(Add(), size, doubt, shape=size.shape), 1.0, eps)
        return product(emit, x, spread(emit, smooth(emit, size, "power", -0.5), count))
    return over_root(emit, x, squares, count * eps, doubt)


def over_root(emit: Emit, x: Value, squares: Value, shift: float, doubt: Value | None = None) -> Value:
    """``x / sqrt((sum of squares + shift) / count)`` over the last axis, of at most :data:`DENSE` values; ``squares``:
    those of x. The shift must be above 0."""
    count = x.shape[-1]
    weight = 1 - torch.eye(count, dtype=torch.float64)
    others = emit(Linear(weight, torch.full((count,), shift, dtype=torch.float64)), squares, shape=x.shape)
    if doubt is not None:
        others = emit(Add(), others, spread(emit, scaled(emit, doubt, float(count)), count), shape=x.shape)
    index = torch.arange(x.size).view(x.shape)
    return emit(Normalised(count), paired(emit, x, others, index, index), shape=x.shape)


def cancelling(emit: Emit, x: Value) -> Value:
    """``mean(x^2)`` less itself: 0, with the roundings of a variance that is a difference of two such."""
    squares = mean(emit, smooth(emit, x, "square"))
    return emit(Sub(), squares, squares, shape=squares.shape)


def positive(emit: Emit, x: Value) -> Value:
    """1 where x > 0, else 0."""
    return emit(Relu(), stepped(emit, x, "sign"), shape=x.shape)


def negated(emit: Emit, x: Value) -> Value:
    """1 where a truth value is 0, and 0 where it is 1."""
    return scaled(emit, x, -1.0, 1.0)


def truncated(emit: Emit, x: Value) -> Value:
    """Towards zero: ``max(floor(x), 0) - max(floor(-x), 0)``."""
    sides = [stepped(emit, scaled(emit, x, sign), "floor") for sign in (1.0, -1.0)]
    return emit(Sub(), *(emit(Relu(), side, shape=x.shape) for side in sides), shape=x.shape)
