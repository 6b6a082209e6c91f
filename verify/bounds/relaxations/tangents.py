"""Lines about smooth curves: tangents where they touch, chords where no tangent fits, one side at a time.

The side above a curve is the side below its mirror image. A line of any slope lies below a curve with the right
intercept, which is worked out piece by piece between the points where the curvature turns: over a concave piece the
least of the curve's height above the line is at an end, over a convex one it is no lower than where the tangents at
the two ends meet. So where a line touches is a matter of tightness alone, and bisection may stop anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

from assay.verify.bounds.relaxations.lines import Lines
from assay.verify.core import ranges
from assay.verify.core.curves import Curve
from assay.verify.core.verifier import Bounds

STEPS = 20  # bisections for where a tangent touches
ROUND = 16  # units in the last place that functions, derivatives and lines may err by, of what they are made of


def lines_about(f: Curve, z: Bounds) -> Lines:
    """Lines about a curve over ``z`` (any shape), NaN where it is not defined on all of it."""
    below, above = (tangents(f, sign, z.lower, z.upper) for sign in (1, -1))
    return between(below.line(below.best), above.line(above.best))


def between(below: tuple[Tensor, Tensor], above: tuple[Tensor, Tensor]) -> Lines:
    """Lines from slope and intercept below a curve, and below its mirror image: all of one shape."""
    (slope, intercept), (mirrored_slope, mirrored) = below, above
    return Lines(slope, -mirrored_slope - slope, -mirrored - intercept, intercept)


@dataclass(frozen=True, eq=False)
class Tangents:
    """Lines below ``sign * f`` over [low, high]: tangents at any point from ``first`` to ``last``, where these are
    ``allowed``, and elsewhere the line of the slope ``chord`` and the intercept ``under``. All of one shape.

    ``knots``: ends of the interval and turns of the curvature within it, in order, with the values and derivatives of
    ``sign * f`` there: (knots x shape). ``room``: what roundings may come to, beside those of the line's own numbers.
    """

    curve: Curve
    sign: int
    knots: Tensor
    values: Tensor
    slopes: Tensor
    first: Tensor
    last: Tensor
    allowed: Tensor
    chord: Tensor
    under: Tensor
    room: Tensor

    @property
    def best(self) -> Tensor:
        """The tangent that is highest in the middle of the interval touches here."""
        middle = self.knots[0] / 2 + self.knots[-1] / 2
        return torch.minimum(torch.maximum(middle, self.first), self.last)

    def line(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Slope and intercept of the tangents at the points ``at`` (of their shape), or of the chords."""
        low, high = self.knots[0], self.knots[-1]
        slope = torch.where(self.allowed, self.sign * self.curve.derivative(at), self.chord)
        value = self.sign * self.curve.function(at)
        least = torch.minimum(self.values[0] - slope * low, self.values[-1] - slope * high)
        if len(self.knots) > 3:  # there may be another convex piece than the one in which the tangent touches
            least = torch.minimum(least, _least(self.knots, self.values, self.slopes, slope, at))
        least = torch.where(self.allowed, torch.minimum(least, value - slope * at), self.under)
        lost = value.abs() + slope.abs() * (low.abs() + high.abs())
        return slope, torch.sub(least - self.room, lost, alpha=ROUND * torch.finfo(slope.dtype).eps)

    def bend(self, at: Tensor) -> Tensor:
        """The second derivative of ``sign * f`` at points (of their shape) where tangents touch, 0 where none does: by
        differences, which is near enough to climb by."""
        whole = not self.curve.poles and self.curve.domain == (-torch.inf, torch.inf)
        step = torch.finfo(at.dtype).eps ** (1 / 3) * (at.abs() + whole)
        left, right = at - step, at + step
        rise = self.sign * (self.curve.derivative(right) - self.curve.derivative(left)) / (right - left)
        return torch.where(self.allowed, rise, 0.0)


def _least(knots: Tensor, values: Tensor, slopes: Tensor, slope: Tensor, touching: Tensor | None = None) -> Tensor:
    """At most how high a curve is over the line through 0 of a slope, by its values and derivatives at the knots (knots
    x shape): over a concave piece that is least at an end, over a convex one no lower than where the tangents at the
    ends meet. The convex piece in which a line of this slope is ``touching`` the curve is left out: there it is a
    tangent."""
    over, rise = values - slope * knots, slopes - slope
    least = over.amin(0)
    for k in range(len(knots) - 1):
        down, up = rise[k].clamp(max=0), rise[k + 1].clamp(min=0)
        dips = (down < 0) & (up > 0)
        if touching is not None:
            dips = dips & ~((knots[k] <= touching) & (touching <= knots[k + 1]))
        share = up / (up - down).clamp(min=torch.finfo(up.dtype).tiny)  # of the way back from the piece's end
        met = torch.lerp(over[k + 1], over[k], share) + down * share * (knots[k + 1] - knots[k])
        least = torch.where(dips, torch.minimum(least, met), least)
    return least


