"""Linear relaxations of activations: two lines between which the activation lies over an interval.

Tensors may have any layout that the operand's bounds have; only Max reads an axis, the last one, of its operands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch

import torch
from torch import Tensor

from assay.verify.core.errors import UnsupportedError
from assay.verify.core.ops import LeakyRelu, Max, Op, Relu, Smooth
from assay.verify.core.verifier import Bounds


@dataclass(frozen=True, eq=False)
class Lines:
    """``slope * z + intercept <= activation(z) <= (slope + slope_gap) * z + intercept + intercept_gap`` over the
    interval of z: all of the shape of z's bounds.

    ``slope`` and ``intercept`` are the lower line's, the gaps are the upper line's minus these; ``intercept`` is None
    where it is 0 throughout. Max has several operands z a value: ``slope`` and ``slope_gap`` have one more axis than
    the rest, the last one, and their products with z are summed over it.
    """

    slope: Tensor
    slope_gap: Tensor
    intercept_gap: Tensor
    intercept: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> Lines:
        """``change`` made to each tensor, whose shape it may change."""
        intercept = None if self.intercept is None else change(self.intercept)
        return Lines(change(self.slope), change(self.slope_gap), change(self.intercept_gap), intercept)

    def take(self, index: Tensor, axis: int = 0) -> Lines:
        """The lines at ``index`` (kept lines), numbers along an axis."""
        return self.map(lambda t: t.index_select(axis, index))

    def put(self, index: Tensor, lines: Lines, axis: int = 0) -> Lines:
        """These lines with others at ``index``, numbers, of an axis: they are written into."""
        for mine, theirs in zip(self._tensors(), lines._tensors(), strict=True):
            mine.index_copy_(axis, index, theirs)
        return self

    def _tensors(self) -> list[Tensor]:
        some = [self.slope, self.slope_gap, self.intercept_gap]
        return some if self.intercept is None else [*some, self.intercept]


@singledispatch
def relax(op: Op, z: Bounds) -> Lines:
    """The relaxation of ``op`` over the interval ``z`` of its operands (any shape)."""
    raise UnsupportedError(f"operation {op.label} has no linear relaxation")


@singledispatch
def undecided(op: Op, z: Bounds) -> Tensor:
    """Where tighter bounds of the operand ``z`` (batch x shape) make a tighter relaxation: of its shape."""
    return z.lower < z.upper


@relax.register
def _(op: Relu, z: Bounds) -> Lines:
    """The chord above; below, the line of slope 0 or 1 that leaves the smaller triangle (Zhang et al. 2018,
    arXiv:1811.00866). Stable neurons are exact."""
    return _convex(z, 0.0)


@relax.register
def _(op: LeakyRelu, z: Bounds) -> Lines:
    """As Relu while it is convex; where the slope is above 1 it is concave, and the lines are exchanged."""
    if op.slope <= 1:
        return _convex(z, op.slope)
    return _concave(z, op.slope)


@undecided.register(Relu)
@undecided.register(LeakyRelu)
def _(op: Op, z: Bounds) -> Tensor:
    return (z.lower < 0) & (z.upper > 0)


def _convex(z: Bounds, left: float) -> Lines:
    """max(z, left * z) for left <= 1."""
    low, high = z.lower.clamp(max=0), z.upper.clamp(min=0)
    width = high - low
    # A neuron that is zero on all of its interval has width 0 and share 0; nothing is divided by zero.
    share = high / width.clamp(min=torch.finfo(width.dtype).tiny)
    # Any line of slope in [0, 1] lies above with this intercept, whatever rounding or overflow made of the slope.
    intercept_gap = torch.maximum(-low * share, high * (1 - share))
    lower = (share > 0.5).to(share)
    if left == 0.0:
        return Lines(lower, share - lower, intercept_gap)
    return Lines(left + (1 - left) * lower, (1 - left) * (share - lower), (1 - left) * intercept_gap)


def _concave(z: Bounds, left: float) -> Lines:
    """min(z, left * z) for left > 1: the chord below, the line of one of the two slopes above."""
    low, high = z.lower.clamp(max=0), z.upper.clamp(min=0)
    share = high / (high - low).clamp(min=torch.finfo(low.dtype).tiny)
    # Any line of slope in [1, left] lies below with this much subtracted; a multiple of share, taken from left, would
    # be off by a multiple of left where the slope is next to 1.
    sides = torch.full_like(share, left), torch.ones_like(share)
    slope = torch.lerp(*sides, share).clamp(1.0, left)
    drop = torch.maximum((slope - left) * low, (slope - 1) * high)
    return Lines(slope, torch.where(share > 0.5, *sides[::-1]) - slope, drop, -drop)


@relax.register
def _(op: Smooth, z: Bounds) -> Lines:
    """Tangents and chords of an S-shaped curve; the upper line is the lower line of the mirrored curve.

    Where the interval has both signs, the lower line is the tangent from the curve's point at the upper end,
    touching on the negative side (Zhang et al. 2018, figure 1), found by bisection on the side that is sound.
    """
    slope, intercept = _below_tanh(z.lower, z.upper)
    slope_above, mirrored = _below_tanh(-z.upper, -z.lower)
    return Lines(slope, slope_above - slope, -mirrored - intercept, intercept)


def _below_tanh(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and intercept of a line below tanh over [low, high]."""
    tangents = tangents_below_tanh(low, high)
    at_low = low.tanh()
    chord = (high.tanh() - at_low) / (high - low).clamp(min=torch.finfo(low.dtype).tiny)
    # Where the curve is concave over the interval, or leaves its lower end more steeply than the chord, the chord
    # itself lies below. A flat line through the lower end always does.
    slope = torch.where(tangents.concave, chord, 0.0)
    # The chord's slope over a width near rounding is not reliable: the smaller slope of the ends is taken.
    slope = torch.where(_thin(low, high), torch.minimum(steepness(low), steepness(high)), slope)
    slack = _slack(slope, low, high)
    best = torch.where(high <= 0, (low + high) / 2, tangents.last)
    line = tangents.line(best)
    fixed = slope, at_low - slope * low - slack
    return torch.where(tangents.allowed, line[0], fixed[0]), torch.where(tangents.allowed, line[1], fixed[1])


