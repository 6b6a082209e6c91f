"""The closed set of operations that a network is made of, and how each is evaluated.

An operation is a frozen dataclass; a rule about operations (evaluation here, bounds elsewhere) is a
``functools.singledispatch`` function over these classes, so the registered rules ARE the list of what is
supported. Tensors inside operations are never modified. Every evaluated tensor has a leading batch dimension.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import singledispatch
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from verify.core.errors import UnsupportedError


@dataclass(frozen=True, eq=False)
class Op:
    """One operation; compared by identity, hashed by content through ``Network.id``."""

    @property
    def label(self) -> str:
        """Its name for messages."""
        return type(self).__name__


@dataclass(frozen=True, eq=False)
class Input(Op):
    """The network's input."""


@dataclass(frozen=True, eq=False)
class Linear(Op):
    """``y = x W^T + b`` on the last axis: weight (out x in), bias (out)."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True, eq=False)
class Conv2d(Op):
    """Cross-correlation: weight (out x in/groups x kh x kw), bias (out), zero padding on both sides of each axis."""

    weight: Tensor
    bias: Tensor
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


@dataclass(frozen=True, eq=False)
class Scale(Op):
    """``y = factor * x + shift`` element by element; both broadcast against one sample's shape."""

    factor: Tensor
    shift: Tensor


@dataclass(frozen=True, eq=False)
class Relu(Op):
    """``y = max(x, 0)``."""


@dataclass(frozen=True, eq=False)
class Add(Op):
    """``y = a + b``, two operands of one shape."""


@dataclass(frozen=True, eq=False)
class Sub(Op):
    """``y = a - b``, two operands of one shape."""


@dataclass(frozen=True, eq=False)
class Reshape(Op):
    """The same values in another shape (without the batch dimension); flattening is one case."""

    shape: tuple[int, ...]


@singledispatch
def evaluate(op: Op, *inputs: Tensor) -> Tensor:
    """The value of ``op`` at ``inputs``, each (batch x shape of one sample)."""
    raise UnsupportedError(f"operation {op.label} cannot be evaluated")


@evaluate.register
def _(op: Linear, x: Tensor) -> Tensor:
    return F.linear(x, op.weight, op.bias)


@evaluate.register
def _(op: Conv2d, x: Tensor) -> Tensor:
    return F.conv2d(x, op.weight, op.bias, op.stride, op.padding, op.dilation, op.groups)


@evaluate.register
def _(op: Scale, x: Tensor) -> Tensor:
    return x * op.factor + op.shift


@evaluate.register
def _(op: Relu, x: Tensor) -> Tensor:
    return x.clamp(min=0)


@evaluate.register
def _(op: Add, a: Tensor, b: Tensor) -> Tensor:
    return a + b


@evaluate.register
def _(op: Sub, a: Tensor, b: Tensor) -> Tensor:
    return a - b


@evaluate.register
def _(op: Reshape, x: Tensor) -> Tensor:
    return x.reshape(x.shape[0], *op.shape)


AnyOp = TypeVar("AnyOp", bound=Op)


def map_tensors(op: AnyOp, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> AnyOp:
    """``op`` with its tensors in another dtype or on another device."""
    tensors = {f.name: value for f in fields(op) if isinstance(value := getattr(op, f.name), Tensor)}
    moved = {name: tensor.to(dtype=dtype, device=device) for name, tensor in tensors.items()}
    return replace(op, **moved) if moved else op


def magnitude(op: Op) -> Op:
    """``op`` with every weight and bias replaced by its absolute value: it carries magnitudes forward.

    On magnitudes a difference adds and a ReLU does nothing, so ``Sub`` becomes ``Add``.
    """
    if isinstance(op, Sub):
        return Add()
    tensors = {f.name: value for f in fields(op) if isinstance(value := getattr(op, f.name), Tensor)}
    return replace(op, **{name: tensor.abs() for name, tensor in tensors.items()}) if tensors else op


def slopes_only(op: Op) -> Op:
    """:func:`magnitude` of ``op`` without its constant term: it carries radii forward."""
    upper = magnitude(op)
    constants = {name: torch.zeros_like(getattr(upper, name)) for name in ("bias", "shift") if hasattr(upper, name)}
    return replace(upper, **constants) if constants else upper


@singledispatch
def terms(op: Op) -> int:
    """How many products are summed into one output of ``op``; 0 where nothing is rounded."""
    return 0


@terms.register
def _(op: Linear) -> int:
    return int(op.weight.shape[1]) + 1


@terms.register
def _(op: Conv2d) -> int:
    return int(op.weight[0].numel()) + 1


@terms.register(Scale)
@terms.register(Add)
@terms.register(Sub)
def _(op: Op) -> int:
    return 2