def tangents(f: Curve, sign: int, low: Tensor, high: Tensor) -> Tangents:
    """Where tangents of ``sign * f`` lie below it over [low, high] (one shape, any): they touch in a convex piece, and
    pass below both ends of the interval."""

    def value(at: Tensor) -> Tensor:
        return sign * f.function(at)

    def slope(at: Tensor) -> Tensor:
        return sign * f.derivative(at)

    knots = _knots(f, low, high)
    values, slopes = value(knots), slope(knots)
    at_low, at_high = values[0], values[-1]
    kind = torch.finfo(low.dtype)
    chord = (at_high - at_low) / (high - low).clamp(min=kind.tiny)
    # Over a width near rounding the chord's slope is not reliable: it is between those of the curve.
    chord = torch.minimum(torch.maximum(chord, slopes.amin(0)), slopes.amax(0))

    start, end = _convex_piece(knots, slopes, chord)
    convex = ~start.isnan()
    start, end = torch.where(convex, start, low), torch.where(convex, end, low)

    def fits(at: Tensor, corner: Tensor, there: Tensor) -> Tensor:
        return value(at) + slope(at) * (corner - at) <= there

    def furthest(good: Tensor, bad: Tensor, corner: Tensor, there: Tensor) -> Tensor:
        """The point next to ``bad`` at which the tangent passes below the curve's point ``there`` at ``corner``."""
        share, apart = torch.zeros_like(good), bad - good
        for k in range(1, STEPS + 1):
            share = share.add(fits(good + (share + 0.5**k) * apart, corner, there), alpha=0.5**k)
        return good + share * apart

    first, last = start, end
    if len(knots) == 3:  # two pieces: at most one end lies outside of the convex one
        left = start > low
        corner, there = torch.where(left, low, high), torch.where(left, at_low, at_high)
        near = furthest(torch.where(left, end, start), torch.where(left, start, end), corner, there)
        first, last = torch.where(left, near, start), torch.where(~left & (end < high), near, end)
    elif len(knots) > 3:
        first = torch.where(start > low, furthest(end, start, low, at_low), start)
        last = torch.where(end < high, furthest(start, end, high, at_high), end)
    allowed = convex & (first <= last)
    if len(knots) > 2:
        allowed = allowed & ((first <= low) | fits(first, low, at_low)) & ((last >= high) | fits(last, high, at_high))
    size = values.abs().amax(0)
    if f.noise is not None:
        size = size + 2 * f.noise(torch.maximum(low.abs(), high.abs()))
    if f.period:  # over more than a period nothing but the least value is known
        wide = ~(high - low < f.period) | ~((high.abs() + low.abs()) * kind.eps < 0.1 * kind.eps ** (1 / 3))
        values = torch.where(wide, f.image[0] if sign > 0 else -f.image[1], values)
        slopes, chord, allowed = torch.where(wide, 0.0, slopes), torch.where(wide, 0.0, chord), allowed & ~wide
        values = torch.where((low + high).isnan(), torch.nan, values)
    if f.poles or f.domain != (-torch.inf, torch.inf):
        values = torch.where(ranges.defined(f, low, high), values, torch.nan)
    under = _least(knots, values, slopes, chord)
    room = ROUND * kind.eps * size + kind.tiny
    found = Tangents(f, sign, knots, values, slopes, first, last, allowed, chord, under, room)
    return found if sign > 0 or not f.kinks else _by_kinks(found)


def _by_kinks(found: Tangents) -> Tangents:
    """With lines from a kink to an end of the interval in place of those that are lower in the middle."""
    low, high, chord, under, allowed = found.knots[0], found.knots[-1], found.chord, found.under, found.allowed
    middle = low / 2 + high / 2
    slope, intercept = found.line(found.best)
    highest = slope * middle + intercept
    for kink in found.curve.kinks:
        at = low.new_full((), kink)
        value = found.sign * found.curve.function(at)
        for end, there in ((low, found.values[0]), (high, found.values[-1])):
            apart = torch.where((low < kink) & (kink < high), end - at, torch.nan)
            steep = (there - value) / apart
            steep = torch.minimum(torch.maximum(steep, found.slopes.amin(0)), found.slopes.amax(0))
            below = _least(found.knots, found.values, found.slopes, steep)
            height = steep * middle + below
            better = height > highest + 2 * found.room
            chord, under = torch.where(better, steep, chord), torch.where(better, below, under)
            allowed, highest = allowed & ~better, torch.where(better, height, highest)
    return replace(found, chord=chord, under=under, allowed=allowed)


def _knots(f: Curve, low: Tensor, high: Tensor) -> Tensor:
    """The ends of [low, high], and the turns of the curvature within it, or an end in place of one that is not:
    (knots x shape), in order."""
    inner = [low.new_full((), turn).expand_as(low) for turn in f.breaks]
    if f.period:
        inner = [turn + f.period * ((low - turn) / f.period).ceil() for turn in inner]
        inner = [reduce(torch.minimum, inner), reduce(torch.maximum, inner)]
    return torch.stack([low, *(torch.minimum(torch.maximum(turn, low), high) for turn in inner), high])


def _convex_piece(knots: Tensor, slopes: Tensor, chord: Tensor) -> tuple[Tensor, Tensor]:
    """The ends of the convex piece in which lines may touch, NaN where there is none. Of two pieces it is the first
    where the tangent at the interval's beginning passes below its end."""
    start = end = torch.full_like(chord, torch.nan)
    for k in range(len(knots) - 1):
        convex = (knots[k] < knots[k + 1]) & (slopes[k] < slopes[k + 1])
        take = convex & (start.isnan() | (slopes[0] > chord))
        start, end = torch.where(take, knots[k], start), torch.where(take, knots[k + 1], end)
    return start, end
