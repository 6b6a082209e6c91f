"""Affine operations taken backwards: coefficients of an operation's value as coefficients of its operands.

Coefficients are (rows x features), the value flattened. An affine operation needs no rule here: its transpose is its
derivative backwards. Those that are met often have faster ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from math import inf, prod

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.verify.bounds.backward.convolution import transpose
from assay.verify.bounds.memo import per_op
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.ops import (
    Add,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Gather,
    LeakyRelu,
    Linear,
    Op,
    Relu,
    Reshape,
    Scale,
    Smooth,
    Step,
    Sub,
    evaluate,
)
from assay.verify.support import devices

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
def pull(op: Op, part: Part, operands: Sequence[Shape], shape: Shape) -> Pulled:
    """``part`` of the value of the affine ``op``, which has ``shape``, in terms of operands of the shapes given.

    Unless there is a rule of its own, the transpose of an operation is its derivative backwards; it can be
    differentiated once more where gradients are recorded.
    """
    if not op.affine:
        raise UnsupportedError(f"operation {op.label} has no linear bounds")
    coef = part.dense(prod(shape))
    keep = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        if coef.is_inference():
            coef = coef.clone()
        zeros = [coef.new_zeros(len(coef), *operand).requires_grad_() for operand in operands]
        value = evaluate(op, *zeros)
        parts = torch.autograd.grad(value, zeros, coef.view_as(value), create_graph=keep)
    constant = value[0].flatten() if keep else value[0].detach().flatten()
    return [Part(t.flatten(1)) for t in parts], coef @ constant


@pull.register
def _(op: Linear, part: Part, operands: Sequence[Shape], shape: Shape) -> Pulled:
    if len(shape) > 1:  # on the last axis of several: a row for each position on the others
        rows = part.dense(prod(shape)).reshape(-1, len(op.bias))
        each = rows.mv(op.bias).view(len(part.coef), prod(shape[:-1])).sum(1)
        return [Part((rows @ op.weight).view(len(part.coef), prod(operands[0])))], each
    bias = op.bias if part.support is None else op.bias.index_select(0, part.support)
    return [_through(op, part)], part.coef.mv(bias)


def _through(op: Linear, part: Part) -> Part:
    """Coefficients times the weight, or its rows in the support."""
    thin = None if op.weight.requires_grad or not devices.is_host(op.weight) else entries(op)
    if thin is None:
        weight = op.weight if part.support is None else op.weight.index_select(0, part.support)
        return Part(part.coef @ weight)
    if part.support is not None:
        read = thin.read_by(part.support)
        if 2 * len(read) < op.weight.shape[1]:
            return Part(part.coef @ op.weight[part.support[:, None], read], read)
    return Part(part.dense(len(op.bias)) @ thin.matrix)


@pull.register
def _(op: Conv2d, part: Part, operands: Sequence[Shape], shape: Shape) -> Pulled:
    coef = part.dense(prod(shape)).reshape(-1, *shape)
    pulled = transpose(op, coef, operands[0])
    return [Part(pulled.flatten(1))], coef.flatten(2).sum(2) @ op.bias


@pull.register
def _(op: ConvTranspose2d, part: Part, operands: Sequence[Shape], shape: Shape) -> Pulled:
    coef = part.dense(prod(shape)).reshape(-1, *shape)
    pulled = F.conv2d(coef, op.weight, None, op.stride, op.padding, op.dilation, op.groups)
    height, width = operands[0][1:]  # an output padding of a stride or more makes room for more
    return [Part(pulled[:, :, :height, :width].flatten(1))], coef.flatten(2).sum(2) @ op.bias


@pull.register
def _(op: Scale, part: Part, operands: Sequence[Shape], shape: Shape) -> Pulled:
    factor, shift = (t.expand(operands[0]).flatten() for t in (op.factor, op.shift))
    if part.support is not None:
        factor, shift = factor[part.support], shift[part.support]
    return [Part(part.coef * factor, part.support)], part.coef @ shift


@pull.register
def _(op: Reshape, part: Part, operands: Sequence[Shape], shape: Shape) -> Pulled:
    return [part], None


@pull.register
def _(op: Gather, part: Part, operands: Sequence[Shape], shape: Shape) -> Pulled:
    coef = part.dense(len(op.index))
    inside = op.index >= 0
    # A value that is filled in belongs to one feature more, which is cut off again.
    into = torch.where(inside, op.index, prod(operands[0]))
    moved = coef.new_zeros(len(coef), prod(operands[0]) + 1).index_add(1, into, coef)
    constant = op.fill * (coef @ (~inside).to(coef)) if op.fill else None
    return [Part(moved[:, :-1])], constant


@pull.register
def _(op: Concat, part: Part, operands: Sequence[Shape], shape: Shape) -> Pulled:
    coef = part.dense(prod(shape)).reshape(-1, *shape)
    parts = torch.split(coef, [operand[op.axis] for operand in operands], op.axis + 1)
    return [Part(t.flatten(1)) for t in parts], None


@pull.register
def _(op: Add, part: Part, operands: Sequence[Shape], shape: Shape) -> Pulled:
    return [part, part], None


@pull.register
def _(op: Sub, part: Part, operands: Sequence[Shape], shape: Shape) -> Pulled:
    return [part, Part(-part.coef, part.support)], None


@dataclass(frozen=True, eq=False)
class Thin:
    """A weight with few entries other than zero: as compressed rows, and the inputs of each output, as many as any
    has, the first one repeated: (outputs x most entries)."""

    matrix: Tensor
    inputs: Tensor

    def read_by(self, outputs: Tensor) -> Tensor:
        """Numbers of the inputs that any of the ``outputs``, given by number, reads, in order."""
        seen = torch.zeros(self.matrix.shape[1], dtype=torch.bool, device=self.inputs.device)
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
    inputs = op.weight.abs().topk(most, dim=1).indices  # rows with fewer entries list zeros, too
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
    return 1 if isinstance(op, (Add, LeakyRelu, Relu, Reshape, Scale, Smooth, Step, Sub)) else inf
