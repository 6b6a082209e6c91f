"""Planes about ``x / sqrt((x^2 + s) / count)``, of which a normalisation is made, over a box of x and s.

A plane of any two slopes lies below with the right constant, the least of what the function is above it. For x >= 0 the
function is concave in x and convex in s, so that the least is at an end of x, where in s it is at an end or at a
point with a closed form; for x <= 0 it is the other way about. So slopes are a matter of tightness alone. The side
above is the side below of the opposite of x.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from assay.verify.bounds.relaxations.lines import Lines
from assay.verify.core.verifier import Bounds

ROUND = 64  # units in the last place that a plane's constant may err by


@dataclass(frozen=True, eq=False)
class Touching:
    """A plane ``slope @ (x, s) + constant`` below the function, and ``at``, the point of the box where it touches:
    (... x 2), (...), (... x 2)."""

    slope: Tensor
    constant: Tensor
    at: Tensor


@dataclass(frozen=True, eq=False)
class Side:
    """Planes below ``scale * x / sqrt(x^2 + s)`` over the box ``z`` (... x 2), in which s > 0.

    ``steepest`` (... x 2 x 2): between which numbers the slopes of x, and of s, are worth looking for.
    """

    z: Bounds
    scale: float
    steepest: Bounds

    @classmethod
    def over(cls, z: Bounds, scale: float) -> Side:
        """With its slopes: those of the function over the box, and 0."""
        (low, least), (high, most) = z.lower.unbind(-1), z.upper.unbind(-1)
        near = torch.maximum(low, -high).clamp(min=0).square()
        far = torch.maximum(high, -low).square()
        best = torch.minimum(torch.maximum(2 * near, least), most)
        along = scale * best * (near + best).pow(-1.5)
        turn = torch.minimum(torch.maximum(least / 2, near), far)
        across = scale / 2 * turn.sqrt() * (turn + least).pow(-1.5)
        zero = torch.zeros_like(along)
        lower = torch.stack([zero, torch.where(high > 0, -across, zero)], -1)
        upper = torch.stack([along, torch.where(low < 0, across, zero)], -1)
        return cls(z, scale, Bounds(lower, upper))

    def value(self, x: Tensor, s: Tensor) -> Tensor:
        """The function: (...)."""
        return self.scale * x * (x.square() + s).rsqrt()

    def touching(self, slope: Tensor) -> Touching:
        """The highest plane of these slopes (... x 2); of slopes 0 instead of those whose points have no numbers."""
        (low, least), (high, most) = self.z.lower.unbind(-1), self.z.upper.unbind(-1)
        tiny, countable = torch.finfo(slope.dtype).tiny, self._countable
        slope = torch.where(countable[..., None] & ((slope / self.scale).abs() >= tiny), slope, 0.0)
        a, b = (slope / self.scale).unbind(-1)
        middle = low.clamp(min=0).minimum(high)  # 0, or the end that is nearer to it
        points = []
        for x in (middle, high):
            s = torch.where(b < 0, (x.abs() / (2 * b.neg())).pow(2 / 3) - x.square(), torch.inf)
            points.append((x, torch.minimum(torch.maximum(s, least), most)))
        for s in (least, most):
            x = torch.where(a > 0, ((s / a).pow(2 / 3) - s).clamp(min=0).sqrt().neg(), -torch.inf)
            points.append((torch.minimum(torch.maximum(x, low), middle), s))
        heights = torch.stack([self.value(x, s) - slope[..., 0] * x - slope[..., 1] * s for x, s in points])
        lowest = heights.argmin(0, keepdim=True)
        at = torch.stack([torch.stack(each).gather(0, lowest)[0] for each in zip(*points, strict=True)], -1)
        size = torch.maximum(self.z.lower.abs(), self.z.upper.abs())
        biggest = torch.maximum(self.value(low, least).abs(), self.value(high, least).abs())
        round_ = ROUND * torch.finfo(a.dtype).eps
        slack = round_ * (biggest + (slope.abs() * size).sum(-1)) + tiny
        flat = -self.scale * (1 + round_)  # no value is below -scale
        # A point whose height is NaN is no lowest one: NaN has to stay.
        known = ~heights.isnan().any(0) & (least > 0)
        constant = torch.where(known, torch.where(countable, heights.amin(0), flat), torch.nan) - slack
        return Touching(slope, constant, at)

    @property
    def _countable(self) -> Tensor:
        """Where powers of 3/2 of all sums of squares over the box are within the numbers of the dtype: (...)."""
        (low, least), (high, most) = self.z.lower.unbind(-1), self.z.upper.unbind(-1)
        kind = torch.finfo(low.dtype)
        near: float = (4 * kind.tiny) ** (2 / 3)
        far: float = (kind.max / 4) ** (2 / 3)
        return (least >= near) & (torch.maximum(high, -low).square() + most <= far)

    @property
    def best(self) -> Tensor:
        """Slopes (... x 2): of the tangent in the middle, of the chords there, or 0; whose plane is highest there."""
        (low, least), (high, most) = self.z.lower.unbind(-1), self.z.upper.unbind(-1)
        x, s = torch.lerp(self.z.lower, self.z.upper, 0.5).unbind(-1)
        fall = self.scale * (x.square() + s).pow(-1.5)
        tangent = torch.stack([s * fall, -x / 2 * fall], -1)
        width = (self.z.upper - self.z.lower).clamp(min=torch.finfo(x.dtype).tiny)
        rise = [self.value(high, s) - self.value(low, s), self.value(x, most) - self.value(x, least)]
        chords = torch.stack(rise, -1) / width
        planes = [self.touching(self.within(slope)) for slope in (tangent, chords, torch.zeros_like(chords))]
        heights = [plane.constant + plane.slope[..., 0] * x + plane.slope[..., 1] * s for plane in planes]
        chosen = torch.stack(heights).nan_to_num(nan=-torch.inf).argmax(0)[None, ..., None].expand(1, *chords.shape)
        return torch.stack([plane.slope for plane in planes]).gather(0, chosen)[0]

    def within(self, slope: Tensor) -> Tensor:
        """Slopes (... x 2) that are worth looking at."""
        return reduce(torch.minimum, (torch.maximum(slope, self.steepest.lower), self.steepest.upper))


def sides(z: Bounds, count: int) -> tuple[Side, Side]:
    """Planes below, and planes below for the opposite of x, which make those above: over ``z`` (... x 2)."""
    sign = z.lower.new_tensor([-1.0, 1.0])
    ends = z.lower * sign, z.upper * sign
    mirrored = Bounds(torch.minimum(*ends), torch.maximum(*ends))
    return Side.over(z, count**0.5), Side.over(mirrored, count**0.5)


def planes_about(below: Touching, above: Touching) -> Lines:
    """Both planes; that of the opposite of x is turned back."""
    upper = above.slope * above.slope.new_tensor([1.0, -1.0])
    return Lines(below.slope, upper - below.slope, -above.constant - below.constant, below.constant)
