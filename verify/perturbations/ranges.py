"""Interval arithmetic that carries slopes: the values of a function over cells of parameters, and those of its
derivatives by them (forward mode on intervals: Moore 1966, chapters 3 and 11)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor
from torch.nn import functional as F

NEAR = 1e-9  # how much further than computed a coordinate may lie: far more than it is rounded by


@dataclass(frozen=True, eq=False)
class Range:
    """``low <= f <= high`` over each cell (cells x ...), and ``down <= df/dp <= up`` by each parameter wherever f has a
    derivative (parameters x cells x ...)."""

    low: Tensor
    high: Tensor
    down: Tensor
    up: Tensor

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.high + other.high, self.down + other.down, self.up + other.up)

    def __mul__(self, other: Range) -> Range:
        """The product, by the product rule."""
        low, high = _times((self.low, self.high), (other.low, other.high))
        first = _times((self.down, self.up), (other.low, other.high))
        second = _times((other.down, other.up), (self.low, self.high))
        return Range(low, high, first[0] + second[0], first[1] + second[1])

    def scaled(self, factor: float | Tensor) -> Range:
        """Times a constant."""
        factor = torch.as_tensor(factor, dtype=self.low.dtype)
        low, high = _times((self.low, self.high), (factor, factor))
        return Range(low, high, *_times((self.down, self.up), (factor, factor)))

    def shifted(self, by: float | Tensor) -> Range:
        """Plus a constant."""
        return Range(self.low + by, self.high + by, self.down, self.up)

    def through(self, values: tuple[Tensor, Tensor], slopes: tuple[Tensor, Tensor]) -> Range:
        """A function of it, by its ``values`` and its ``slopes`` over each cell."""
        return Range(*values, *_times((self.down, self.up), slopes))


def constant(values: Tensor, parameters: int) -> Range:
    """What no parameter moves."""
    none = torch.zeros(parameters, *(1,) * values.dim(), dtype=values.dtype).expand(parameters, *values.shape)
    return Range(values, values, none, none)


def parameter(k: int, low: Tensor, high: Tensor, dims: int) -> Range:
    """The k-th parameter over cells: low, high (cells x parameters); shaped (cells x 1 x ...) with so many ``dims``."""
    cells, count = low.shape
    shape = (cells, *(1,) * (dims - 1))
    own = torch.zeros(count, *shape, dtype=low.dtype)
    own[k] = 1.0
    return Range(low[:, k].view(shape), high[:, k].view(shape), own, own)


def cosine(angle: Range) -> Range:
    """cos, in radians."""
    values = _wave(angle.low, angle.high)
    low, high = _wave(angle.low + pi / 2, angle.high + pi / 2)  # cos(t + pi/2) = -sin(t)
    return angle.through(values, (low, high))


def sine(angle: Range) -> Range:
    """sin, in radians."""
    return cosine(angle.shifted(-pi / 2))


def inverse(x: Range) -> Range:
    """1/x of what is positive."""
    return x.through((1 / x.high, 1 / x.low), (-1 / x.low.square(), -1 / x.high.square()))


def power(base: Tensor, exponent: Range) -> Range:
    """base^exponent, of constants from 0 to 1 and a positive exponent."""
    log = base.clamp(min=torch.finfo(base.dtype).tiny).log()
    at = [torch.where(base > 0, base**side, 0.0) for side in (exponent.high, exponent.low)]
    slope = [torch.where(base > 0, value * log, 0.0) for value in (at[1], at[0])]  # log <= 0: the larger is the lower
    return exponent.through((at[0], at[1]), (slope[0], slope[1]))


def interpolated(image: Tensor, y: Range, x: Range) -> Range:
    """The image (channels x height x width), bilinear between its pixels and 0 beyond them, at coordinates (cells x
    pixels): (cells x channels x pixels).

    Within a square between four pixels the value lies between theirs, and its slopes between the differences along
    both of its sides: what may be reached is looked up in extremes over windows of the image. The value is that in the
    middle, too, and no further from it than the slopes lead.
    """
    height, width = image.shape[-2:]
    rows = _span(y, height)
    columns = _span(x, width)
    size = int(max((rows[1] - rows[0]).max(), (columns[1] - columns[0]).max())) + 1
    padded = F.pad(image, (2, 2 + size, 2, 2 + size))
    start = (rows[0] + 2, columns[0] + 2)
    values = _extremes(padded, (size + 1, size + 1), start)
    steps_y = _extremes(padded.diff(dim=-2), (size, size + 1), start)
    steps_x = _extremes(padded.diff(dim=-1), (size + 1, size), start)
    middle = _bilinear(padded, y.low + (y.high - y.low) / 2 + 2, x.low + (x.high - x.low) / 2 + 2)
    wander = _steepest(steps_y) * _reach(y) + _steepest(steps_x) * _reach(x)
    values = torch.maximum(values[0], middle - wander), torch.minimum(values[1], middle + wander)
    by_y = _times((y.down[:, :, None], y.up[:, :, None]), steps_y)
    by_x = _times((x.down[:, :, None], x.up[:, :, None]), steps_x)
    return Range(*values, by_y[0] + by_x[0], by_y[1] + by_x[1])


def _bilinear(values: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """The value (cells x channels x pixels) at coordinates (cells x pixels); 0 beyond the border of ``values``
    (channels x height x width), whose first and last two rows and columns are 0."""
    height, width = values.shape[-2:]
    y, x = y.clamp(0, height - 2), x.clamp(0, width - 2)
    row, column = y.floor().long(), x.floor().long()
    below, beside = (y - row)[:, None], (x - column)[:, None]
    corners = [values[:, row + i, column + j].movedim(0, 1) for i in (0, 1) for j in (0, 1)]
    upper = corners[0] + beside * (corners[1] - corners[0])
    lower = corners[2] + beside * (corners[3] - corners[2])
    return upper + below * (lower - upper)


def _steepest(slopes: tuple[Tensor, Tensor]) -> Tensor:
    return torch.maximum(-slopes[0], slopes[1])


def _reach(at: Range) -> Tensor:
    """How far a coordinate (cells x pixels) lies from its middle, at most: (cells x 1 x pixels)."""
    return ((at.high - at.low) / 2)[:, None]


def _span(at: Range, length: int) -> tuple[Tensor, Tensor]:
    """The first and the last square between pixels that a coordinate may lie in, those beyond the image as one."""
    first = (at.low - NEAR).floor().clamp(-2, length)
    last = (at.high + NEAR).floor().clamp(-2, length)
    return first.long(), last.long()


def _extremes(values: Tensor, window: tuple[int, int], start: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The least and the largest of ``values`` (channels x height x width) in the window that starts at each place
    (cells x pixels): (cells x channels x pixels) each."""

    def largest(of: Tensor) -> Tensor:
        pooled = F.max_pool2d(of[None], window, 1)[0]
        return pooled[:, start[0].clamp(max=pooled.shape[1] - 1), start[1].clamp(max=pooled.shape[2] - 1)].movedim(0, 1)

    return -largest(-values), largest(values)


def _wave(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The range of cos over [low, high], a few roundings wider."""
    ends = torch.stack([low.cos(), high.cos()])
    # A crest at a multiple of 2 pi, a trough at an odd multiple of pi.
    crest = ((high + NEAR) / (2 * pi)).floor() >= ((low - NEAR) / (2 * pi)).ceil()
    trough = ((high + NEAR + pi) / (2 * pi)).floor() >= ((low - NEAR + pi) / (2 * pi)).ceil()
    least = torch.where(trough, -1.0, ends.amin(0) - 1e-15)
    most = torch.where(crest, 1.0, ends.amax(0) + 1e-15)
    return least, most


def _times(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The product of two intervals."""
    ends: list[Tensor] = [left * right for left in a for right in b]
    return _fold(torch.minimum, ends), _fold(torch.maximum, ends)


def _fold(by: Callable[[Tensor, Tensor], Tensor], ends: list[Tensor]) -> Tensor:
    return by(by(ends[0], ends[1]), by(ends[2], ends[3]))
