"""Linear relaxations of activations: two lines between which the activation lies over an interval.

Tensors are (features x samples), the layout of the backward propagation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch

import torch
from torch import Tensor

from assay.verify.core.errors import UnsupportedError
from assay.verify.core.ops import LeakyRelu, Max, Op, Relu, Tanh
from assay.verify.core.verifier import Bounds


@dataclass(frozen=True, eq=False)
class Lines:
    """``slope * z + intercept <= activation(z) <= (slope + slope_gap) * z + intercept + intercept_gap`` over the
    interval of z: all (features x samples).

    ``slope`` and ``intercept`` are the lower line's, the gaps are the upper line's minus these; ``intercept`` is None
    where it is 0 throughout. Max has several operands z a feature: ``slope`` and ``slope_gap`` are (features x
    operands x samples) and their products with z summed.
    """

    slope: Tensor
    slope_gap: Tensor
    intercept_gap: Tensor
    intercept: Tensor | None = None

    def take(self, features: Tensor) -> Lines:
        """The lines of some ``features``, numbers in the first axis."""
        lines = (self.slope, self.slope_gap, self.intercept_gap)
        slope, slope_gap, intercept_gap = (t.index_select(0, features) for t in lines)
        intercept = None if self.intercept is None else self.intercept.index_select(0, features)
        return Lines(slope, slope_gap, intercept_gap, intercept)


@singledispatch
def relax(op: Op, z: Bounds) -> Lines:
    """The relaxation of ``op`` over the interval ``z`` of its operands (features x samples)."""
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
def _(op: Tanh, z: Bounds) -> Lines:
    """Tangents and chords of an S-shaped curve; the upper line is the lower line of the mirrored curve.

    Where the interval has both signs, the lower line is the tangent from the curve's point at the upper end,
    touching on the negative side (Zhang et al. 2018, figure 1), found by bisection on the side that is sound.
    """
    slope, intercept = _below_s(z.lower, z.upper, torch.tanh)
    slope_above, mirrored = _below_s(-z.upper, -z.lower, torch.tanh)
    return Lines(slope, slope_above - slope, -mirrored - intercept, intercept)


def _below_s(low: Tensor, high: Tensor, curve: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Slope and intercept of a line below tanh over [low, high]."""
    at_low, at_high = curve(low), curve(high)
    width = high - low

    def steepness(at: Tensor) -> Tensor:
        return 1 - curve(at) ** 2

    chord = (at_high - at_low) / width.clamp(min=torch.finfo(width.dtype).tiny)
    # Left of the inflection the curve is convex: the tangent at any point lies below it there, and to the right of
    # it too as long as it does not pass above the curve at the upper end.
    first, last = low, torch.minimum(high, torch.zeros_like(high))
    touch = (low + high) / 2
    for _ in range(30):
        middle = (first + last) / 2
        fits = curve(middle) + steepness(middle) * (high - middle) <= at_high
        first, last = torch.where(fits, middle, first), torch.where(fits, last, middle)
    fits_first = curve(first) + steepness(first) * (high - first) <= at_high
    touch = torch.where(high <= 0, touch, first)
    tangent = steepness(touch)
    # Where the curve is concave over the interval, or leaves its lower end more steeply than the chord, the chord
    # itself lies below. A flat line through the lower end always does.
    concave = (low >= 0) | ((high > 0) & (steepness(low) >= chord))
    slope = torch.where(concave, chord, torch.where((high <= 0) | fits_first, tangent, 0.0))
    anchor = torch.where(concave | (slope == 0), low, touch)
    # The chord's slope over a width near rounding is not reliable: the smaller slope of the ends is taken.
    thin = width <= 1e-6 * (1 + low.abs())
    slope = torch.where(thin, torch.minimum(steepness(low), steepness(high)), slope)
    anchor = torch.where(thin, low, anchor)
    slack = 8 * torch.finfo(low.dtype).eps * (1 + slope * (low.abs() + high.abs()))
    return slope, curve(anchor) - slope * anchor - slack


@relax.register
def _(op: Max, z: Bounds) -> Lines:
    """Below, the operand with the largest lower bound. Above, with m that bound, the better at the middle of the
    box of ``max u`` and of ``m + sum of the chords of max(z_i - m, 0)``; with one candidate left both are exact.

    ``z``: (features x operands x samples).
    """
    best, chosen = z.lower.max(1, keepdim=True)
    slope = torch.zeros_like(z.lower).scatter(1, chosen, 1.0)
    above = (z.upper - best).clamp(min=0)
    share = above / (z.upper - z.lower).clamp(min=torch.finfo(best.dtype).tiny)
    # The chord of max(z - m, 0) over [l, u] with l <= m: share * (z - l).
    chords = best[:, 0] - (share * z.lower).sum(1)
    middle = (share * (z.lower + z.upper) / 2).sum(1) + chords
    highest = z.upper.amax(1)
    lines = middle <= highest
    upper = torch.where(lines[:, None], share, 0.0)
    return Lines(slope, upper - slope, torch.where(lines, chords, highest))


@undecided.register
def _(op: Max, z: Bounds) -> Tensor:
    best = z.lower.amax(-1, keepdim=True)
    contested = (z.upper > best).sum(-1, keepdim=True) > 1
    return contested & (z.upper > best)


def relaxes(op: Op) -> bool:
    """Whether ``op`` is an activation with a relaxation here."""
    return relax.dispatch(type(op)) is not relax.dispatch(object)
