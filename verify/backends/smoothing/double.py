"""Double sampling (Li et al. 2022, DSRS, arXiv:2206.07912): a second, narrower draw tells how p is spread.

P is the noise, Q the same noise given that its norm lies below a quantile. The probabilities p under P and q under Q
fix what the answer keeps inside of that ball and outside of it; the worst sets of both parts are level sets, found
one by one, so that q tells more than p alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import log, sqrt

import numpy as np

from assay.verify.backends.smoothing.noises import Exp2, levels
from assay.verify.core.errors import InputError

# A cut through the middle of the noise makes the integrands steep: more panels, and more slack.
PANELS, SLACK = 256, 4e-6


def generalised_gaussian(sigma: float, size: int, k: int) -> Exp2:
    """Density r^-2k exp(-r^2 / 2 s^2) with the mean square ``sigma``^2 in each of ``size`` values; 2 k < size."""
    if not 0 <= 2 * k < size:
        raise InputError(f"expected 0 <= 2 k < size, got k = {k} and size = {size}")
    return Exp2(sqrt(2 * size / (size - 2 * k)) * sigma, 2, 2 * k)


def suggested_quantile(p: float) -> float:
    """The quantile that the authors suggest for a first lower bound of p."""
    return min(0.95, max(0.05, 0.08 * (-log(1 - p) - 5) + 0.6))


def dsrs(noise: Exp2, quantile: float, p: float, q_low: float, q_high: float, size: int) -> float:
    """Certified l2 radius from a lower bound of p and bounds of q that hold at once; at least the plain radius of p.

    ``quantile``: the share of the noise that Q keeps. ``size``: number of the input's values.
    """
    if not (0 <= p < 1 and 0 <= q_low <= q_high <= 1):
        raise InputError(f"expected 0 <= p < 1 and 0 <= q_low <= q_high <= 1, got {p}, {q_low}, {q_high}")
    plain = noise.radius(p, 2, size) if p > 0.5 else 0.0
    if p <= 0.5 or size < levels.LEAST:
        return plain
    parts = _parts(size, noise.k, noise.j, quantile)
    start = plain / noise.scale or levels.typical_shift(size, noise.k, noise.j)
    largest = levels.largest(lambda shift: parts.least(shift, p, q_low, q_high) - 0.5, start)
    return max(plain, noise.scale * largest)


def exceeds(noise: Exp2, quantile: float, p: float, q_low: float, size: int, radius: float) -> bool:
    """Whether :func:`dsrs` would be above a ``radius`` > 0 from these bounds of p and q: one evaluation of it."""
    if p <= 0.5 or size < levels.LEAST:
        return False
    return _parts(size, noise.k, noise.j, quantile).least(radius / noise.scale, p, q_low, 1.0) > 0.5


@dataclass(frozen=True, eq=False)
class Parts:
    """The noise at scale 1, all of it, below the norm ``cut``, and above; ``quantile``: the share below."""

    whole: levels.Profile
    inner: levels.Profile
    outer: levels.Profile
    cut: float
    quantile: float

    def least(self, shift: float, p: float, q_low: float, q_high: float) -> float:
        """The least probability of the answer after the shift, less the slack.

        What the answer keeps after the shift grows with its mass on either part; p fixes the sum, so that the worst q
        is the one of the plain worst set, or the nearest that its bounds allow, at the smallest p.
        """
        slack = max(SLACK, self.whole.slack)
        free = self.inner.kept(shift, self.whole.threshold(shift, p)) / self.quantile
        q = min(max(free, q_low), q_high)
        inside = min(q * self.quantile, p)
        if q == q_low:  # the bound says that at least so much lies inside, whatever p
            inside = q * self.quantile
        outside = max(0.0, p - inside)
        low_mu = self.inner.threshold(shift, inside - slack)
        high_mu = self.outer.threshold(shift, outside - slack)
        inner_limit = np.minimum(self.whole.level(self.whole.norms, -low_mu), self.cut)
        outer_limit = self.whole.level(self.whole.norms, -high_mu)
        after = self.whole.between(shift, 0.0, inner_limit) + self.whole.between(shift, self.cut, outer_limit)
        return after - 2 * slack


@lru_cache(maxsize=64)
def _parts(size: int, k: float, j: float, quantile: float) -> Parts:
    from scipy.special import gammaincinv

    squared = float(gammaincinv((size - j) / k, quantile))
    cut = squared ** (1 / k)
    whole = levels.power_exponential(size, k, j, PANELS, (squared,))
    return Parts(whole, whole.part(0.0, cut), whole.part(cut, float("inf")), cut, quantile)
