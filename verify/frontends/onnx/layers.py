"""Layers with weights, element-wise arithmetic with constants, and activations."""

from __future__ import annotations

from math import prod
from typing import cast

import torch
from torch import Tensor

from assay.verify.core.errors import InputError
from assay.verify.core.ops import Add, Linear, Scale, Smooth, Sub
from assay.verify.frontends.onnx.moves import broadcast, rearrange, view
from assay.verify.frontends.onnx.tensors import DTYPES
from assay.verify.frontends.onnx.translation import Call, Operand, Value, aligned, broadcast_shape
from assay.verify.frontends.refusal import Untranslatable

ONE, ZERO = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)


def number(value: float) -> Tensor:
    """A float64 scalar."""
    return torch.tensor(float(value), dtype=torch.float64)


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
    return scale(call, x, ONE, constant)


def subtraction(call: Call) -> Value:
    """The difference of two operands."""
    a, b = call.operand(0), call.operand(1)
    if isinstance(a, Value) and isinstance(b, Value):
        return subtract(call, a, b)
    if isinstance(a, Value):
        return scale(call, a, ONE, -call.constant(1).to(torch.float64))
    return scale(call, call.traced(1), -ONE, call.constant(0))


def subtract(call: Call, a: Value, b: Value) -> Value:
    """The difference of two values."""
    a, b = _paired(call, a, b)
    return call.emit(Sub(), a.shape, a, b)


def product(call: Call) -> Value:
    """A value times a constant."""
    a, b = call.operand(0), call.operand(1)
    x, factor = (a, b) if isinstance(a, Value) else (b, a)
    if not isinstance(x, Value) or not isinstance(factor, Tensor):
        raise Untranslatable("of two values that depend on the input")
    return scale(call, x, factor, ZERO)


def quotient(call: Call) -> Value:
    """A value divided by a constant."""
    divisor = call.constant(1, "the divisor").to(torch.float64)
    if bool((divisor == 0).any()):
        raise InputError(f"{call.node.label} divides by zero")
    return scale(call, call.traced(), 1 / divisor, ZERO)


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


def where(call: Call) -> Value:
    """One of two operands, element by element, as a constant says."""
    chosen = call.constant(0, "the condition")
    parts: list[Operand] = []
    for i, mask in ((1, chosen), (2, ~chosen)):
        x, share = call.operand(i), mask.to(torch.float64)
        parts.append(x * share if isinstance(x, Tensor) else scale(call, x, share, ZERO))
    return total(call, *parts)


def _paired(call: Call, a: Value, b: Value) -> tuple[Value, Value]:
    shape = broadcast_shape(a.shape, b.shape)
    wide = broadcast(call, a, shape), broadcast(call, b, shape)
    return cast(tuple[Value, Value], wide)


def matmul(call: Call) -> Operand:
    """The product with a constant matrix, on either side."""
    return _product(call, call.operand(0), call.operand(1))


def gemm(call: Call) -> Operand:
    """``alpha A B + beta C``, A or B constant, both perhaps transposed."""
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)
    turn = bool(call.integer("transA", 0)), bool(call.integer("transB", 0))
    a, b = (rearrange(call, call.operand(i), _turned) if turn[i] else call.operand(i) for i in (0, 1))
    c = call.operand(2) if call.has(2) else ZERO
    if isinstance(c, Tensor):
        c = beta * c.to(torch.float64)
        if isinstance(a, Value) and isinstance(b, Tensor) and prod(c.shape[:-1]) == 1:
            return _times(call, a, _stretched(b, alpha), c)
        return total(call, _product(call, a, b, alpha), c)
    return total(call, _product(call, a, b, alpha), scale(call, c, number(beta), ZERO))


def _product(call: Call, a: Operand, b: Operand, alpha: float = 1.0) -> Operand:
    """``alpha A B``, one of them constant."""
    if isinstance(a, Value):
        if isinstance(b, Value):
            raise Untranslatable("of two values that depend on the input")
        return _times(call, a, _stretched(b, alpha))
    if isinstance(b, Tensor):
        raise Untranslatable("of constants")
    weight = _stretched(a, alpha)
    if len(b.shape) == 1:
        return _times(call, b, weight.T if weight.dim() == 2 else weight)
    turned = cast(Value, rearrange(call, b, _turned))  # W x = (x^T W^T)^T
    if weight.dim() == 1:
        return _times(call, turned, weight)
    return rearrange(call, _times(call, turned, weight.transpose(-1, -2)), _turned)


def _stretched(weight: Tensor, alpha: float) -> Tensor:
    """``alpha`` times the weight; itself, where that changes nothing: weights are large."""
    return weight if alpha == 1 else alpha * weight.to(torch.float64)


def _times(call: Call, x: Value, weight: Tensor, bias: Tensor = ZERO) -> Value:
    """``x W + b``: weight (in x out), bias one number or one per output; a weight (in) drops the last axis."""
    if not weight.dim() or not x.shape or x.shape[-1] != weight.shape[-2 if weight.dim() > 1 else 0]:
        raise InputError(f"{call.node.label} multiplies shapes {list(x.shape)} and {list(weight.shape)}")
    if weight.dim() > 2:
        if prod(weight.shape[:-2]) != 1 or len(x.shape) < 2:
            raise Untranslatable("by a stack of matrices")
        x = view(call, x, (*[1] * (weight.dim() - len(x.shape)), *x.shape))
        weight = weight.reshape(weight.shape[-2:])
    if weight.dim() == 1:
        return view(call, linear(call, x, weight[None]), x.shape[:-1])
    return linear(call, x, weight.T, bias.reshape(bias.shape[-1:]))


def _turned(x: Tensor) -> Tensor:
    return x.transpose(-1, -2)


def batch_norm(call: Call) -> Value:
    """With the statistics that were collected; the mean first: what cancels there is rounded in the original."""
    call.ignore("momentum", "is_test", "consumed_inputs")
    if call.integer("training_mode", 0) or not call.integer("spatial", 1):
        raise Untranslatable("in training mode, or not per channel")
    x, epsilon = call.traced(), call.number("epsilon", 1e-5)
    shape = (-1, *[1] * (len(x.shape) - 2))
    gain, shift, mean, variance = (call.constant(i).to(torch.float64).reshape(shape) for i in range(1, 5))
    if bool((variance + epsilon <= 0).any()):
        raise InputError(f"{call.node.label} has a negative variance")
    return scale(call, scale(call, x, ONE, -mean), gain / (variance + epsilon).sqrt(), shift)


def tanh(call: Call) -> Value:
    """The hyperbolic tangent."""
    return call.emit(Smooth("tanh"), call.traced().shape, call.traced())


def sigmoid(call: Call) -> Value:
    """``1 / (1 + exp(-x)) = (1 + tanh(x / 2)) / 2``."""
    half = scale(call, call.traced(), number(0.5), ZERO)
    return scale(call, call.emit(Smooth("tanh"), half.shape, half), number(0.5), number(0.5))


def cast_(call: Call) -> Operand:
    """To a floating type that holds every value of the old one."""
    call.ignore("saturate", "round_mode")
    x, dtype = call.operand(), DTYPES.get(call.integer("to", 0))
    if dtype is None:
        raise Untranslatable("to a type that is not read")
    if isinstance(x, Tensor):
        return x.to(dtype)
    if torch.promote_types(x.dtype, dtype) is not dtype:
        raise Untranslatable(f"from {x.dtype} to {dtype} rounds".replace("torch.", ""))
    return Value(x.position, x.shape, dtype)
