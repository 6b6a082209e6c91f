"""Noises whose values are independent of each other."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, expm1, gamma, inf, log, log1p, pi, sqrt
from typing import ClassVar

import torch
from torch import Tensor

from assay.verify.backends.smoothing.noises.noise import certified, check_positive, empty, numpy_generator, signs
from assay.verify.core.errors import InputError


@dataclass(frozen=True)
class Gaussian:
    """Normal with deviation ``sigma`` (Cohen, Rosenfeld and Kolter 2019, arXiv:1902.02918)."""

    name: ClassVar[str] = "gaussian"
    sigma: float = 0.25

    def __post_init__(self) -> None:
        check_positive(self.name, "sigma", self.sigma)

    def sample(self, x: Tensor, n: int, generator: torch.Generator, out: Tensor | None = None) -> Tensor:
        """See :class:`Sampled`."""
        out = empty(x, n, out)
        # Drawn flat: torch draws one stream whatever the shape, several times faster than numpy's generators.
        return torch.add(x, out.normal_(generator=generator), alpha=self.sigma, out=out)

    def radius(self, p: float, norm: float, size: int | None = None) -> float:
        """``sigma`` times the normal quantile of p in l2, which is the best possible."""
        return certified(self.name, p, norm, size, {2: self._l2})

    def _l2(self, p: float) -> float:
        from scipy.special import ndtri

        return self.sigma * float(ndtri(p))

    def rms(self, size: int) -> float:
        """See :class:`Scaled`."""
        return self.sigma

    def mean_l1(self, size: int) -> float:
        """See :class:`Scaled`."""
        return self.sigma * sqrt(2 / pi)


@dataclass(frozen=True)
class Laplace:
    """Density falling as exp(-|x| / scale)."""

    name: ClassVar[str] = "laplace"
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_positive(self.name, "scale", self.scale)

    def sample(self, x: Tensor, n: int, generator: torch.Generator, out: Tensor | None = None) -> Tensor:
        """See :class:`Sampled`."""
        out = empty(x, n, out).exponential_(generator=generator)
        return torch.addcmul(x, out, signs(out, generator), value=self.scale, out=out)

    def radius(self, p: float, norm: float, size: int | None = None) -> float:
        """Direct in l1 and linf."""
        direct = {1.0: self._l1}
        if size is not None:
            direct[inf] = lambda p: self._linf(p, size)
        return certified(self.name, p, norm, size, direct)

    def _l1(self, p: float) -> float:
        return -self.scale * log(2 * (1 - p))

    def _linf(self, p: float, size: int) -> float:
        """A shift of all values gains at the rate S = 2 B - size, B binomial: dq / phi(q) is integrated piece by
        piece, since phi(q), the mean of S over its upper q-quantile, is piecewise linear."""
        import numpy as np
        from scipy.stats import binom

        ranks = np.arange(size, -1, -1)
        mass = np.concatenate([[0.0], binom.sf(ranks - 1, size, 0.5)])  # P(B >= rank)
        slope = 2.0 * ranks - size
        # phi at the upper end of each piece: sum of slope x width; by the identity rank P(B = rank) it has no error
        # that grows with the number of pieces.
        top = ranks * binom.pmf(ranks, size, 0.5)
        ends = np.concatenate([[0.0], top])
        low, high = np.clip(mass[:-1], 1 - p, 0.5), np.clip(mass[1:], 1 - p, 0.5)
        inside = high > low
        low, high, slope = low[inside], high[inside], slope[inside]
        start, left = ends[:-1][inside], mass[:-1][inside]
        at_low, width = start + slope * (low - left), high - low
        growth = slope * width / at_low
        share = np.where(np.abs(growth) < 1e-9, width / at_low, np.log1p(growth) / np.where(slope == 0, 1.0, slope))
        return self.scale * float(share.sum()) * (1 - 1e-9)

    def rms(self, size: int) -> float:
        """See :class:`Scaled`."""
        return sqrt(2) * self.scale

    def mean_l1(self, size: int) -> float:
        """See :class:`Scaled`."""
        return self.scale


@dataclass(frozen=True)
class Uniform:
    """Uniform from -scale to scale."""

    name: ClassVar[str] = "uniform"
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_positive(self.name, "scale", self.scale)

    def sample(self, x: Tensor, n: int, generator: torch.Generator, out: Tensor | None = None) -> Tensor:
        """See :class:`Sampled`."""
        out = empty(x, n, out).uniform_(-self.scale, self.scale, generator=generator)
        return torch.add(x, out, out=out)

    def radius(self, p: float, norm: float, size: int | None = None) -> float:
        """Direct in l1 and linf."""
        direct = {1.0: self._l1}
        if size is not None:
            direct[inf] = lambda p: -2 * self.scale * expm1(log1p(0.5 - p) / size)
        return certified(self.name, p, norm, size, direct)

    def _l1(self, p: float) -> float:
        return 2 * self.scale * (p - 0.5)

    def rms(self, size: int) -> float:
        """See :class:`Scaled`."""
        return self.scale / sqrt(3)

    def mean_l1(self, size: int) -> float:
        """See :class:`Scaled`."""
        return self.scale / 2


@dataclass(frozen=True)
class Pareto:
    """Two-sided Pareto (Lomax): density falling as (1 + |x| / scale)^(-a - 1)."""

    name: ClassVar[str] = "pareto"
    scale: float = 1.0
    a: float = 3.0

    def __post_init__(self) -> None:
        check_positive(self.name, "scale", self.scale)
        check_positive(self.name, "a", self.a)

    def sample(self, x: Tensor, n: int, generator: torch.Generator, out: Tensor | None = None) -> Tensor:
        """See :class:`Sampled`."""
        out = empty(x, n, out).exponential_(generator=generator).div_(self.a).expm1_()
        return torch.addcmul(x, out, signs(out, generator), value=self.scale, out=out)

    def radius(self, p: float, norm: float, size: int | None = None) -> float:
        """Direct in l1."""
        return certified(self.name, p, norm, size, {1: self._l1})

    def _l1(self, p: float) -> float:
        from scipy.special import hyp2f1

        u, b = 2 * p - 1, self.a / (self.a + 1)
        return self.scale * u / self.a * float(hyp2f1(1, b, 1 + b, u ** (1 + 1 / self.a)))

    def rms(self, size: int) -> float:
        """See :class:`Scaled`. Raises :class:`InputError` unless a > 2: the variance is infinite."""
        if self.a <= 2:
            raise InputError(f"pareto noise with a = {self.a:g} has no finite variance: take a > 2, or set the scale")
        return self.scale * sqrt(2 / ((self.a - 1) * (self.a - 2)))

    def mean_l1(self, size: int) -> float:
        """See :class:`Scaled`. Raises :class:`InputError` unless a > 1: the mean is infinite."""
        if self.a <= 1:
            raise InputError(f"pareto noise with a = {self.a:g} has no finite mean: take a > 1, or set the scale")
        return self.scale / (self.a - 1)


@dataclass(frozen=True)
class Expp:
    """Density falling as exp(-(|x| / scale)^power)."""

    name: ClassVar[str] = "expp"
    scale: float = 1.0
    power: float = 2.0

    def __post_init__(self) -> None:
        check_positive(self.name, "scale", self.scale)
        check_positive(self.name, "power", self.power)

    def sample(self, x: Tensor, n: int, generator: torch.Generator, out: Tensor | None = None) -> Tensor:
        """See :class:`Sampled`."""
        out = empty(x, n, out)
        drawn = numpy_generator(generator).standard_gamma(1 / self.power, tuple(out.shape))
        out.copy_(torch.from_numpy(drawn).pow_(1 / self.power))
        return torch.addcmul(x, out, signs(out, generator), value=self.scale, out=out)

    def radius(self, p: float, norm: float, size: int | None = None) -> float:
        """Direct in l1."""
        return certified(self.name, p, norm, size, {1: self._concave if self.power >= 1 else self._heavy})

    def _concave(self, p: float) -> float:
        """The density is log-concave: the worst set is a half-space."""
        from scipy.special import gammaincinv

        return self.scale * float(gammaincinv(1 / self.power, 2 * p - 1) ** (1 / self.power))

    def _heavy(self, p: float) -> float:
        """The worst set is a band from 0 on: with c from its probability, the integral of dt / (e^(t^power) - 1)
        from c, here in v = t^power, less the quadrature's estimate of its own error."""
        from scipy.integrate import quad
        from scipy.special import gammaincinv

        k = 1 / self.power
        start = float(gammaincinv(k, 2 * (1 - p)))

        def integrand(s: float) -> float:  # v = e^s: smooth for small v too
            v = exp(s)
            return k * exp(k * s) / expm1(v)

        top = log(max(start, 1.0) + 700)
        value, error = quad(integrand, log(start), top, epsabs=0, epsrel=1e-11, limit=200)
        return self.scale * max(0.0, float(value) - float(error))

    def rms(self, size: int) -> float:
        """See :class:`Scaled`."""
        return self.scale * sqrt(gamma(3 / self.power) / gamma(1 / self.power))

    def mean_l1(self, size: int) -> float:
        """See :class:`Scaled`."""
        return self.scale * gamma(2 / self.power) / gamma(1 / self.power)
