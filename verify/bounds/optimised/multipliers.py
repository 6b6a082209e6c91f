"""Linear functions over polytopes, by Lagrange's multipliers.

Where ``A x <= b``, ``c @ x`` is at least ``c @ x + m @ (A x - b)`` for any m >= 0, whose least value over a box is at a
corner. That is concave in m: each multiplier in turn goes to where it is best with the others as they are, one of
the points at which the coefficient of an input changes its sign; all of them together need not be the best there are.
The bound is in float64, with its rounding charged, so that no multiplier can make it untrue.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from assay.verify.bounds.rounding import FEW
from assay.verify.core.region import Polytope, Region
from assay.verify.support.floats import TINY, gamma

SWEEPS = 4  # over the constraints


@dataclass(frozen=True, eq=False)
class Constraints:
    """``A x <= b``: A (constraints x inputs), b (constraints), float64."""

    A: Tensor
    b: Tensor

    @classmethod
    def of(cls, region: Region | None, device: torch.device) -> Constraints | None:
        """The rows of a polytope; None for other regions."""
        return cls(region.A.to(device), region.b.to(device)) if isinstance(region, Polytope) else None

    def weighed(self, coef: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Functions with the constraints added, and what is taken off for it, which both may have rounded: coef, lower,
        upper (... x inputs), finite, to (... x inputs), and the multipliers (... x constraints)."""
        sum_ = coef.double()
        lower, upper = lower.double(), upper.double()
        used = self._used(lower, upper)
        multipliers = sum_.new_zeros((*sum_.shape[:-1], len(self.b)))
        for _ in range(SWEEPS if len(used) > 1 else 1):
            before = multipliers.clone()
            for k in used:
                row = self.A[k]
                better = (multipliers[..., k] + self._step(sum_, row, self.b[k], lower, upper)).clamp(min=0)
                better = torch.where(better.isfinite(), better, multipliers[..., k])
                sum_ = sum_ + (better - multipliers[..., k])[..., None] * row
                multipliers[..., k] = better
            if torch.equal(before, multipliers):
                break
        return coef.double() + multipliers @ self.A, multipliers

    def _used(self, lower: Tensor, upper: Tensor) -> list[int]:
        """The constraints that do not hold all over the boxes."""
        most = upper @ self.A.clamp(min=0).T + lower @ self.A.clamp(max=0).T
        used: list[int] = (most > self.b).flatten(0, -2).any(0).nonzero().flatten().tolist()
        return used

    @staticmethod
    def _step(coef: Tensor, row: Tensor, limit: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """How much more of one constraint is best for functions (... x inputs): (...), minus infinity for none of it,
        NaN where the box has no point that satisfies it."""
        breaks = torch.where(row == 0, torch.inf, -coef / row)  # there, an input goes to its other end
        drop = torch.where(row == 0, 0.0, row.abs() * (upper - lower)).expand_as(breaks)
        breaks, order = breaks.sort(-1)
        slope = torch.maximum(row * lower, row * upper).sum(-1, keepdim=True) - limit
        slope = slope - drop.gather(-1, order).cumsum(-1)  # behind each of them
        place = (slope > 0).sum(-1, keepdim=True)
        best = breaks.gather(-1, place.clamp(max=coef.shape[-1] - 1))[..., 0]
        at_all = torch.maximum(row * lower, row * upper).sum(-1) > limit
        best = torch.where(place[..., 0] < coef.shape[-1], best, torch.nan)
        return torch.where(at_all, best, -torch.inf)

    def least(self, coef: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """Lower bounds of functions over the part of boxes that satisfies the constraints: coef (... x inputs),
        lower and upper that broadcast to it, result (...), in the dtype of coef; NaN or -inf where there is none."""
        exact = coef.double()
        low, high = (t.double().expand_as(exact) for t in (lower, upper))
        sum_, multipliers = self.weighed(exact, low, high)
        bound = torch.minimum(sum_ * low, sum_ * high).sum(-1) - multipliers @ self.b
        # The rounding of all sums, each of terms no larger than these.
        reach = torch.maximum(low.abs(), high.abs())
        size = ((exact.abs() + multipliers @ self.A.abs()) * reach).sum(-1) + multipliers @ self.b.abs()
        count = coef.shape[-1] + 2 * len(self.b) + FEW
        bound = bound - 2 * gamma(count) * size - count * (1 + multipliers.sum(-1)) * TINY
        lowest = bound.to(coef.dtype)
        return torch.where(lowest.double() > bound, lowest.nextafter(lowest.new_tensor(-torch.inf)), lowest)