@dataclass(frozen=True, eq=False)
class Tangents:
    """Where tangents of tanh lie below it over [low, high]: at every point from ``low`` to ``last``, if they are
    ``allowed``; ``concave``: where the chord does. All of one shape."""

    low: Tensor
    high: Tensor
    last: Tensor
    allowed: Tensor
    concave: Tensor

    def line(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Slope and intercept of the tangents at the points ``at`` (of their shape), with room for rounding."""
        slope = steepness(at)
        return slope, at.tanh() - slope * at - _slack(slope, self.low, self.high)


def tangents_below_tanh(low: Tensor, high: Tensor) -> Tangents:
    """Left of the inflection the curve is convex: the tangent at any point lies below it there, and to the right of it
    too as long as it does not pass above the curve at the upper end. The last such point is found by bisection.
    ``low``, ``high``: of one shape, any."""
    at_high = high.tanh()

    def fits(at: Tensor) -> Tensor:
        return at.tanh() + steepness(at) * (high - at) <= at_high

    first, last = low, torch.minimum(high, torch.zeros_like(high))
    for _ in range(30):
        middle = (first + last) / 2
        below = fits(middle)
        first, last = torch.where(below, middle, first), torch.where(below, last, middle)
    chord = (at_high - low.tanh()) / (high - low).clamp(min=torch.finfo(low.dtype).tiny)
    concave = (low >= 0) | ((high > 0) & (steepness(low) >= chord))
    allowed = ~concave & ~_thin(low, high) & ((high <= 0) | fits(first))
    return Tangents(low, high, torch.where(high <= 0, high, first), allowed, concave)


def steepness(at: Tensor) -> Tensor:
    """The derivative of tanh: of the shape of ``at``."""
    return 1 - at.tanh() ** 2


def _thin(low: Tensor, high: Tensor) -> Tensor:
    return high - low <= 1e-6 * (1 + low.abs())


def _slack(slope: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return 8 * torch.finfo(low.dtype).eps * (1 + slope * (low.abs() + high.abs()))


@relax.register
def _(op: Max, z: Bounds) -> Lines:
    """Below, the operand with the largest lower bound. Above, with m that bound, the better at the middle of the
    box of ``max u`` and of ``m + sum of the chords of max(z_i - m, 0)``; with one candidate left both are exact.

    ``z``: (... x operands).
    """
    best, chosen = z.lower.max(-1, keepdim=True)
    slope = torch.zeros_like(z.lower).scatter(-1, chosen, 1.0)
    above = (z.upper - best).clamp(min=0)
    share = above / (z.upper - z.lower).clamp(min=torch.finfo(best.dtype).tiny)
    # The chord of max(z - m, 0) over [l, u] with l <= m: share * (z - l).
    chords = best[..., 0] - (share * z.lower).sum(-1)
    middle = (share * (z.lower + z.upper) / 2).sum(-1) + chords
    highest = z.upper.amax(-1)
    lines = middle <= highest
    upper = torch.where(lines[..., None], share, 0.0)
    return Lines(slope, upper - slope, torch.where(lines, chords, highest))


@undecided.register
def _(op: Max, z: Bounds) -> Tensor:
    best = z.lower.amax(-1, keepdim=True)
    contested = (z.upper > best).sum(-1, keepdim=True) > 1
    return contested & (z.upper > best)


def relaxes(op: Op) -> bool:
    """Whether ``op`` is an activation with a relaxation here."""
    return relax.dispatch(type(op)) is not relax.dispatch(object)
