"""Planes about ``1 / sum_j exp(z_j)``, of which a softmax is made (Wei et al. 2023, arXiv:2303.01713).

Below, the sum is replaced by the chords of its exponentials, and its inverse by a tangent. Above there are two ways:
the chord of the inverse over tangents of the exponentials, or the chord of ``exp(-a)`` over a tangent plane of the
logarithm ``a`` of the sum; the one that is lower in the middle is taken. All is scaled by the sum in the middle, so
that exponents stay small; where an interval is too wide even for that the planes are flat.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from assay.verify.bounds.relaxations.lines import Lines
from assay.verify.core.verifier import Bounds

ROUND = 8  # units in the last place that a term errs by, beside what its exponent does


@dataclass(frozen=True, eq=False)
class SoftmaxPlanes:
    """What planes about the inverse sums over ``z`` (... x operands) are made of, scaled by exp(``centre``).

    ``total``, ``slope``: the sum's upper plane ``total + slope @ z``; ``low``, ``high``: of the scaled sum;
    ``of_logs``: whether the upper plane is that of logarithms. All (...), ``slope`` (... x operands).
    """

    z: Bounds
    centre: Tensor
    total: Tensor
    slope: Tensor
    low: Tensor
    high: Tensor
    of_logs: Tensor

    @classmethod
    def over(cls, z: Bounds) -> SoftmaxPlanes:
        """The planes that are tightest in the middle."""
        middle = z.lower / 2 + z.upper / 2
        centre = middle.logsumexp(-1)
        shifted_low, shifted_high = z.lower - centre[..., None], z.upper - centre[..., None]
        at_low, at_high = shifted_low.exp(), shifted_high.exp()
        tiny = torch.finfo(middle.dtype).tiny
        slope = torch.minimum(torch.maximum((at_high - at_low) / (z.upper - z.lower).clamp(min=tiny), at_low), at_high)
        total = torch.maximum(at_low - slope * z.lower, at_high - slope * z.upper).sum(-1)
        low, high = at_low.sum(-1), at_high.sum(-1)
        planes = cls(z, centre, total, slope, low, high, torch.zeros_like(low, dtype=torch.bool))
        ends = 1 / low + 1 / high - 1 / (low * high)  # of the first way, in the middle, where the scaled sum is 1
        _, top = planes._fall
        return cls(z, centre, total, slope, low, high, top < ends)

    @property
    def _fall(self) -> tuple[Tensor, Tensor]:
        """Slope and height at 0 of the chord of exp(-a), from above."""
        first, last, least, most = self.low.log(), self.high.log(), 1 / self.high, 1 / self.low
        fall = (most - least) / (last - first).clamp(min=torch.finfo(most.dtype).tiny)
        fall = torch.minimum(torch.maximum(fall, least), most)
        return fall, torch.maximum(most + fall * first, least + fall * last)

    @property
    def touching(self) -> tuple[Tensor, Tensor]:
        """Where planes touch that are tightest in the middle: the scaled sum there (...), and the point (... x
        operands)."""
        middle = self.z.lower / 2 + self.z.upper / 2
        return self.total + (self.slope * middle).sum(-1), middle

    def lines(self, sum_: Tensor, point: Tensor) -> Lines:
        """The lower plane with the inverse's tangent at ``sum_`` (...), above 0; the upper plane with the sum's, or its
        logarithm's, tangent at the ``point`` (... x operands)."""
        scale = self.centre.neg().exp()
        inverse = 1 / sum_
        below = -self.slope * inverse.square()[..., None]
        under = 2 * inverse - self.total * inverse.square()
        shifted = point - self.centre[..., None]
        exponentials, product = shifted.exp(), 1 / (self.low * self.high)
        fall, top = self._fall
        share, logs = shifted.softmax(-1), shifted.logsumexp(-1)
        above = -torch.where(self.of_logs[..., None], fall[..., None] * share, product[..., None] * exponentials)
        by_logs = top - fall * (logs - (share * point).sum(-1))
        by_sums = 1 / self.low + 1 / self.high - product * (exponentials * (1 - point)).sum(-1)
        over = torch.where(self.of_logs, by_logs, by_sums)
        size = torch.maximum(self.z.lower.abs(), self.z.upper.abs())
        kind, count = torch.finfo(size.dtype), size.shape[-1]
        share_lost = kind.eps * (ROUND + count + 2 * size.amax(-1) + self.centre.abs())
        whole = (below.abs() * size).sum(-1) + (above.abs() * size).sum(-1) + under.abs() + over.abs()
        ends = (self.total.abs() + (self.slope * size).sum(-1)) * inverse.square()
        slack = 4 * share_lost * (whole + 1 / self.low + ends + (product * exponentials.sum(-1)) + 2 * top)
        low, high = scale[..., None] * below, scale[..., None] * above
        under, over = scale * (under - slack) - kind.tiny, scale * (over + slack) + kind.tiny
        under = torch.where(scale < kind.tiny, torch.nan, under)  # all would vanish
        return self._or_flat(low, under, high, over)

    def gradient(self, sum_: Tensor, point: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives of the planes at ``z`` (... x operands), before rounding: of the lower one by ``sum_`` (...), of
        the upper one by ``point`` (... x operands)."""
        scale, inverse = self.centre.neg().exp(), 1 / sum_
        whole = self.total + (self.slope * z).sum(-1)
        by_sum = scale * 2 * inverse.square() * (whole * inverse - 1)
        shifted, ahead = point - self.centre[..., None], z - point
        share, (fall, _) = shifted.softmax(-1), self._fall
        of_logs = fall[..., None] * share * (ahead - (share * ahead).sum(-1, keepdim=True))
        of_sums = shifted.exp() * ahead / (self.low * self.high)[..., None]
        return by_sum, -scale[..., None] * torch.where(self.of_logs[..., None], of_logs, of_sums)

    def _or_flat(self, low: Tensor, under: Tensor, high: Tensor, over: Tensor) -> Lines:
        """Flat planes at the least and the largest value where others have no numbers."""
        known = (low.sum(-1) + high.sum(-1) + under + over).isfinite()
        kind, size = torch.finfo(low.dtype), torch.maximum(self.z.lower.abs(), self.z.upper.abs()).amax(-1)
        wide = 4 * kind.eps * (ROUND + low.shape[-1] + 2 * size)
        least, most = ((-z).exp() for z in (self.z.upper.logsumexp(-1), self.z.lower.logsumexp(-1)))
        slope, slope_above = (torch.where(known[..., None], side, 0.0) for side in (low, high))
        intercept = torch.where(known, under, (least * (1 - wide)).clamp(min=0))
        top = torch.where(known, over, most * (1 + wide) + kind.tiny)
        return Lines(slope, slope_above - slope, top - intercept, intercept)
