"""Sums of two values, and a value scaled or shifted by constants."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from assay.verify.core.ops import Add, Scale, Sub
from assay.verify.frontends.trace import Call, Untranslatable, Value, traced


def addition(call: Call) -> Value:
    """The sum of two values, or of one and a constant."""
    return _sum(call, 1.0)


def subtraction(call: Call) -> Value:
    """The difference of two values, or of one and a constant."""
    return _sum(call, -1.0)


def _sum(call: Call, sign: float) -> Value:
    a, b, alpha = call.options(("input", "other", "alpha"), {"alpha": 1})
    if alpha != 1:
        raise Untranslatable
    if isinstance(a, Value) and isinstance(b, Value):
        if a.concrete.shape != b.concrete.shape:
            raise Untranslatable
        return call.emit(Add() if sign > 0 else Sub(), a, b)
    if isinstance(a, Value):
        return _scaled(call, a, number(1.0), sign * _constant(b, a.concrete))
    return _scaled(call, traced(b), number(sign), _constant(a, traced(b).concrete))


def product(call: Call) -> Value:
    """A value times a constant."""
    a, b = call.options(("input", "other"))
    x, factor = (a, b) if isinstance(a, Value) else (b, a)
    return _scaled(call, traced(x), _constant(factor, traced(x).concrete), number(0.0))


def quotient(call: Call) -> Value:
    """A value divided by a constant."""
    a, b = call.options(("input", "other"))
    return _scaled(call, traced(a), 1 / _constant(b, traced(a).concrete), number(0.0))


def negation(call: Call) -> Value:
    """The opposite."""
    return _scaled(call, call.operand, number(-1.0), number(0.0))


def _scaled(call: Call, x: Value, factor: Tensor, shift: Tensor) -> Value:
    if call.concrete.shape != x.concrete.shape:
        raise Untranslatable
    return call.emit(Scale(factor, shift), x)


def _constant(value: Any, batch: Tensor) -> Tensor:
    """A constant operand as it broadcasts against one sample of ``batch``."""
    if isinstance(value, Value) or not isinstance(value, (int, float, Tensor)):
        raise Untranslatable
    # A plain number is a double; a tensor keeps the precision that it has.
    tensor = value if isinstance(value, Tensor) else number(value)
    tensor = tensor.to(torch.promote_types(tensor.dtype, batch.dtype))
    if tensor.dim() == batch.dim():
        if tensor.shape[0] != 1:
            raise Untranslatable
        tensor = tensor[0]
    if tensor.dim() > batch.dim():
        raise Untranslatable
    return tensor


def number(value: float) -> Tensor:
    """A float64 scalar."""
    return torch.tensor(float(value), dtype=torch.float64)
