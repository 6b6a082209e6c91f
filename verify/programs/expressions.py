"""Values of a network's nodes as affine functions of a program's columns: affine operations need no rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import singledispatch

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from assay.verify.bounds.backward.matrix import LARGEST, Convolved, Dense, Sparse, constant, matrix
from assay.verify.bounds.memo import per_op, remember
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.ops import (
    Add,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Gather,
    Linear,
    Op,
    Reshape,
    Scale,
    Sub,
    evaluate,
)
from assay.verify.programs.program import Index, Matrix, Vector

Shape = tuple[int, ...]

MOST = 1 << 25  # entries of a convolution's matrix that are written out at most, of inputs that are no constants


@dataclass(frozen=True, eq=False)
class Expression:
    """``matrix @ x + constant``: sparse (values x columns, the first ones of the program) and (values)."""

    matrix: Matrix
    constant: Vector

    def __len__(self) -> int:
        return len(self.constant)

    def take(self, index: Index) -> Expression:
        """The values at ``index`` (kept values), numbers of values."""
        return Expression(self.matrix[index], self.constant[index])

    def times(self, weight: Matrix) -> Expression:
        """``weight`` (values x these values) applied to it."""
        return Expression(sparse.csr_array(weight @ self.matrix), weight @ self.constant)

    def over(self, width: int) -> Expression:
        """The same values as functions of at least ``width`` columns."""
        rows, columns = self.matrix.shape
        if columns >= width:
            return self
        parts = (self.matrix.data, self.matrix.indices, self.matrix.indptr)
        return Expression(sparse.csr_array(parts, shape=(rows, width)), self.constant)

    def entries(self) -> tuple[Index, Index, Vector]:
        """Row, column and value of its coefficients: (coefficients) each."""
        rows = np.repeat(np.arange(len(self)), np.diff(self.matrix.indptr))
        return rows, self.matrix.indices.astype(np.int64), self.matrix.data


def of_columns(columns: Index, constant: Vector) -> Expression:
    """``columns`` (values) as they are, and where the column is -1 the number in ``constant`` (values)."""
    at = np.flatnonzero(columns >= 0)
    width = int(columns.max(initial=-1)) + 1
    return Expression(
        sparse.csr_array((np.ones(len(at)), (at, columns[at])), shape=(len(columns), width)),
        np.where(columns >= 0, 0.0, constant),
    )


def as_array(values: Tensor) -> Vector:
    """A tensor as a float64 array of its shape."""
    array: Vector = values.detach().to("cpu", torch.float64).numpy()
    return array


@singledispatch
def express(op: Op, shape: Shape, shapes: Sequence[Shape], *operands: Expression) -> Expression:
    """The value of ``op``, whose ``shape`` and whose operands' ``shapes`` are those of one sample."""
    raise UnsupportedError(f"operation {op.label} is not affine")


@express.register(Linear)
@express.register(Conv2d)
@express.register(ConvTranspose2d)
def _(op: Linear | Conv2d | ConvTranspose2d, shape: Shape, shapes: Sequence[Shape], x: Expression) -> Expression:
    product = _taken(op, shapes[0], shape, x)
    return Expression(product.matrix, product.constant + as_array(constant(op, shape)))


@express.register
def _(op: Scale, shape: Shape, shapes: Sequence[Shape], x: Expression) -> Expression:
    factor, shift = (as_array(t.expand(shape).flatten()) for t in (op.factor, op.shift))
    scaled = x.times(sparse.diags_array(factor))
    return Expression(scaled.matrix, scaled.constant + shift)


@express.register(Add)
@express.register(Sub)
def _(op: Add | Sub, shape: Shape, shapes: Sequence[Shape], a: Expression, b: Expression) -> Expression:
    width = max(a.matrix.shape[1], b.matrix.shape[1])
    a, b = a.over(width), b.over(width)
    if isinstance(op, Add):
        return Expression(a.matrix + b.matrix, a.constant + b.constant)
    return Expression(a.matrix - b.matrix, a.constant - b.constant)


@express.register
def _(op: Reshape, shape: Shape, shapes: Sequence[Shape], x: Expression) -> Expression:
    return x


@express.register
def _(op: Gather, shape: Shape, shapes: Sequence[Shape], x: Expression) -> Expression:
    index = op.index.detach().cpu().numpy()
    outside = index < 0
    picked = x.take(np.maximum(index, 0))
    if not outside.any():
        return picked
    kept = picked.times(sparse.diags_array((~outside).astype(float)))
    return Expression(kept.matrix, np.where(outside, op.fill, kept.constant))


@express.register
def _(op: Concat, shape: Shape, shapes: Sequence[Shape], *parts: Expression) -> Expression:
    """The parts one after the other, then in the order that the operation puts their numbers in."""
    width = max(part.matrix.shape[1] for part in parts)
    wide = [part.over(width) for part in parts]
    joined = Expression(
        sparse.vstack([part.matrix for part in wide], format="csr"), np.concatenate([part.constant for part in wide])
    )
    sizes = [len(part) for part in parts]
    numbers = torch.split(torch.arange(sum(sizes), dtype=torch.float64), sizes)
    order = evaluate(op, *(n.reshape(1, *s) for n, s in zip(numbers, shapes, strict=True)))
    return joined.take(order.flatten().long().numpy())


def is_affine(op: Op) -> bool:
    """Whether ``op`` has a rule here."""
    return express.dispatch(type(op)) is not express.dispatch(object)


def _taken(op: Linear | Conv2d | ConvTranspose2d, shape: Shape, made: Shape, x: Expression) -> Expression:
    """The matrix of ``op``, from values of ``shape`` to those that are ``made`` of them, applied to ``x``. One too
    large to be kept is made in blocks of output channels, each of which is dropped at once: of the inputs many are
    inactive, and leave nothing of it."""
    whole = matrix(op, shape)
    if not isinstance(whole, Convolved):
        return x.times(_weight(op, shape))
    here, count = whole.op, len(whole.op.weight)
    block = max(1, LARGEST // int(here.weight[0].numel() * np.prod(made[1:], dtype=int)))
    if here.groups > 1:
        raise MemoryError("a convolution of several groups too large to be written out")
    parts: list[Expression] = []
    for begin in range(0, count, block):
        some = slice(begin, begin + block)
        parts.append(x.times(_compressed(replace(here, weight=here.weight[some], bias=here.bias[some]), shape)))
        if sum(part.matrix.nnz for part in parts) > MOST:
            raise MemoryError("a convolution too large to be written out")
    matrices = sparse.vstack([part.matrix for part in parts], format="csr")
    return Expression(sparse.csr_array(matrices), np.concatenate([part.constant for part in parts]))


def _weight(op: Op, shape: Shape) -> Matrix:
    """The matrix of ``op``, (outputs x inputs); worked out once for each operation and input shape."""
    return remember(_weights(op), shape, lambda: _compressed(op, shape))


@per_op
def _weights(op: Op) -> dict[Shape, Matrix]:
    return {}


def _compressed(op: Op, shape: Shape) -> Matrix:
    whole = matrix(op, shape)
    if isinstance(whole, Dense):
        return sparse.csr_array(as_array(whole.transposed.T))
    if isinstance(whole, Sparse):
        outputs, inputs = (index.cpu().numpy() for index in (whole.outputs, whole.inputs))
        return sparse.csr_array((as_array(whole.values), (outputs, inputs)), shape=whole.shape[::-1])
    raise MemoryError("a convolution too large to be written out")
