"""Affine operations taken backwards: coefficients of an operation's value as coefficients of its operands.

Coefficients are (rows x features), the value flattened: a row and what belongs to its domain lie side by side in
memory, which suits thousands of domains of a small network.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from math import inf

import torch
from torch import Tensor

from assay.verify.bounds.memo import per_op
from assay.verify.core.ops import (
    Add,
    Conv2d,
    ConvTranspose2d,
    Gather,
    LeakyRelu,
    Linear,
    Op,
    Relu,
    Reshape,
    Scale,
    Sub,
    Tanh,
    evaluate,
)

Shape = tuple[int, ...]

# Below this share of entries other than zero a matrix is treated as a sparse one.
THIN = 0.1


@dataclass(frozen=True, eq=False)
class Part:
    """``coef`` (rows x features) of the features of a value that ``support`` lists; of all of them without it."""

    coef: Tensor
    support: Tensor | None = None

    def dense(self, size: int) -> Tensor:
        """The coefficients of all ``size`` features: (rows x size)."""
        if self.support is None:
            return self.coef
        return self.coef.new_zeros(len(self.coef), size).index_copy_(1, self.support, self.coef)


# Coefficients for each operand, and what is left as a constant (rows) or None.
Pulled = tuple[Sequence[Part], Tensor | None]


@singledispatch
def pull(op: Op, part: Part, operands: Sequence[Shape], size: int) -> Pulled:
    """``part`` of the value of the affine ``op``, which has ``size`` features, in terms of operands of these shapes.

    Unless there is a rule of its own, the transpose of an operation is its derivative backwards.
    """
    coef = part.dense(size)
    with torch.inference_mode(False), torch.enable_grad():
        zeros = [coef.new_zeros(len(coef), *shape).requires_grad_() for shape in operands]
        value = evaluate(op, *zeros)
        parts = torch.autograd.grad(value, zeros, coef.view_as(value))
    return [Part(t.flatten(1)) for t in parts], coef @ value[0].detach().flatten()


@pull.register
def _(op: Linear, part: Part, operands: Sequence[Shape], size: int) -> Pulled:
    if len(operands[0]) > 1:  # on the last axis of several: a row for each position on the others
        rows = part.dense(size).view(-1, len(op.bias))
        return [Part((rows @ op.weight).view(len(part.coef), -1))], rows.mv(op.bias).view(len(part.coef), -1).sum(1)
    bias = op.bias if part.support is None else op.bias.index_select(0, part.support)
    return [_through(op, part)], part.coef.mv(bias)


def _through(op: Linear, part: Part) -> Part:
    """Coefficients times the weight, or its rows in the support."""
    thin = entries(op)
    if thin is None:
        weight = op.weight if part.support is None else op.weight.index_select(0, part.support)
        return Part(part.coef @ weight)
    if part.support is not None:
        read = thin.read_by(part.support)
        if 2 * len(read) < op.weight.shape[1]:
            return Part(part.coef @ op.weight[part.support[:, None], read], read)
    return Part(part.dense(len(op.bias)) @ thin.matrix)


@pull.register
def _(op: Scale, part: Part, operands: Sequence[Shape], size: int) -> Pulled:
    factor, shift = (t.expand(operands[0]).flatten() for t in (op.factor, op.shift))
    if part.support is not None:
        factor, shift = factor[part.support], shift[part.support]
    return [Part(part.coef * factor, part.support)], part.coef @ shift


@pull.register
def _(op: Reshape, part: Part, operands: Sequence[Shape], size: int) -> Pulled:
    return [part], None


@pull.register
def _(op: Add, part: Part, operands: Sequence[Shape], size: int) -> Pulled:
    return [part, part], None


@pull.register
def _(op: Sub, part: Part, operands: Sequence[Shape], size: int) -> Pulled:
    return [part, Part(-part.coef, part.support)], None


@dataclass(frozen=True, eq=False)
class Thin:
    """A weight with few entries other than zero: as compressed rows, and the inputs of each output, as many as any
    has, the first one repeated: (outputs x most entries)."""

    matrix: Tensor
    inputs: Tensor

    def read_by(self, outputs: Tensor) -> Tensor:
        """Numbers of the inputs that any of the ``outputs``, given by number, reads, in order."""
        seen = torch.zeros(self.matrix.shape[1], dtype=torch.bool)
        seen[self.inputs.index_select(0, outputs).flatten()] = True
        return seen.nonzero().flatten()


@per_op
def entries(op: Op) -> Thin | None:
    """The entries of a Linear's weight, if they are few."""
    assert isinstance(op, Linear)
    count = (op.weight != 0).sum(1)
    if int(count.sum()) >= THIN * op.weight.numel():
        return None
    most = max(1, int(count.max()))
    inputs = op.weight.abs().topk(most, dim=1).indices  # where a row has fewer entries, zeros are read in vain
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return Thin(op.weight.to_sparse_csr(), inputs)


@singledispatch
def homogeneous(op: Op) -> Op:
    """The affine ``op`` without its constant."""
    return op


@homogeneous.register(Linear)
@homogeneous.register(Conv2d)
@homogeneous.register(ConvTranspose2d)
def _(op: Linear | Conv2d | ConvTranspose2d) -> Op:
    return replace(op, bias=torch.zeros_like(op.bias))


@homogeneous.register
def _(op: Scale) -> Op:
    return replace(op, shift=torch.zeros_like(op.shift))


@homogeneous.register
def _(op: Gather) -> Op:
    return replace(op, fill=0.0)


def fan(op: Op) -> float:
    """How many features of an operand one feature of the value reads, at most; infinity where that is not known."""
    if isinstance(op, Linear):
        thin = entries(op)
        return op.weight.shape[1] if thin is None else thin.inputs.shape[1]
    return 1 if isinstance(op, (Add, LeakyRelu, Relu, Reshape, Scale, Sub, Tanh)) else inf
