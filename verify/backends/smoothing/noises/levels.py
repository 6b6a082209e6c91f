"""Level sets of spherical densities: the least probability that a set can keep when the noise is shifted.

By the lemma of Neyman and Pearson the worst set of known probability p is {x: f(x - delta) < mu f(x)}, with mu such
that its probability is p. For a density f of the l2 norm alone that falls with it, the probability of such a set,
before and after the shift, is one integral over the norm of a Beta distribution function (Yang et al. 2020,
arXiv:2002.08118, appendix; Li et al. 2022, arXiv:2206.07912). The integrals are composite Gauss-Legendre sums over
the norm's distribution; a slack covers their error, and every root is taken on the side of the smaller radius.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import exp, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Share of the norm's distribution that is left out at each end.
TAIL = 1e-12
NODES = 16
# Likelihood ratios beyond e^LIMIT are taken for infinite.
LIMIT = 1e6
# In the plane the angle's density has poles, where these sums are inaccurate: nothing is certified there.
LEAST = 3
# In few dimensions the integrands have kinks: they take many panels and leave a larger error.
FEW = 12
PANELS = {True: 200, False: 32}
SLACK = {True: 2e-5, False: 1e-8}


@dataclass(frozen=True, eq=False)
class Profile:
    """A spherical density by the distribution of its norm: norms with their weights, which sum to the probability of
    the part of space that is looked at.

    ``level(norms, log_mu)``: the norm at which the density is mu times what it is at ``norms``; 0 where it is nowhere
    as large. ``size``: dimension of the space, at least ``LEAST``.
    """

    size: int
    norms: Array
    weights: Array
    level: Callable[[Array, float], Array]

    @property
    def slack(self) -> float:
        """What a probability computed here may be off by: the tests compare it with adaptive quadrature."""
        return SLACK[self.size < FEW]

    def part(self, low: float, high: float) -> Profile:
        """The norms from ``low`` to ``high`` alone; both must be limits that the profile was made with."""
        inside = (self.norms > low) & (self.norms < high)
        return Profile(self.size, self.norms[inside], self.weights[inside], self.level)

    def kept(self, shift: float, log_mu: float) -> float:
        """Probability of the set of likelihood ratio below mu, before the shift; grows with mu."""
        h = self.level(self.norms, log_mu)
        return self._mean(((self.norms + shift) ** 2 - h**2) / (4 * self.norms * shift))

    def threshold(self, shift: float, mass: float) -> float:
        """log mu of the largest set of probability at most ``mass``."""
        from scipy.optimize import brentq

        @cache
        def excess(log_mu: float) -> float:
            return self.kept(shift, log_mu) - mass

        low, high = -1.0, 1.0
        while excess(low) > 0 and low > -LIMIT:
            low, high = 2 * low, low
        while excess(high) < 0 and high < LIMIT:
            low, high = high, 2 * high
        if excess(low) >= 0 or excess(high) <= 0:
            return low if excess(low) >= 0 else high
        root = float(brentq(excess, low, high, xtol=1e-9, rtol=1e-9))
        while excess(root) > 0:
            root -= 1e-9 * (1 + abs(root))
        return root

    def left(self, shift: float, log_mu: float) -> float:
        """Probability of the same set after the shift. Only for a profile of the whole space."""
        return self.between(shift, 0.0, self.level(self.norms, -log_mu))

    def between(self, shift: float, low: float, high: Array | float) -> float:
        """Probability that the norm of noise + shift lies between ``low`` and ``high``, one or one a norm (norms)."""
        inner = self._share(shift, np.asarray(low))
        return float(self.weights @ np.maximum(self._share(shift, np.asarray(high)) - inner, 0.0))

    def _share(self, shift: float, limit: Array) -> Array:
        z = (limit**2 - (self.norms - shift) ** 2) / (4 * self.norms * shift)
        return self._below(z)

    def _mean(self, z: Array) -> float:
        return float(self.weights @ self._below(z))

    def _below(self, z: Array) -> Array:
        """Distribution function of (1 + cos) / 2 of the angle between a random direction and the shift."""
        from scipy.special import betainc

        half = (self.size - 1) / 2
        below: Array = betainc(half, half, np.clip(z, 0.0, 1.0))
        return below


def profile(
    size: int,
    distribution: Any,
    norm: Callable[[Array], Array],
    level: Callable[[Array, float], Array],
    panels: int | None = None,
    cuts: tuple[float, ...] = (),
) -> Profile:
    """The profile of a norm that is a monotone function ``norm`` of a variable with a scipy ``distribution``.

    ``cuts``: values of the variable at which an integrand may have a kink; ``panels``: more of them than usual.
    ``norm`` and ``level`` map (points) to (points).
    """
    low, high = float(distribution.ppf(TAIL)), float(distribution.isf(TAIL))
    edges = np.unique(
        np.concatenate([np.linspace(low, high, (panels or PANELS[size < FEW]) + 1), np.clip(np.array(cuts), low, high)])
    )
    x, w = np.polynomial.legendre.leggauss(NODES)
    half = np.diff(edges)[:, None] / 2
    points = (edges[:-1, None] + half * (1 + x)).ravel()
    weights = (half * w).ravel() * distribution.pdf(points)
    return Profile(size, norm(points), weights, level)


def least(whole: Profile, shift: float, p: float) -> float:
    """The least probability that a set of probability p has after the shift, less the slack."""
    return whole.left(shift, whole.threshold(shift, p - whole.slack)) - whole.slack


def largest(excess: Callable[[float], float], start: float, tolerance: float = 1e-6) -> float:
    """The largest shift at which ``excess``, which falls with the shift, is above 0, from below: relative
    ``tolerance``; 0 where there is none. ``start``: a first guess."""
    from scipy.optimize import brentq

    excess = cache(excess)  # the ends of a bracket are asked for again
    low, high = start, 2 * start
    while excess(high) > 0:
        low, high = high, 2 * high
    while not excess(low) > 0:
        if low <= 1e-12 * start:
            return 0.0
        low, high = low / 2, low
    near, step = float(brentq(excess, low, high, xtol=tolerance / 8 * low, rtol=1e-14)), tolerance / 8
    while not excess(near) > 0:
        near, step = max(low, near * (1 - step)), 2 * step
    return near


def radius(whole: Profile, p: float, start: float) -> float:
    """The largest shift after which every set of probability p keeps more than 1/2; ``start``: a first guess."""
    return largest(lambda shift: least(whole, shift, p) - 0.5, start)


def power_exponential(
    size: int, k: float, j: float, panels: int | None = None, cuts: tuple[float, ...] = ()
) -> Profile:
    """Density proportional to r^-j exp(-r^k): r^k is Gamma((size - j) / k). ``panels``, ``cuts``: see :func:`profile`;
    cuts are values of r^k."""
    from scipy.special import wrightomega
    from scipy.stats import gamma

    ratio = j / k

    def level(r: Array, log_mu: float) -> Array:
        t = r**k
        target = t + ratio * np.log(t) - log_mu  # s + ratio log s of the level s = h^k
        if ratio == 0:
            return np.maximum(target, 0.0) ** (1 / k)
        s: Array = ratio * wrightomega(target / ratio - np.log(ratio))
        return s ** (1 / k)

    return profile(size, gamma((size - j) / k), lambda t: t ** (1 / k), level, panels, cuts)


def power_law(size: int, tail: float) -> Profile:
    """Density proportional to (1 + r)^-(size + tail): r / (1 + r) is Beta(size, tail)."""
    from scipy.stats import beta

    def level(r: Array, log_mu: float) -> Array:
        return np.maximum((1 + r) * exp(-log_mu / (size + tail)) - 1, 0.0)

    return profile(size, beta(size, tail), lambda u: u / (1 - u), level)


def typical_shift(size: int, k: float, j: float) -> float:
    """A length of the order of the radii of :func:`power_exponential`."""
    return float(max((size - j) / k, 1e-3) ** (1 / k)) / sqrt(size)
