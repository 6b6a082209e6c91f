"""Means, sums, norms, maxima and minima over some axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch

from assay.verify.core.ops import Max
from assay.verify.frontends import composed
from assay.verify.frontends.onnx.layers import ONE, ZERO, divided, linear, scale
from assay.verify.frontends.onnx.moves import different_axes, rearrange, view, whole
from assay.verify.frontends.onnx.piecewise import magnitude
from assay.verify.frontends.onnx.translation import Call, Handler, Operand, Value, sample_shape
from assay.verify.frontends.refusal import Untranslatable

Summary = Callable[[Call, Value], Value]  # of the last axis, which goes away or keeps the length 1


def global_average_pool(call: Call) -> Value:
    """The mean over all spatial axes, which keep the length 1."""
    return _over(call, tuple(range(2, len(call.traced().shape))), mean)


def global_max_pool(call: Call) -> Value:
    """The largest value over all spatial axes, which keep the length 1."""
    return _over(call, tuple(range(2, len(call.traced().shape))), largest)


def reduction(summary: Summary) -> Handler:
    """The handler that summarises some axes, or all, if none is given, or each element alone."""

    def handle(call: Call) -> Value:
        keep, idle = bool(call.integer("keepdims", 1)), bool(call.integer("noop_with_empty_axes", 0))
        axes = call.integers("axes", 1)
        if idle and not axes:  # no axis is reduced, and what is done to each element is done
            return _over(call, (), summary) if summary in OF_EACH else call.traced()
        return _over(call, axes or tuple(range(len(call.traced().shape))), summary, keep)

    return handle


def _over(call: Call, axes: tuple[int, ...], summary: Summary, keep: bool = True) -> Value:
    """The axes last, as one, and its summary."""
    x = call.traced()
    gone = different_axes(axes, len(x.shape))
    stay = [a for a in range(len(x.shape)) if a not in gone]
    kept = [x.shape[a] for a in stay]
    order = (*stay, *sorted(gone))
    last = cast(Value, rearrange(call, x, lambda t: t.permute(order).reshape(*kept, -1)))
    shape = tuple(1 if a in gone else n for a, n in enumerate(x.shape)) if keep else tuple(kept)
    return view(call, summary(call, last), shape)


def mean(call: Call, x: Value) -> Value:
    """The mean over the last axis."""
    count = x.shape[-1]
    return linear(call, x, torch.full((1, count), 1 / count, dtype=torch.float64))


def total(call: Call, x: Value) -> Value:
    """The sum over the last axis."""
    return linear(call, x, torch.ones(1, x.shape[-1]))


def largest(call: Call, x: Value) -> Value:
    """The largest value on the last axis."""
    if len(sample_shape(x.shape)) == 1:  # of one row: a vector of one
        x = whole(call, view(call, x, (1, x.shape[-1])))
    return call.emit(Max(), x.shape[:-1], x)


def least(call: Call, x: Value) -> Value:
    """The smallest value on the last axis."""
    return scale(call, largest(call, scale(call, x, -ONE, ZERO)), -ONE, ZERO)


def total_magnitude(call: Call, x: Value) -> Value:
    """The sum of the magnitudes on the last axis."""
    return total(call, magnitude(call, x))


def total_square(call: Call, x: Value) -> Value:
    """The sum of the squares on the last axis."""
    return total(call, _curve(call, x, "square"))


def euclidean(call: Call, x: Value) -> Value:
    """The root of the sum of the squares on the last axis."""
    return _curve(call, total_square(call, x), "sqrt")


def log_total(call: Call, x: Value) -> Value:
    """The logarithm of the sum on the last axis."""
    return _curve(call, total(call, x), "log")


def log_sum_exp(call: Call, x: Value) -> Value:
    """The logarithm of the sum of the exponentials on the last axis."""
    return call.value(composed.log_sum_exp(call.append, call.sample(x)), x.shape[:-1], x.dtype)


# What is more than the element itself where it is of one alone.
OF_EACH = (total_magnitude, total_square, euclidean, log_total)


def _curve(call: Call, x: Value, name: str) -> Value:
    return call.value(composed.smooth(call.append, call.sample(x), name), x.shape, x.dtype)


def running_sum(call: Call) -> Operand:
    """Sums of all elements before each one on a constant axis, and of itself unless ``exclusive``."""
    x, axis = call.traced(), int(call.constant(1, "the axis"))
    weight = torch.ones(x.shape[axis], x.shape[axis]).tril(-call.integer("exclusive", 0))
    weight = weight.T if call.integer("reverse", 0) else weight
    last = cast(Value, rearrange(call, x, lambda t: t.movedim(axis, -1)))
    return rearrange(call, linear(call, last, weight), lambda t: t.movedim(-1, axis))


def lp_normalized(call: Call) -> Value:
    """Divided by the norm over one axis, in l1 or l2."""
    order, x = call.integer("p", 2), call.traced()
    if order not in (1, 2):
        raise Untranslatable(f"in l{order}")
    norm = _over(call, (call.integer("axis", -1),), euclidean if order == 2 else total_magnitude)
    return divided(call, x, norm)
