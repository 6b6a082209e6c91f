"""Maxima and averages of windows, of the cells of a plane, and what weighs the rows and columns of a plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.verify.core.ops import Conv2d, Linear, Max, Scale
from assay.verify.frontends.composed import Value, number
from assay.verify.frontends.refusal import Untranslatable
from assay.verify.frontends.translation import Step

TOGETHER = 2**16  # weights of rows and columns at once; beyond that one after the other


def max_pool(step: Step) -> list[Any]:
    """Windows gathered, then their maxima. Where a window reaches over the edge, one of its own elements stands in
    for what is outside (-inf), which changes no maximum."""
    size = _pair(step["kernel_size"])
    steps, before, holes = _pair(step["stride"] or size), _pair(step["padding"]), _pair(step["dilation"])
    rows, columns = (
        torch.arange(n)[:, None] * s - p + torch.arange(k) * d
        for n, s, p, k, d in zip(step.shape[-2:], steps, before, size, holes, strict=True)
    )
    return _largest(step, rows, columns)


def adaptive_max_pool(step: Step) -> list[Any]:
    """The largest value of each cell; where cells differ in size, their last elements count several times."""
    windows = []
    for first, last, _ in _cells(step):
        most = int((last - first).max())
        windows.append(torch.minimum(first[:, None] + torch.arange(most), last[:, None] - 1))
    return _largest(step, *windows)


def _largest(step: Step, rows: Tensor, columns: Tensor) -> list[Any]:
    """The maxima over the windows of ``rows`` (places x window) and ``columns``; the places of these are not read."""
    height, width = step["self"].number.shape[-2:]
    row, column = rows[:, None, :, None], columns[None, :, None, :]  # (height x width x kernel height x kernel width)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    element = torch.where(inside, row * width + column, height * width).flatten(2)
    element = torch.where(inside.flatten(2), element, element.amin(2, keepdim=True))
    return [step.emit(Max(), step.value("self", lambda x: x.flatten(-2)[..., element]))]


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


def adaptive_avg_pool(step: Step) -> Value | Tensor:
    """A matrix on the flattened plane: each output averages its own cells."""
    return weighted(step, [_shares(first, last, size) for first, last, size in _cells(step)])


def _cells(step: Step) -> list[tuple[Tensor, Tensor, int]]:
    """Where the cells of each axis of the plane begin and end, and the axis's length."""
    cells = []
    for before, after in zip(step["self"].number.shape[-2:], step.shape[-2:], strict=True):
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


def _pair(value: Any) -> tuple[int, int]:
    """An option for two axes, from one number or one for each."""
    numbers = [value] if isinstance(value, int) else list(value)
    if not numbers:
        raise Untranslatable
    return int(numbers[0]), int(numbers[-1])
