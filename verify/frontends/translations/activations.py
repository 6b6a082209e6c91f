"""Piecewise linear activations: ReLU and its relatives, clamping, maxima and minima, magnitudes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from assay.verify.core.ops import Add, LeakyRelu, Max, Relu, Scale, Sub
from assay.verify.frontends.composed import Value, number
from assay.verify.frontends.refusal import Untranslatable
from assay.verify.frontends.translation import Step, of_sample
from assay.verify.frontends.translations.arithmetic import affine, axes_of, constant, last


def relu(step: Step) -> Value:
    """``max(x, 0)``."""
    x = step.value("self")
    return step.emit(Relu(), x, shape=x.shape)


def leaky_relu(step: Step) -> Value:
    """``max(x, 0) + slope * min(x, 0)``."""
    slope, x = float(step["negative_slope"]), step.value("self")
    if not 0 <= slope < math.inf:
        raise Untranslatable(f"a slope of {slope:g}, expected one of at least 0")
    return step.emit(LeakyRelu(slope), x, shape=x.shape)


def shrunk(step: Step) -> Value:
    """Towards 0 by lambda, and 0 within it: ``relu(x - lambda) - relu(-x - lambda)``."""
    x, less = step.value("self"), number(-float(step["lambd"]))
    sides = (_positive(step, _scaled(step, x, number(sign), less)) for sign in (1.0, -1.0))
    return step.emit(Sub(), *sides, shape=x.shape)


def prelu(step: Step) -> Value:
    """``relu(x) - slope * relu(-x)``, with a slope for each channel, or one for all."""
    slope, x = constant(step, "weight"), step.value("self")
    if slope.numel() == 1 and float(slope) >= 0 and not step.live:
        return step.emit(LeakyRelu(float(slope)), x, shape=x.shape)
    below = _scaled(step, _positive(step, _scaled(step, x, number(-1.0))), slope)
    return step.emit(Sub(), _positive(step, x), below, shape=x.shape)


def absolute(step: Step) -> Value:
    """``|x|``."""
    return magnitude(step, step.value("self"))


def magnitude(step: Step, x: Value) -> Value:
    """``|x| = relu(x) + relu(-x)`` of any value."""
    opposite = _scaled(step, x, number(-1.0))
    return step.emit(Add(), _positive(step, x), _positive(step, opposite), shape=x.shape)


def hardtanh(step: Step) -> Value:
    """Clamped to an interval."""
    return _clamped(step, step.value("self"), number(step["min_val"]), number(step["max_val"]))


def hardsigmoid(step: Step) -> Value:
    """``x / 6 + 1 / 2`` clamped to the unit interval."""
    return _clamped(step, affine(step, "self", number(1 / 6), number(0.5)), number(0.0), number(1.0))


def threshold(step: Step) -> Value:
    """``x`` above the threshold and a value elsewhere, where this is the threshold itself."""
    if step["threshold"] != step["value"]:
        raise Untranslatable("jumps at its threshold")
    return _clamped(step, step.value("self"), number(step["threshold"]), None)


def clamp(step: Step) -> Value:
    """Clamped to an interval, whose ends may be constant tensors, or on one side."""
    low, high = (None if step.given.get(end) is None else constant(step, end) for end in ("min", "max"))
    return _clamped(step, step.spread("self"), low, high)


def _clamped(step: Step, x: Value, low: Tensor | None, high: Tensor | None) -> Value:
    """``low + relu(x - low) - relu(x - high)``, or with one end only."""
    one = number(1.0)
    low = None if low is not None and bool((low == -math.inf).all()) else low
    high = None if high is not None and bool((high == math.inf).all()) else high
    if not all(end is None or bool(end.isfinite().all()) for end in (low, high)):
        raise Untranslatable("to an interval that has no end in some places")
    if low is None and high is None:
        return x
    if high is None:
        assert low is not None
        above = _positive(step, _scaled(step, x, one, -low) if bool((low != 0).any()) else x)
        return _scaled(step, above, one, low) if bool((low != 0).any()) else above
    below = _positive(step, _scaled(step, x, -one, high))
    if low is None:  # high - relu(high - x)
        return _scaled(step, below, -one, high)
    if bool((low > high).any()):
        raise Untranslatable("to an interval whose ends are crossed")
    # high - clamp(high - x, 0, high - low), the inner one being t - relu(t - (high - low)) of t = relu(high - x)
    over = _positive(step, _scaled(step, below, one, low - high))
    inner = step.emit(Sub(), below, over, shape=x.shape)
    return _scaled(step, inner, -one, high)


def maximum(step: Step) -> Value:
    """``a + relu(b - a)``, of two values or one and a constant; or the largest value over some axes."""
    return _extreme(step, 1.0)


def minimum(step: Step) -> Value:
    """``a - relu(a - b)``, of two values or one and a constant; or the smallest value over some axes."""
    return _extreme(step, -1.0)


def _extreme(step: Step, sign: float) -> Value:
    if "other" not in step.given:
        return _over_axes(step, sign)
    if not (step.traced("self") and step.traced("other")):
        name, other = ("self", "other") if step.traced("self") else ("other", "self")
        end = constant(step, other)
        return (
            _clamped(step, step.spread(name), end, None) if sign > 0 else _clamped(step, step.spread(name), None, end)
        )
    a, b = step.spread("self"), step.spread("other")
    more = step.emit(Sub(), *((b, a) if sign > 0 else (a, b)), shape=a.shape)
    return step.emit(Add() if sign > 0 else Sub(), a, _positive(step, more), shape=a.shape)


def _over_axes(step: Step, sign: float) -> Value:
    axes = axes_of(step)
    x = step.value("self", lambda x: _rows(last(x, axes)))
    if sign > 0:
        return step.emit(Max(), x)
    lowest = step.emit(Max(), _scaled(step, x, number(-1.0)))
    return _scaled(step, lowest, number(-1.0))


def _rows(x: Tensor) -> Tensor:
    """``x`` with an axis beside the last and the batch's."""
    return x if len(of_sample(x.shape)) > 1 else x.reshape(1, 1, -1)


def _positive(step: Step, x: Value) -> Value:
    return step.emit(Relu(), x, shape=x.shape)


def _scaled(step: Step, x: Value, factor: Tensor, shift: Tensor | None = None) -> Value:
    return step.emit(Scale(factor, torch.zeros_like(factor) if shift is None else shift), x, shape=x.shape)
