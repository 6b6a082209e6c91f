"""Piecewise linear activations: maxima and minima of values and constants, all made of ReLUs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from assay.verify.core.errors import InputError
from assay.verify.core.ops import LeakyRelu, Relu
from assay.verify.frontends.composed import number
from assay.verify.frontends.onnx.layers import ONE, ZERO, scale, subtract, total
from assay.verify.frontends.onnx.moves import broadcast
from assay.verify.frontends.onnx.translation import Call, Operand, Value, broadcast_shape
from assay.verify.frontends.refusal import Untranslatable

BIG = 1e6  # what is shifted by more loses digits that it needs


def relu(call: Call) -> Value:
    """``max(x, 0)``."""
    return positive_part(call, call.traced())


def positive_part(call: Call, x: Value) -> Value:
    """``max(x, 0)`` of any value."""
    return call.emit(Relu(), x.shape, x)


def absolute(call: Call) -> Value:
    """``|x|``."""
    return magnitude(call, call.traced())


def magnitude(call: Call, x: Value) -> Value:
    """``|x| = max(x, 0) + max(-x, 0)`` of any value."""
    return total(call, positive_part(call, x), positive_part(call, scale(call, x, -ONE, ZERO)))


def leaky_relu(call: Call) -> Value:
    """``max(x, 0) + alpha * min(x, 0)``."""
    return bent(call, call.traced(), number(call.number("alpha", 0.01)))


def prelu(call: Call) -> Value:
    """LeakyRelu with constant slopes, one or several."""
    return bent(call, call.traced(), call.constant(1, "the slope").to(torch.float64))


def bent(call: Call, x: Value, slope: Tensor) -> Value:
    """``max(x, 0) + slope * min(x, 0)``; ``slope`` broadcasts against x."""
    if not bool(slope.isfinite().all()):
        raise InputError(f"{call.node.label} has a slope that is NaN or inf")
    if slope.numel() and bool((slope == slope.flatten()[0]).all()) and float(slope.flatten()[0]) >= 0:
        return call.emit(LeakyRelu(float(slope.flatten()[0])), x.shape, x)
    below = scale(call, positive_part(call, scale(call, x, -ONE, ZERO)), slope, ZERO)
    return subtract(call, positive_part(call, x), below)


def hard_sigmoid(call: Call) -> Value:
    """``min(max(alpha * x + beta, 0), 1)``."""
    x = scale(call, call.traced(), number(call.number("alpha", 0.2)), number(call.number("beta", 0.5)))
    return at_most(call, positive_part(call, x), ONE)


def clip(call: Call) -> Value:
    """``min(max(x, low), high)``; an end that no number of the type lies beyond is none."""
    x, ends = call.traced(), []
    for index, name, default in ((1, "min", -math.inf), (2, "max", math.inf)):
        ends.append(float(call.constant(index, name)) if call.has(index) else call.number(name, default))
    low, high = ends
    if math.isnan(low) or math.isnan(high):
        raise InputError(f"{call.node.label} has an end that is NaN")
    if low > high:
        raise Untranslatable(f"to [{low:g}, {high:g}]")
    return at_most(call, at_least(call, x, number(low)), number(high))


def largest(call: Call) -> Operand:
    """The larger of all operands, element by element."""
    most = call.operand(0)
    for i in range(1, len(call.inputs)):
        most = larger(call, most, call.operand(i))
    return most


def smallest(call: Call) -> Operand:
    """The smaller of all operands: ``min(a, b) = -max(-a, -b)``."""
    most = opposite(call, call.operand(0))
    for i in range(1, len(call.inputs)):
        most = larger(call, most, opposite(call, call.operand(i)))
    return opposite(call, most)


def opposite(call: Call, x: Operand) -> Operand:
    """``-x``."""
    return -x if isinstance(x, Tensor) else scale(call, x, -ONE, ZERO)


def larger(call: Call, a: Operand, b: Operand) -> Operand:
    """``max(a, b)``, which broadcast."""
    if isinstance(a, Value) and isinstance(b, Value):
        return total(call, a, positive_part(call, subtract(call, b, a)))
    if isinstance(a, Value):
        assert isinstance(b, Tensor)
        return at_least(call, a, b)
    return at_least(call, b, a) if isinstance(b, Value) else torch.maximum(a, b)


def at_most(call: Call, x: Value, high: Tensor) -> Value:
    """``min(x, high)`` of a constant that broadcasts against x."""
    if bool((high >= torch.finfo(x.dtype).max).all()):
        return at_least(call, x, -high)
    return scale(call, at_least(call, scale(call, x, -ONE, ZERO), -high), -ONE, ZERO)


def at_least(call: Call, x: Value, low: Tensor) -> Value:
    """``max(x, low)`` of a constant that broadcasts against x."""
    if bool((low <= -torch.finfo(x.dtype).max).all()):
        wide = broadcast(call, x, broadcast_shape(x.shape, low.shape))
        assert isinstance(wide, Value)
        return wide
    if not bool(low.isfinite().all()):
        raise InputError(f"{call.node.label} has a constant that holds NaN or inf")
    low = low.to(torch.float64)
    if bool((low.abs() > BIG).any()):  # x itself stays as it is where it is larger
        return total(call, x, positive_part(call, scale(call, x, -ONE, low)))
    over = positive_part(call, scale(call, x, ONE, -low))
    return over if bool((low == 0).all()) else scale(call, over, ONE, low)
