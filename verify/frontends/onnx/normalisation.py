"""Normalisation: by statistics that were collected, or by those of the value itself, in groups of its elements."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from assay.verify.core.errors import InputError
from assay.verify.frontends import composed
from assay.verify.frontends.onnx.layers import ONE, ZERO, scale
from assay.verify.frontends.onnx.moves import rearrange, view
from assay.verify.frontends.onnx.translation import Call, Value
from assay.verify.frontends.refusal import Untranslatable


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


def by_own(call: Call, x: Value, shape: tuple[int, ...], epsilon: float, centred: bool = True) -> Value:
    """``x`` in ``shape``, whose last axis is a group, each normalised by its own statistics; in x's shape."""
    rows = call.sample(view(call, x, shape))
    if centred:
        rows = composed.centred(call.append, rows)
    return call.value(composed.normalised(call.append, rows, epsilon), x.shape, x.dtype)


def layer_norm(call: Call) -> Value:
    """By the statistics of the last axes, from ``axis`` on."""
    return _of_last_axes(call, True)


def rms_norm(call: Call) -> Value:
    """By the root of the mean square of the last axes, from ``axis`` on."""
    return _of_last_axes(call, False)


def _of_last_axes(call: Call, centred: bool) -> Value:
    call.ignore("stash_type")
    x, axis, epsilon = call.traced(), call.integer("axis", -1), call.number("epsilon", 1e-5)
    axis = axis + len(x.shape) if axis < 0 else axis
    y = by_own(call, x, (*x.shape[:axis], prod(x.shape[axis:])), epsilon, centred)
    return scale(call, y, _weight(call, 1, ONE), _weight(call, 2, ZERO) if centred else ZERO)


def _weight(call: Call, index: int, default: Tensor) -> Tensor:
    return call.constant(index, "a weight").to(torch.float64) if call.has(index) else default


def group_norm(call: Call) -> Value:
    """By the statistics of groups of channels; weights are per group in the first version, then per channel."""
    call.ignore("stash_type")
    x, groups = call.traced(), call.integer("num_groups", 1)
    if x.shape[0] != 1 or len(x.shape) < 2 or groups < 1 or x.shape[1] % groups:
        raise InputError(f"{call.node.label} has {groups} groups for {list(x.shape)}")
    rows = call.sample(view(call, x, (1, groups, prod(x.shape) // groups)))
    doubt = composed.cancelling(call.append, rows)  # the runtime's variance is a difference of means
    about = composed.centred(call.append, rows)
    y = call.value(composed.normalised(call.append, about, call.number("epsilon", 1e-5), doubt), x.shape, x.dtype)
    gain, shift = (call.constant(i, "a weight").to(torch.float64) for i in (1, 2))
    if len(gain) != x.shape[1]:
        gain, shift = (t.repeat_interleave(x.shape[1] // groups) for t in (gain, shift))
    behind = (-1, *[1] * (len(x.shape) - 2))
    return scale(call, y, gain.reshape(behind), shift.reshape(behind))


def instance_norm(call: Call) -> Value:
    """By the statistics of each channel."""
    x = call.traced()
    if x.shape[0] != 1 or len(x.shape) < 3:
        raise Untranslatable(f"of a value of shape {list(x.shape)}")
    y = by_own(call, x, (1, x.shape[1], prod(x.shape[2:])), call.number("epsilon", 1e-5))
    behind = (-1, *[1] * (len(x.shape) - 2))
    gain, shift = (call.constant(i, "a weight").to(torch.float64).reshape(behind) for i in (1, 2))
    return scale(call, y, gain, shift)


def mean_variance(call: Call) -> Value:
    """By the statistics over some axes: of each channel, if none are given."""
    x, axes = call.traced(), call.integers("axes") or (0, 2, 3)
    gone = sorted(a % len(x.shape) for a in axes)
    order = [*(a for a in range(len(x.shape)) if a not in gone), *gone]
    turned = rearrange(call, x, lambda t: t.permute(order))
    assert isinstance(turned, Value)
    size = prod(x.shape[a] for a in gone)
    y = by_own(call, turned, (prod(x.shape) // size, size), 0.0)  # the runtime adds nothing to the deviation
    back = [order.index(a) for a in range(len(x.shape))]
    result = rearrange(call, y, lambda t: t.permute(back))
    assert isinstance(result, Value)
    return result
