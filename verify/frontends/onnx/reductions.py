"""Means, sums, maxima and minima over some axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch

from assay.verify.core.ops import Max
from assay.verify.frontends.onnx.layers import ONE, ZERO, linear, scale
from assay.verify.frontends.onnx.moves import different_axes, rearrange, view, whole
from assay.verify.frontends.onnx.piecewise import magnitude
from assay.verify.frontends.onnx.translation import Call, Handler, Value, sample_shape

Summary = Callable[[Call, Value], Value]  # of the last axis, which goes away or keeps the length 1


def global_average_pool(call: Call) -> Value:
    """The mean over all spatial axes, which keep the length 1."""
    return _over(call, tuple(range(2, len(call.traced().shape))), mean)


def global_max_pool(call: Call) -> Value:
    """The largest value over all spatial axes, which keep the length 1."""
    return _over(call, tuple(range(2, len(call.traced().shape))), largest)


def reduction(summary: Summary) -> Handler:
    """The handler that summarises some axes, or all, if none is given."""

    def handle(call: Call) -> Value:
        keep, idle = bool(call.integer("keepdims", 1)), bool(call.integer("noop_with_empty_axes", 0))
        axes = call.integers("axes", 1)
        if idle and not axes:
            return call.traced()
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
