"""The table of what is read from torch: modules, functions and methods, each as operations of ours.

A few operations say it all: whatever only moves values around is a Reshape or a Gather, found by sending the
elements' numbers through torch's own function; pooling is a convolution or a Gather of windows and a Max.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from verify.core.ops import (
    Add,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Gather,
    LeakyRelu,
    Linear,
    Max,
    Op,
    Relu,
    Reshape,
    Scale,
    Sub,
    Tanh,
)
from verify.frontends.trace import Call, Handler, Untranslatable, Value, traced

HINT = (
    "assay reads Linear, Conv1d/2d, ConvTranspose2d, BatchNorm, ReLU, LeakyReLU, Sigmoid, Tanh, clamp, average and max "
    "pooling, padding, reshaping, slicing, concatenation, additions and subtractions, and scaling or shifting by "
    "constants; rewrite the model with these, or remove what is not needed for inference"
)


def linear(call: Call) -> Value:
    """``x W^T + b``."""
    x, weight, bias = call.options(("input", "weight", "bias"), {"bias": None})
    return call.emit(Linear(*_weights(weight, bias)), traced(x))


def conv2d(call: Call) -> Value:
    """A convolution in two dimensions; one dimension is a height of one."""
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    defaults = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    x, weight, bias, stride, padding, dilation, groups = call.options(names, defaults)
    if getattr(call.module, "padding_mode", "zeros") != "zeros":
        raise Untranslatable
    weight, bias = _weights(weight, bias)
    x, line = traced(x), weight.dim() == 3
    if line:
        weight = weight.unsqueeze(2)
    steps, holes = _pair(stride, line, 1), _pair(dilation, line, 1)
    if isinstance(padding, str):
        reach = [d * (k - 1) if padding == "same" else 0 for d, k in zip(holes, weight.shape[2:], strict=True)]
        before = tuple(n // 2 for n in reach)
        if any(n % 2 for n in reach):
            x = _padded(call, x, [0, reach[-1] % 2] if line else [0, reach[1] % 2, 0, reach[0] % 2])
    else:
        before = _pair(padding, line, 0)
    op = Conv2d(weight, bias, steps, (before[0], before[1]), holes, int(groups))
    return _as_plane(call, op, x) if line else call.emit(op, x)


def conv_transpose2d(call: Call) -> Value:
    """The transpose of a convolution."""
    names = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
    defaults = {"bias": None, "stride": 1, "padding": 0, "output_padding": 0, "groups": 1, "dilation": 1}
    x, weight, bias, stride, padding, extra, groups, dilation = call.options(names, defaults)
    if isinstance(weight, Value) or isinstance(bias, Value):
        raise Untranslatable
    bias = torch.zeros(weight.shape[1] * groups) if bias is None else bias
    pairs = [_pair(value, False, 0) for value in (stride, padding, extra, dilation)]
    op = ConvTranspose2d(weight, bias, pairs[0], pairs[1], pairs[2], pairs[3], int(groups))
    return call.emit(op, traced(x))


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


def relu(call: Call) -> Value:
    """``max(x, 0)``."""
    return call.emit(Relu(), call.operand)


def leaky_relu(call: Call) -> Value:
    """``max(x, 0) + slope * min(x, 0)``."""
    x, slope, _ = call.options(("input", "negative_slope", "inplace"), {"negative_slope": 0.01, "inplace": False})
    if not 0 <= slope < math.inf:
        raise Untranslatable
    return call.emit(LeakyRelu(float(slope)), traced(x))


def tanh(call: Call) -> Value:
    """The hyperbolic tangent."""
    return call.emit(Tanh(), call.operand)


def sigmoid(call: Call) -> Value:
    """``1 / (1 + exp(-x)) = (1 + tanh(x / 2)) / 2``."""
    half = call.emit(Scale(_number(0.5), _number(0.0)), call.operand, last=False)
    return call.emit(Scale(_number(0.5), _number(0.5)), call.emit(Tanh(), half, last=False))


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
    x, one = traced(x), _number(1.0)
    if any(isinstance(end, (Value, Tensor)) for end in (low, high)) or (low is None and high is None):
        raise Untranslatable
    if high is None:
        above = call.emit(Relu(), call.emit(Scale(one, _number(-low)), x, last=False), last=low == 0)
        return above if low == 0 else call.emit(Scale(one, _number(low)), above)
    below = call.emit(Relu(), call.emit(Scale(-one, _number(high)), x, last=False), last=False)
    if low is None:  # high - relu(high - x)
        return call.emit(Scale(-one, _number(high)), below)
    if low > high:
        raise Untranslatable
    # high - clamp(high - x, 0, high - low), the inner one being t - relu(t - (high - low)) of t = relu(high - x)
    over = call.emit(Relu(), call.emit(Scale(one, _number(low - high)), below, last=False), last=False)
    inner = call.emit(Sub(), below, over, last=False)
    return call.emit(Scale(-one, _number(high)), inner)


def same(call: Call) -> Any:
    """The identity; a constant moved to the dtype of a traced value, ``c.to(x)``, is still a constant."""
    x = call.args[0] if call.args else call.kwargs.get("input")
    if not isinstance(x, Value):
        return call.concrete
    if call.concrete.dtype != x.concrete.dtype or not torch.equal(call.concrete, x.concrete):
        raise Untranslatable
    return x


def rearranged(call: Call) -> Any:
    """Whatever only moves values around, told by where the numbers of the elements go."""
    return _rearranged(call, call.again(_numbered(call.operand.concrete)), call.concrete, fill=0.0)


def pad(call: Call) -> Value:
    """Padding with a constant, or by reflection or replication."""
    if call.module is not None:
        module: Any = call.module
        x, padding, mode, value = call.operand, module.padding, "constant", getattr(module, "value", 0.0)
    else:
        defaults = {"mode": "constant", "value": None}
        x, padding, mode, value = call.options(("input", "pad", "mode", "value"), defaults)
    number = _numbered(traced(x).concrete)
    moved = F.pad(number, padding, value=0.0) if mode == "constant" else F.pad(number, padding, mode)
    found = _rearranged(call, moved, call.concrete, fill=float(value or 0.0))
    assert isinstance(found, Value)
    return found


def _numbered(batch: Tensor) -> Tensor:
    """The numbers of all elements of ``batch`` from 1 on, in its shape."""
    return torch.arange(1, batch.numel() + 1, dtype=torch.float64).reshape(batch.shape)


def _rearranged(call: Call, moved: Any, concrete: Any, fill: float) -> Any:
    if isinstance(moved, (tuple, list)):
        pairs = zip(moved, concrete, strict=True)
        return type(moved)(_rearranged(call, part, value, fill) for part, value in pairs)
    if not isinstance(moved, Tensor) or moved.dim() < 1 or len(moved) != len(call.operand.concrete):
        raise Untranslatable
    # The other samples' elements must go the same ways; 0 is what padding put there.
    size = call.operand.concrete[0].numel()
    later = torch.arange(len(moved)).view(-1, *[1] * (moved.dim() - 1)) * size
    if bool((moved[0] > size).any()) or not torch.equal(moved, moved[:1] + later * (moved[:1] > 0)):
        raise Untranslatable
    shape, index = tuple(moved.shape[1:]), moved[0].flatten().long() - 1
    in_place = torch.equal(index, torch.arange(call.operand.concrete[0].numel()))
    op: Op = Reshape(shape) if in_place else Gather(index, shape, fill)
    return call.translation.emit(op, [call.operand], concrete)


def _padded(call: Call, x: Value, padding: list[int]) -> Value:
    moved = F.pad(_numbered(x.concrete), padding)
    return call.emit(Gather(moved[0].flatten().long() - 1, tuple(moved.shape[1:])), x, last=False)


def item(call: Call) -> Any:
    """``x[...]``: of a value a rearrangement, of a tuple of values one of them."""
    return rearranged(call) if isinstance(call.args[0], Value) else call.args[0][call.args[1]]


def concat(call: Call) -> Value:
    """Values side by side; constants among them are not read."""
    parts, axis = call.options(("tensors", "dim"), {"dim": 0})
    operands = [traced(part) for part in parts]
    axis = axis % call.concrete.dim()
    if axis == 0:
        raise Untranslatable
    return call.emit(Concat(axis - 1), *operands)


def max_pool(call: Call) -> Value:
    """Windows gathered, then their maxima. Where a window reaches over the edge, one of its own elements stands in
    for what is outside (-inf), which changes no maximum."""
    names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    defaults = {"stride": None, "padding": 0, "dilation": 1, "ceil_mode": False, "return_indices": False}
    x, kernel, stride, padding, dilation, _, indices = call.options(names, defaults)
    if indices:
        raise Untranslatable
    x = traced(x)
    line = x.concrete.dim() == 3
    size, steps = _pair(kernel, line, 1), _pair(stride or kernel, line, 1)
    before, holes = _pair(padding, line, 0), _pair(dilation, line, 1)
    channels, *plane = (x.concrete.shape[1], 1, x.concrete.shape[2]) if line else x.concrete.shape[1:]
    places = (1, call.concrete.shape[2]) if line else tuple(call.concrete.shape[2:])
    rows, columns = (
        torch.arange(n)[:, None] * s - p + torch.arange(k) * d
        for n, s, p, k, d in zip(places, steps, before, size, holes, strict=True)
    )
    row, column = rows[:, None, :, None], columns[None, :, None, :]  # (height x width x kernel height x kernel width)
    inside = (row >= 0) & (row < plane[0]) & (column >= 0) & (column < plane[1])
    element = torch.where(inside, row * plane[1] + column, plane[0] * plane[1]).flatten(2)
    element = torch.where(inside.flatten(2), element, element.amin(2, keepdim=True))
    index = torch.arange(channels)[:, None, None, None] * (plane[0] * plane[1]) + element
    shape = (*call.concrete.shape[1:], size[0] * size[1])
    return call.emit(Max(), call.emit(Gather(index.flatten(), shape), x, last=False))


def avg_pool(call: Call) -> Value:
    """A convolution of each channel with a constant; where the padding does not count, scaled up at the edges."""
    names = ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    defaults: dict[str, Any] = {"stride": None, "padding": 0, "ceil_mode": False, "count_include_pad": True}
    line = call.operand.concrete.dim() == 3
    x, kernel, stride, padding, ceil, whole, *rest = call.options(
        names[:-1] if line else names, {**defaults, "divisor_override": None}
    )
    divisor = rest[0] if rest else None
    size, steps, before = _pair(kernel, line, 1), _pair(stride or kernel, line, 1), _pair(padding, line, 0)
    x = traced(x)
    plane = (1, x.concrete.shape[2]) if line else tuple(x.concrete.shape[2:])
    places = (1, call.concrete.shape[2]) if line else tuple(call.concrete.shape[2:])
    floor = tuple((n + 2 * p - k) // s + 1 for n, p, k, s in zip(plane, before, size, steps, strict=True))
    if ceil and floor != places:
        raise Untranslatable
    channels, area = x.concrete.shape[1], size[0] * size[1]
    weight = torch.full((channels, 1, *size), 1 / (divisor or area), dtype=torch.float64)
    op = Conv2d(weight, torch.zeros(channels), steps, (before[0], before[1]), (1, 1), channels)
    if whole or divisor or before == (0, 0):
        return _as_plane(call, op, x) if line else call.emit(op, x)
    counted = F.conv2d(torch.ones(1, 1, *plane), torch.ones(1, 1, *size), None, steps, before)[0]
    factor = area / (counted[:, 0] if line else counted)
    summed = _as_plane(call, op, x, last=False) if line else call.emit(op, x, last=False)
    return call.emit(Scale(factor, _number(0.0)), summed)


def adaptive_avg_pool(call: Call) -> Value:
    """A matrix on the flattened plane: each output averages its own cells."""
    x = call.operand
    plane, places = tuple(x.concrete.shape[2:]), tuple(call.concrete.shape[2:])
    weight = torch.ones(1, 1, dtype=torch.float64)
    for before, after in zip(plane, places, strict=True):
        first = torch.arange(after)[:, None] * before // after
        last = -(-(torch.arange(after)[:, None] + 1) * before // after)
        cell = torch.arange(before)
        share = ((cell >= first) & (cell < last)).double() / (last - first)
        weight = torch.kron(weight, share)
    flat = call.emit(Reshape((x.concrete.shape[1], math.prod(plane))), x, last=False)
    averaged = call.emit(Linear(weight, torch.zeros(len(weight))), flat, last=False)
    return call.emit(Reshape(tuple(call.concrete.shape[1:])), averaged)


def mean(call: Call) -> Value:
    """The mean over the last axes."""
    names = ("input", "dim", "keepdim")
    x, axes, _ = call.options(names, {"dim": None, "keepdim": False})
    x = traced(x)
    axes = sorted(a % x.concrete.dim() for a in ([axes] if isinstance(axes, int) else axes or []))
    count = len(axes)
    if not axes or 0 in axes or axes != list(range(x.concrete.dim() - count, x.concrete.dim())):
        raise Untranslatable
    kept, n = tuple(x.concrete.shape[1 : x.concrete.dim() - count]), math.prod(x.concrete.shape[-count:])
    flat = call.emit(Reshape((*kept, n)), x, last=False)
    averaged = call.emit(Linear(torch.full((1, n), 1 / n, dtype=torch.float64), torch.zeros(1)), flat, last=False)
    return call.emit(Reshape(tuple(call.concrete.shape[1:])), averaged)


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
        return _scaled(call, a, _number(1.0), sign * _constant(b, a.concrete))
    return _scaled(call, traced(b), _number(sign), _constant(a, traced(b).concrete))


def product(call: Call) -> Value:
    """A value times a constant."""
    a, b = call.options(("input", "other"))
    x, factor = (a, b) if isinstance(a, Value) else (b, a)
    return _scaled(call, traced(x), _constant(factor, traced(x).concrete), _number(0.0))


def quotient(call: Call) -> Value:
    """A value divided by a constant."""
    a, b = call.options(("input", "other"))
    return _scaled(call, traced(a), 1 / _constant(b, traced(a).concrete), _number(0.0))


def negation(call: Call) -> Value:
    """The opposite."""
    return _scaled(call, call.operand, _number(-1.0), _number(0.0))


def _scaled(call: Call, x: Value, factor: Tensor, shift: Tensor) -> Value:
    if call.concrete.shape != x.concrete.shape:
        raise Untranslatable
    return call.emit(Scale(factor, shift), x)


def _constant(value: Any, batch: Tensor) -> Tensor:
    """A constant operand as it broadcasts against one sample of ``batch``."""
    if isinstance(value, Value) or not isinstance(value, (int, float, Tensor)):
        raise Untranslatable
    # A plain number is a double; a tensor keeps the precision that it has.
    tensor = value if isinstance(value, Tensor) else _number(value)
    tensor = tensor.to(torch.promote_types(tensor.dtype, batch.dtype))
    if tensor.dim() == batch.dim():
        if tensor.shape[0] != 1:
            raise Untranslatable
        tensor = tensor[0]
    if tensor.dim() > batch.dim():
        raise Untranslatable
    return tensor


def _number(value: float) -> Tensor:
    return torch.tensor(float(value), dtype=torch.float64)


def _weights(weight: Any, bias: Any) -> tuple[Tensor, Tensor]:
    if isinstance(weight, Value) or isinstance(bias, Value):
        raise Untranslatable
    return weight, torch.zeros(weight.shape[0]) if bias is None else bias


def _as_plane(call: Call, op: Op, x: Value, last: bool = True) -> Value:
    """A two-dimensional operation on a sequence: its height is one."""
    channels, length = x.concrete.shape[1:]
    flat = call.emit(op, call.emit(Reshape((channels, 1, length)), x, last=False), last=False)
    return call.emit(Reshape((flat.concrete.shape[1], flat.concrete.shape[3])), flat, last=last)


def _pair(value: Any, line: bool, other: int) -> tuple[int, int]:
    """An option for two axes, from one number or one for each; a sequence has ``other`` on the axis it lacks."""
    numbers = [int(value)] * (1 if line else 2) if isinstance(value, int) else [int(v) for v in value]
    if line:
        return other, numbers[-1]
    return numbers[0], numbers[-1]


def table() -> dict[Any, Handler]:
    """Module type, function or method name to its handler."""
    groups: list[tuple[Handler, list[Any]]] = [
        (linear, [nn.Linear, F.linear]),
        (conv2d, [nn.Conv1d, nn.Conv2d, F.conv1d, F.conv2d, torch.conv1d, torch.conv2d]),
        (conv_transpose2d, [nn.ConvTranspose2d, F.conv_transpose2d, torch.conv_transpose2d]),
        (batch_norm, [nn.BatchNorm1d, nn.BatchNorm2d]),
        (relu, [nn.ReLU, F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_"]),
        (leaky_relu, [nn.LeakyReLU, F.leaky_relu, F.leaky_relu_]),
        (tanh, [nn.Tanh, F.tanh, torch.tanh, "tanh", "tanh_"]),
        (sigmoid, [nn.Sigmoid, F.sigmoid, torch.sigmoid, "sigmoid", "sigmoid_"]),
        (clamp, [torch.clamp, "clamp", "clamp_", torch.clip, "clip", torch.clamp_min, "clamp_min"]),
        (clamp, [nn.ReLU6, F.relu6, nn.Hardtanh, F.hardtanh]),
        (same, [nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, F.dropout, F.dropout2d]),
        (same, ["contiguous", "clone", "detach", "double", "to", "type_as"]),
        (rearranged, [nn.Flatten, nn.Unflatten, torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze]),
        (rearranged, ["flatten", "reshape", "view", "squeeze", "unsqueeze", "unflatten", "view_as", "reshape_as"]),
        (rearranged, [torch.permute, torch.transpose, torch.movedim, torch.flip, torch.narrow, torch.select]),
        (rearranged, ["permute", "transpose", "movedim", "flip", "narrow", "select", "mT"]),
        (rearranged, [torch.chunk, torch.split, "chunk", "split", torch.unbind, "unbind", "expand", "repeat"]),
        (rearranged, [nn.PixelUnshuffle, F.pixel_unshuffle]),
        (rearranged, [nn.PixelShuffle, F.pixel_shuffle, nn.ReflectionPad2d, nn.ReplicationPad2d]),
        (pad, [F.pad, nn.ZeroPad2d, nn.ConstantPad1d, nn.ConstantPad2d]),
        (item, [operator.getitem]),
        (concat, [torch.cat, torch.concat]),
        (max_pool, [nn.MaxPool1d, nn.MaxPool2d, F.max_pool1d, F.max_pool2d, torch.max_pool1d, torch.max_pool2d]),
        (avg_pool, [nn.AvgPool1d, nn.AvgPool2d, F.avg_pool1d, F.avg_pool2d]),
        (adaptive_avg_pool, [nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d]),
        (adaptive_avg_pool, [F.adaptive_avg_pool1d, F.adaptive_avg_pool2d]),
        (mean, [torch.mean, "mean"]),
        (addition, [operator.add, operator.iadd, torch.add, "add", "add_"]),
        (subtraction, [operator.sub, operator.isub, torch.sub, "sub", "sub_"]),
        (product, [operator.mul, operator.imul, torch.mul, "mul", "mul_"]),
        (quotient, [operator.truediv, operator.itruediv, torch.div, torch.true_divide, "div", "div_"]),
        (negation, [operator.neg, torch.neg, "neg"]),
    ]
    return {target: handler for handler, targets in groups for target in targets}
