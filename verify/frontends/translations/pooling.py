"""Maxima and averages of windows, of the cells of a plane, and what weighs the rows and columns of a plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.verify.core.ops import Conv2d, Linear, Max, Scale
from assay.verify.frontends import volumes
from assay.verify.frontends.composed import Value, number
from assay.verify.frontends.refusal import Untranslatable
from assay.verify.frontends.translation import Step
from assay.verify.frontends.translations.layers import over_volumes

TOGETHER = 2**16  # weights of rows and columns at once; beyond that one after the other


def max_pool(step: Step) -> list[Any]:
    """Windows gathered, then their maxima. Where a window reaches over the edge, one of its own elements stands in
    for what is outside (-inf), which changes no maximum."""
    axes = _axes(step)
    size = _each(step["kernel_size"], axes)
    steps, before, holes = (_each(step[name] or size, axes) for name in ("stride", "padding", "dilation"))
    return _largest(
        step,
        [
            torch.arange(n)[:, None] * s - p + torch.arange(k) * d
            for n, s, p, k, d in zip(step.shape[-axes:], steps, before, size, holes, strict=True)
        ],
    )


def adaptive_max_pool(step: Step) -> list[Any]:
    """The largest value of each cell; where cells differ in size, their last elements count several times."""
    windows = []
    for first, last, _ in _cells(step):
        most = int((last - first).max())
        windows.append(torch.minimum(first[:, None] + torch.arange(most), last[:, None] - 1))
    return _largest(step, windows)


def _largest(step: Step, windows: Sequence[Tensor]) -> list[Any]:
    """The maxima over windows, of each axis (places x window); where these are is not read."""
    axes = len(windows)
    lengths = step["self"].number.shape[-axes:]
    element, inside = torch.zeros((), dtype=torch.int64), torch.ones((), dtype=torch.bool)
    for axis, (cells, n) in enumerate(zip(windows, lengths, strict=True)):  # (places of each axis x cells of each)
        shape = [1] * (2 * axes)
        shape[axis], shape[axes + axis] = cells.shape
        cell = cells.view(shape)
        element, inside = element * n + cell, inside & (cell >= 0) & (cell < n)
    element = torch.where(inside, element, prod(lengths)).flatten(axes)
    element = torch.where(inside.flatten(axes), element, element.amin(axes, keepdim=True))
    return [step.emit(Max(), step.value("self", lambda x: x.flatten(-axes)[..., element]))]


def avg_pool(step: Step) -> Value | Tensor:
    """A convolution of each channel with a constant; where the padding does not count, scaled up at the edges."""
    size, before = _pair(step["kernel_size"]), _pair(step["padding"])
    steps, whole, divisor = _pair(step["stride"] or size), step["count_include_pad"], step["divisor_override"]
    plane, places = tuple(step["self"].number.shape[-2:]), step.shape[-2:]
    floor = tuple((n + 2 * p - k) // s + 1 for n, p, k, s in zip(plane, before, size, steps, strict=True))
    if floor != places:  # windows that reach beyond the padding average what they have
        shares = []
        for n, m, k, s, p in zip(plane, places, size, steps, before, strict=True):
            first = torch.arange(m) * s - p
            last = (first + k).clamp(max=n + p)
            counted = torch.ones(m) if divisor else last - first if whole else None
            shares.append(_shares(first, last, n, counted))
        shares[0] = shares[0] / (divisor or 1)
        return weighted(step, shares)
    x = step.value("self", lambda x: x.reshape(1, -1, *x.shape[-2:]))
    channels, area = x.shape[0], size[0] * size[1]
    weight = torch.full((channels, 1, *size), 1 / (divisor or area), dtype=torch.float64)
    op = Conv2d(weight, weight.new_zeros(channels), steps, before, (1, 1), channels)
    summed = step.emit(op, x, shape=(channels, *places))
    if whole or divisor or before == (0, 0):
        return summed
    counts = F.conv2d(torch.ones(1, 1, *plane), torch.ones(1, 1, *size), None, steps, before)[0]
    return step.emit(Scale(area / counts, number(0.0)), summed, shape=summed.shape)


def avg_pool_of_volumes(step: Step) -> Value:
    """A convolution of each channel with a constant."""
    size, before = _each(step["kernel_size"], 3), _each(step["padding"], 3)
    steps, divisor = _each(step["stride"] or size, 3), step["divisor_override"]
    x: Tensor = step["self"].number
    if x.dim() != 5 or step["ceil_mode"] or (any(before) and not step["count_include_pad"] and not divisor):
        raise Untranslatable("with windows of different sizes, or without a batch")
    windows = volumes.Windows(size, steps, (1, 1, 1), before, step.shape[2:])
    weight = volumes.shares(x.shape[1], size, divisor or prod(size))
    return over_volumes(step, "self", windows, weight, weight.new_zeros(len(weight)), x.shape[1])


def adaptive_avg_pool(step: Step) -> Value | Tensor:
    """A matrix on the flattened plane: each output averages its own cells."""
    return weighted(step, [_shares(first, last, size) for first, last, size in _cells(step)])


def _cells(step: Step) -> list[tuple[Tensor, Tensor, int]]:
    """Where the cells of each axis of the plane begin and end, and the axis's length."""
    cells = []
    axes = _axes(step)
    for before, after in zip(step["self"].number.shape[-axes:], step.shape[-axes:], strict=True):
        place = torch.arange(after)
        cells.append((place * before // after, -(-(place + 1) * before // after), before))
    return cells


def _shares(first: Tensor, last: Tensor, size: int, counted: Tensor | None = None) -> Tensor:
    """The mean of the cells from ``first`` to before ``last`` of an axis, as a matrix (places x size); ``counted``: of
    how many, where that is not those of them that exist."""
    cell = torch.arange(size)
    inside = (cell >= first[:, None]) & (cell < last[:, None])
    return inside.double() / (inside.sum(1) if counted is None else counted)[:, None]


def upsampled(step: Step) -> Value | Tensor:
    """Interpolation between pixels."""
    x: Tensor = step["self"].number
    return weighted(step, interpolation(step.call.function, {**step.given, "self": x}, x.dtype))


def interpolation(operation: Any, given: Mapping[str, Any], dtype: torch.dtype) -> list[Tensor]:
    """The weights (places x size) of each axis, as torch itself works them out in ``dtype``, where they are rounded."""
    *_, high, wide = given["self"].shape
    corners, size = given["align_corners"], given["output_size"]
    columns = torch.eye(wide, dtype=dtype)[None]
    if len(size) == 1:
        return [operation(columns, size, corners, given["scales"])[0].T.double()]
    rows = torch.eye(high, dtype=dtype)[None, :, :, None]
    tall = operation(rows, [size[0], 1], corners, given["scales_h"], None)[0, :, :, 0]
    broad = operation(columns[:, :, None], [1, size[1]], corners, None, given["scales_w"])[0, :, 0]
    return [tall.T.double(), broad.T.double()]


def weighted(step: Step, shares: Sequence[Tensor]) -> Value | Tensor:
    """Each channel's line, or plane, by a matrix (places x size), or by one for its rows and one for its columns."""
    if len(shares) == 1:
        return step.emit(_matrix(shares[0]), step.value("self"))
    if len(shares) == 3:
        return step.emit(_matrix(reduce(torch.kron, shares)), step.value("self", lambda x: x.flatten(-3)))
    rows, columns = shares
    if rows.numel() * columns.numel() <= TOGETHER:
        return step.emit(_matrix(torch.kron(rows, columns)), step.value("self", lambda x: x.flatten(-2)))
    across = step.emit(_matrix(columns), step.value("self"))
    *channels, _, _ = step.shape
    turned = step.origins(across, (*channels, rows.shape[1], len(columns))).mT
    down = step.emit(_matrix(rows), step.translation.node(turned, turned))
    return step.origins(down, (*channels, len(columns), len(rows))).mT


def _matrix(weight: Tensor) -> Linear:
    return Linear(weight, weight.new_zeros(len(weight)))


def _axes(step: Step) -> int:
    """How many axes an operation of planes, or of volumes, goes over."""
    return 3 if "3d" in step.call.operation else 2


def _each(value: Any, axes: int) -> tuple[int, ...]:
    """An option for some axes, from one number or one for each."""
    numbers = [value] if isinstance(value, int) else [int(n) for n in value]
    return tuple(numbers * axes if len(numbers) == 1 else numbers)


def _pair(value: Any) -> tuple[int, int]:
    """An option for two axes, from one number or one for each."""
    numbers = [value] if isinstance(value, int) else list(value)
    if not numbers:
        raise Untranslatable
    return int(numbers[0]), int(numbers[-1])
