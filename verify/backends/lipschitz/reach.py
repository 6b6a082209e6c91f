"""How far a region reaches from its centre, in each norm and along each axis; rounded outward."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from assay.verify.backends.lipschitz.outward import frobenius, times, total, up
from assay.verify.core.region import LpBall, Region


@dataclass(frozen=True, eq=False)
class Reach:
    """A region of one sample as its ``centre``, half widths along each axis (both of the sample's shape, float64), and
    where it is a ball in l1 or l2 that norm ``p`` and radius ``eps``; for boxes and balls in linf p is inf."""

    centre: Tensor
    widths: Tensor
    p: float
    eps: float

    @classmethod
    def of(cls, region: Region) -> Reach:
        """The reach of a region that is not empty."""
        box, centre = region.box(), region.centre.to("cpu", torch.float64)
        lower, upper = box.lower.cpu(), box.upper.cpu()
        widths = torch.maximum(upper - centre, centre - lower)
        widths = torch.where(widths > 0, widths.nextafter(widths.new_tensor(inf)), widths)
        ball = isinstance(region, LpBall) and region.p != inf
        if not ball:
            return cls(centre, widths, inf, widths.amax().item() if widths.numel() else 0.0)
        assert isinstance(region, LpBall)
        return cls(centre, widths, float(region.p), float(region.eps))

    def within(self, q: float) -> float:
        """At least the largest distance from the centre in l_q."""
        flat = self.widths.flatten()
        of_box = {1: total(flat, 0).item(), 2: frobenius(flat), inf: flat.amax().item() if len(flat) else 0.0}[q]
        return min(of_box, times(self.eps, conversion(len(flat), self.p, q)))

    @property
    def inside(self) -> float:
        """The radius, in l_p, of the largest ball about the centre that lies within the half widths and ``eps``."""
        return min(self.widths.amin().item(), self.eps)

    def ball(self, eps: float) -> Reach:
        """The ball of another radius about the same centre, in the same norm, domain aside."""
        return Reach(self.centre, torch.full_like(self.widths, eps), self.p, eps)


def conversion(size: int, p: float, q: float) -> float:
    """At least the largest ``||v||_q / ||v||_p`` over vectors of ``size``."""
    exponent = 1 / q - 1 / p
    return 1.0 if exponent <= 0 else up(up(float(size) ** exponent))
