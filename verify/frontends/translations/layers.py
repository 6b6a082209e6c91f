"""Layers with weights: linear ones, convolutions, and batch normalisation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from assay.verify.core.ops import Conv2d, ConvTranspose2d, Linear, Op, Reshape, Scale
from assay.verify.frontends.trace import Call, Untranslatable, Value, traced
from assay.verify.frontends.translations.moves import padded


def linear(call: Call) -> Value:
    """``x W^T + b``."""
    x, weight, bias = call.options(("input", "weight", "bias"), {"bias": None})
    return call.emit(Linear(*_weights(weight, bias)), traced(x))


def conv2d(call: Call) -> Value:
    """A convolution in two dimensions; one dimension is a height of one."""
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    defaults = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    x, weight, bias, stride, padding, dilation, groups = call.options(names, defaults)
    mode = getattr(call.module, "padding_mode", "zeros")
    if mode != "zeros":
        raise Untranslatable(f"padding_mode={mode!r}")
    weight, bias = _weights(weight, bias)
    x, line = traced(x), weight.dim() == 3
    if line:
        weight = weight.unsqueeze(2)
    steps, holes = pair(stride, line, 1), pair(dilation, line, 1)
    if isinstance(padding, str):
        reach = [d * (k - 1) if padding == "same" else 0 for d, k in zip(holes, weight.shape[2:], strict=True)]
        before = tuple(n // 2 for n in reach)
        if any(n % 2 for n in reach):
            x = padded(call, x, [0, reach[-1] % 2] if line else [0, reach[1] % 2, 0, reach[0] % 2])
    else:
        before = pair(padding, line, 0)
    op = Conv2d(weight, bias, steps, (before[0], before[1]), holes, int(groups))
    return as_plane(call, op, x) if line else call.emit(op, x)


def conv_transpose2d(call: Call) -> Value:
    """The transpose of a convolution."""
    names = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
    defaults = {"bias": None, "stride": 1, "padding": 0, "output_padding": 0, "groups": 1, "dilation": 1}
    x, weight, bias, stride, padding, extra, groups, dilation = call.options(names, defaults)
    if isinstance(weight, Value) or isinstance(bias, Value):
        raise Untranslatable
    bias = torch.zeros(weight.shape[1] * groups) if bias is None else bias
    pairs = [pair(value, False, 0) for value in (stride, padding, extra, dilation)]
    op = ConvTranspose2d(weight, bias, pairs[0], pairs[1], pairs[2], pairs[3], int(groups))
    return call.emit(op, traced(x))


def _weights(weight: Any, bias: Any) -> tuple[Tensor, Tensor]:
    if isinstance(weight, Value) or isinstance(bias, Value):
        raise Untranslatable
    return weight, torch.zeros(weight.shape[0]) if bias is None else bias


def as_plane(call: Call, op: Op, x: Value, last: bool = True) -> Value:
    """A two-dimensional operation on a sequence: its height is one."""
    channels, length = x.concrete.shape[1:]
    flat = call.emit(op, call.emit(Reshape((channels, 1, length)), x, last=False), last=False)
    return call.emit(Reshape((flat.concrete.shape[1], flat.concrete.shape[3])), flat, last=last)


def pair(value: Any, line: bool, other: int) -> tuple[int, int]:
    """An option for two axes, from one number or one for each; a sequence has ``other`` on the axis it lacks."""
    numbers = [int(value)] * (1 if line else 2) if isinstance(value, int) else [int(v) for v in value]
    if line:
        return other, numbers[-1]
    return numbers[0], numbers[-1]


def batch_norm(call: Call) -> Value:
    """Batch normalisation with the statistics that it has collected; under live training those of the batch.

    In two steps, the mean first: what cancels there is rounded in the original, and must be in the error bound.
    """
    module, x = call.module, call.operand
    assert isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))
    mean, variance = _statistics(module, x.concrete)
    shape = (-1, *[1] * (x.concrete.dim() - 2))
    mean = mean.reshape(shape)
    factor = ((variance + module.eps).rsqrt() * (1 if module.weight is None else module.weight)).reshape(shape)
    shift = torch.zeros_like(factor) if module.bias is None else module.bias.reshape(shape)
    if call.translation.live:
        return call.emit(Scale(factor, shift - mean * factor), x)
    return call.emit(Scale(factor, shift), call.emit(Scale(torch.ones_like(mean), -mean), x, last=False))


def _statistics(module: nn.BatchNorm1d | nn.BatchNorm2d, batch: Tensor) -> tuple[Tensor, Tensor]:
    if module.training:
        variance, mean = torch.var_mean(batch, [axis for axis in range(batch.dim()) if axis != 1], correction=0)
        return mean, variance
    if module.running_mean is None or module.running_var is None:
        raise Untranslatable
    return module.running_mean, module.running_var
