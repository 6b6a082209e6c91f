"""Maxima and averages: of windows, of the cells of a plane, of whole axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.verify.core.ops import Conv2d, Gather, Linear, Max, Reshape, Scale
from assay.verify.frontends.trace import Call, Untranslatable, Value, traced
from assay.verify.frontends.translations.arithmetic import number
from assay.verify.frontends.translations.layers import as_plane, pair


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
    size, steps = pair(kernel, line, 1), pair(stride or kernel, line, 1)
    before, holes = pair(padding, line, 0), pair(dilation, line, 1)
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
    size, steps, before = pair(kernel, line, 1), pair(stride or kernel, line, 1), pair(padding, line, 0)
    x = traced(x)
    plane = (1, x.concrete.shape[2]) if line else tuple(x.concrete.shape[2:])
    places = (1, call.concrete.shape[2]) if line else tuple(call.concrete.shape[2:])
    floor = tuple((n + 2 * p - k) // s + 1 for n, p, k, s in zip(plane, before, size, steps, strict=True))
    if ceil and floor != places:  # windows that reach beyond the padding average what they have
        shares = []
        for n, m, k, s, p in zip(plane, places, size, steps, before, strict=True):
            first = torch.arange(m) * s - p
            last = (first + k).clamp(max=n + p)
            counted = torch.ones(m) if divisor else last - first if whole else None
            shares.append(_shares(first, last, n, counted))
        shares[0] = shares[0] / (divisor or 1)
        return _averaged(call, x, shares)
    channels, area = x.concrete.shape[1], size[0] * size[1]
    weight = torch.full((channels, 1, *size), 1 / (divisor or area), dtype=torch.float64)
    op = Conv2d(weight, torch.zeros(channels), steps, (before[0], before[1]), (1, 1), channels)
    if whole or divisor or before == (0, 0):
        return as_plane(call, op, x) if line else call.emit(op, x)
    counted = F.conv2d(torch.ones(1, 1, *plane), torch.ones(1, 1, *size), None, steps, before)[0]
    factor = area / (counted[:, 0] if line else counted)
    summed = as_plane(call, op, x, last=False) if line else call.emit(op, x, last=False)
    return call.emit(Scale(factor, number(0.0)), summed)


def adaptive_avg_pool(call: Call) -> Value:
    """A matrix on the flattened plane: each output averages its own cells."""
    x = call.operand
    shares = []
    for before, after in zip(x.concrete.shape[2:], call.concrete.shape[2:], strict=True):
        first = torch.arange(after) * before // after
        last = -(-(torch.arange(after) + 1) * before // after)
        shares.append(_shares(first, last, before))
    return _averaged(call, x, shares)


def _shares(first: Tensor, last: Tensor, size: int, counted: Tensor | None = None) -> Tensor:
    """The mean of the cells from ``first`` to before ``last`` of an axis, as a matrix (places x size); ``counted``: of
    how many, where that is not those of them that exist."""
    cell = torch.arange(size)
    inside = (cell >= first[:, None]) & (cell < last[:, None])
    return inside.double() / (inside.sum(1) if counted is None else counted)[:, None]


def _averaged(call: Call, x: Value, shares: Sequence[Tensor]) -> Value:
    """Each channel's plane, or line, by one matrix of shares for each axis."""
    weight = torch.ones(1, 1, dtype=torch.float64)
    for share in shares:
        weight = torch.kron(weight, share)
    flat = call.emit(Reshape((x.concrete.shape[1], weight.shape[1])), x, last=False)
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
