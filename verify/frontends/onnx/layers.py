"""Element-wise arithmetic, and layers with weights on the last axis."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import cast

import torch
from torch import Tensor

from assay.verify.core.errors import InputError
from assay.verify.core.ops import Add, Linear, Scale, Sub
from assay.verify.frontends import composed, labels
from assay.verify.frontends.composed import number
from assay.verify.frontends.labels import WHOLE
from assay.verify.frontends.onnx.moves import broadcast
from assay.verify.frontends.onnx.tensors import DTYPES
from assay.verify.frontends.onnx.translation import Call, Operand, Value, aligned, broadcast_shape, finite
from assay.verify.frontends.refusal import Untranslatable

ONE, ZERO = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)


def scale(call: Call, x: Value, factor: Tensor, shift: Tensor) -> Value:
    """``factor * x + shift``, which broadcast as in the file, x too."""
    shape = broadcast_shape(x.shape, factor.shape, shift.shape)
    wide = broadcast(call, x, shape)
    assert isinstance(wide, Value)
    return call.emit(Scale(aligned(factor, shape), aligned(shift, shape)), shape, wide)


def linear(call: Call, x: Value, weight: Tensor, bias: Tensor = ZERO) -> Value:
    """``x W^T + b`` on the last axis: weight (out x in), bias (out) or one number."""
    weight = weight.to(torch.float64, memory_format=torch.contiguous_format)
    bias = bias.to(torch.float64).expand(len(weight)).contiguous()
    return call.emit(Linear(weight, bias), (*x.shape[:-1], len(weight)), x)


def addition(call: Call) -> Value:
    """The sum of two operands."""
    return total(call, call.operand(0), call.operand(1))


def total(call: Call, a: Operand, b: Operand) -> Value:
    """The sum of two operands, one of which may be constant."""
    if isinstance(a, Value) and isinstance(b, Value):
        a, b = _paired(call, a, b)
        return call.emit(Add(), a.shape, a, b)
    x, constant = (a, b) if isinstance(a, Value) else (b, a)
    if not isinstance(x, Value) or not isinstance(constant, Tensor):
        raise Untranslatable("of constants")
    absent = constant == -inf
    if not absent.numel() or not bool(absent.any()):
        return scale(call, x, ONE, demanded(call, constant))
    return masked(scale(call, x, ONE, demanded(call, constant.masked_fill(absent, 0))), absent)


def masked(x: Value, absent: Tensor) -> Value:
    """``x`` with -inf where a mask that broadcasts to it says so."""
    return replace(x, absent=absent.expand(x.shape))


def demanded(call: Call, constant: Tensor) -> Tensor:
    """A constant, which must be finite."""
    if not finite(constant):
        raise InputError(f"{call.node.label} has a constant that holds NaN or inf")
    return constant


def subtraction(call: Call) -> Value:
    """The difference of two operands."""
    return difference(call, call.operand(0), call.operand(1))


def difference(call: Call, a: Operand, b: Operand) -> Value:
    """The difference of two operands, one of which may be constant."""
    if isinstance(a, Value) and isinstance(b, Value):
        return subtract(call, a, b)
    if isinstance(a, Value):
        assert isinstance(b, Tensor)
        return scale(call, a, ONE, -b.to(torch.float64))
    if not isinstance(b, Value):
        raise Untranslatable("of constants")
    return scale(call, b, -ONE, a)


def subtract(call: Call, a: Value, b: Value) -> Value:
    """The difference of two values."""
    a, b = _paired(call, a, b)
    return call.emit(Sub(), a.shape, a, b)


def product(call: Call) -> Value:
    """A value times a constant, or two values."""
    return multiplied(call, call.operand(0), call.operand(1))


def multiplied(call: Call, a: Operand, b: Operand) -> Value:
    """The product of two operands, one of which may be constant."""
    if isinstance(a, Value) and isinstance(b, Value):
        a, b = _paired(call, a, b)
        return call.value(composed.product(call.append, call.sample(a), call.sample(b)), a.shape, a.dtype)
    x, factor = (a, b) if isinstance(a, Value) else (b, a)
    if not isinstance(x, Value) or not isinstance(factor, Tensor):
        raise Untranslatable("of constants")
    return scale(call, x, factor, ZERO)


def quotient(call: Call) -> Value:
    """A value divided by a constant, a constant by a value, or two values."""
    return divided(call, call.operand(0), call.operand(1))


def divided(call: Call, x: Operand, divisor: Operand) -> Value:
    """The quotient of two operands, one of which may be constant."""
    if isinstance(divisor, Value):
        inverse = composed.smooth(call.append, call.sample(divisor), "reciprocal")
        return multiplied(call, x, call.value(inverse, divisor.shape, divisor.dtype))
    if bool((divisor == 0).any()):
        raise InputError(f"{call.node.label} divides by zero")
    return multiplied(call, x, 1 / divisor.to(torch.float64))


def negation(call: Call) -> Value:
    """The opposite."""
    return scale(call, call.traced(), -ONE, ZERO)


def addition_of_all(call: Call) -> Value:
    """The sum of all operands."""
    constants = [v for v in call.inputs if isinstance(v, Tensor)]
    first, *values = [v for v in call.inputs if isinstance(v, Value)]
    for value in values:
        first = total(call, first, value)
    shape = broadcast_shape(*(v.shape for v in constants)) if constants else ()
    shift = sum((v.to(torch.float64).expand(shape) for v in constants), torch.zeros(shape, dtype=torch.float64))
    return scale(call, first, ONE, shift) if constants else first


def mean_of_all(call: Call) -> Value:
    """The mean of all operands."""
    return scale(call, addition_of_all(call), number(1 / len(call.inputs)), ZERO)


def _paired(call: Call, a: Value, b: Value) -> tuple[Value, Value]:
    shape = broadcast_shape(a.shape, b.shape)
    wide = broadcast(call, a, shape), broadcast(call, b, shape)
    return cast(tuple[Value, Value], wide)


def cast_(call: Call) -> Operand:
    """To a type that holds every value of the old one, to whole numbers, towards zero, or to whether it is not 0."""
    call.ignore("saturate", "round_mode")
    x, dtype = call.operand(), DTYPES.get(call.integer("to", 0))
    if dtype is None:
        raise Untranslatable("to a type that is not read")
    if isinstance(x, Tensor):
        return x.to(dtype)
    if x.dtype.is_floating_point and dtype in WHOLE:
        return call.value(composed.truncated(call.append, call.sample(x)), x.shape, dtype)
    if dtype is torch.bool and x.dtype is not torch.bool:
        gap = labels.zero(call.append, call.sample(x), not x.dtype.is_floating_point)
        return scale(call, call.value(gap, x.shape, dtype), -ONE, ONE)
    held = x.dtype in WHOLE and dtype in WHOLE  # as long as the type holds them
    if torch.promote_types(x.dtype, dtype) is not dtype and not held:
        raise Untranslatable(f"from {x.dtype} to {dtype} rounds".replace("torch.", ""))
    return Value(x.position, x.shape, dtype)
