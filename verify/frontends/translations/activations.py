"""Activations: ReLU and its relatives, tanh, and what is made of them, the sigmoid and clamping."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from assay.verify.core.ops import LeakyRelu, Relu, Scale, Sub, Tanh
from assay.verify.frontends.trace import Call, Untranslatable, Value, traced
from assay.verify.frontends.translations.arithmetic import number


def relu(call: Call) -> Value:
    """``max(x, 0)``."""
    return call.emit(Relu(), call.operand)


def leaky_relu(call: Call) -> Value:
    """``max(x, 0) + slope * min(x, 0)``."""
    x, slope, _ = call.options(("input", "negative_slope", "inplace"), {"negative_slope": 0.01, "inplace": False})
    if not 0 <= slope < math.inf:
        raise Untranslatable(f"a slope of {slope:g}, expected one of at least 0")
    return call.emit(LeakyRelu(float(slope)), traced(x))


def prelu(call: Call) -> Value:
    """``relu(x) - slope * relu(-x)``, with a slope for each channel, or one for all."""
    x, slope = call.options(("input", "weight"))
    if isinstance(slope, Value) or traced(x).concrete.dim() < 2:
        raise Untranslatable
    if slope.numel() == 1 and float(slope) >= 0 and not call.translation.live:
        return call.emit(LeakyRelu(float(slope)), x)
    slope = slope.view(-1, *[1] * (x.concrete.dim() - 2)) if slope.numel() > 1 else slope.view(())
    one, zero = number(1.0), number(0.0)
    opposite = call.emit(Relu(), call.emit(Scale(-one, zero), x, last=False), last=False)
    below = call.emit(Scale(slope, zero), opposite, last=False)
    return call.emit(Sub(), call.emit(Relu(), x, last=False), below)


def tanh(call: Call) -> Value:
    """The hyperbolic tangent."""
    return call.emit(Tanh(), call.operand)


def sigmoid(call: Call) -> Value:
    """``1 / (1 + exp(-x)) = (1 + tanh(x / 2)) / 2``."""
    half = call.emit(Scale(number(0.5), number(0.0)), call.operand, last=False)
    return call.emit(Scale(number(0.5), number(0.5)), call.emit(Tanh(), half, last=False))


def clamp(call: Call) -> Value:
    """``low + relu(x - low) - relu(x - high)``, or with one end only."""
    names = {"Hardtanh": ("input", "min_val", "max_val"), "hardtanh": ("input", "min_val", "max_val")}
    kind = type(call.module).__name__ if call.module is not None else getattr(call.node.target, "__name__", "")
    low: Any
    high: Any
    if kind in ("ReLU6", "relu6"):
        x, low, high = call.operand, 0.0, 6.0
    else:
        defaults = {"min": None, "max": None, "min_val": -1.0, "max_val": 1.0}
        x, low, high = call.options(names.get(kind, ("input", "min", "max")), defaults)
    x, one = traced(x), number(1.0)
    if any(isinstance(end, (Value, Tensor)) for end in (low, high)) or (low is None and high is None):
        raise Untranslatable
    if high is None:
        above = call.emit(Relu(), call.emit(Scale(one, number(-low)), x, last=False), last=low == 0)
        return above if low == 0 else call.emit(Scale(one, number(low)), above)
    below = call.emit(Relu(), call.emit(Scale(-one, number(high)), x, last=False), last=False)
    if low is None:  # high - relu(high - x)
        return call.emit(Scale(-one, number(high)), below)
    if low > high:
        raise Untranslatable
    # high - clamp(high - x, 0, high - low), the inner one being t - relu(t - (high - low)) of t = relu(high - x)
    over = call.emit(Relu(), call.emit(Scale(one, number(low - high)), below, last=False), last=False)
    inner = call.emit(Sub(), below, over, last=False)
    return call.emit(Scale(-one, number(high)), inner)
