"""Noises whose density depends on the l1 or the l2 norm alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import atanh, exp, lgamma, log, sqrt
from typing import ClassVar

import torch
from torch import Tensor

from assay.verify.backends.smoothing.noises import levels
from assay.verify.backends.smoothing.noises.directions import mean_on_sphere, on_cross, on_sphere
from assay.verify.backends.smoothing.noises.lengths import gamma_growth
from assay.verify.backends.smoothing.noises.noise import (
    certified,
    check_positive,
    column,
    empty,
    growth_integral,
    needed,
    numpy_generator,
)
from assay.verify.core.errors import InputError


@dataclass(frozen=True)
class Exp1:
    """Density proportional to exp(-(r / scale)^k), r the l1 norm; k = 1 is Laplace noise."""

    name: ClassVar[str] = "exp1"
    scale: float = 1.0
    k: float = 2.0

    def __post_init__(self) -> None:
        check_positive(self.name, "scale", self.scale)
        check_positive(self.name, "k", self.k)

    def sample(self, x: Tensor, n: int, generator: torch.Generator, out: Tensor | None = None) -> Tensor:
        """See :class:`Sampled`."""
        out = on_cross(empty(x, n, out), generator)
        length = numpy_generator(generator).standard_gamma(x.numel() / self.k, n) ** (1 / self.k)
        return torch.addcmul(x, out, column(length, x), value=self.scale, out=out)

    def radius(self, p: float, norm: float, size: int | None = None) -> float:
        """Direct in l1."""
        size = needed(size, self.name, norm)
        return certified(self.name, p, norm, size, {1: lambda p: self._l1(p, size)})

    def _l1(self, p: float, size: int) -> float:
        if self.k == 1:
            return -self.scale * log(2 * (1 - p))
        return self.scale * growth_integral(gamma_growth(size, self.k), p)

    def rms(self, size: int) -> float:
        """See :class:`Scaled`."""
        return sqrt(_gamma_moment(size / self.k, 2 / self.k) * 2 / (size * (size + 1))) * self.scale

    def mean_l1(self, size: int) -> float:
        """See :class:`Scaled`."""
        return _gamma_moment(size / self.k, 1 / self.k) / size * self.scale


@dataclass(frozen=True)
class Exp2:
    """Density proportional to r^-j exp(-(r / scale)^k), r the l2 norm; k = 2, j = 0 is Gaussian noise."""

    name: ClassVar[str] = "exp2"
    scale: float = 1.0
    k: float = 1.0
    j: float = 0.0

    def __post_init__(self) -> None:
        check_positive(self.name, "scale", self.scale)
        check_positive(self.name, "k", self.k)
        if self.j < 0:
            raise InputError(f"exp2: j must be at least 0, got {self.j}")

    def sample(self, x: Tensor, n: int, generator: torch.Generator, out: Tensor | None = None) -> Tensor:
        """See :class:`Sampled`."""
        out = on_sphere(empty(x, n, out), generator)
        length = numpy_generator(generator).standard_gamma(self.shape(x.numel()), n) ** (1 / self.k)
        return torch.addcmul(x, out, column(length, x), value=self.scale, out=out)

    def radius(self, p: float, norm: float, size: int | None = None) -> float:
        """Direct in l2."""
        size = needed(size, self.name, norm)
        return certified(self.name, p, norm, size, {2: lambda p: self._l2(p, size)})

    def _l2(self, p: float, size: int) -> float:
        from scipy.special import betaincinv, ndtri

        if self.j == 0 and self.k == 2:
            return self.scale * float(ndtri(p)) / sqrt(2)
        if self.j == 0 and self.k == 1 and size > 1:
            half = (size - 1) / 2
            return self.scale * (size - 1) * atanh(1 - 2 * float(betaincinv(half, half, 1 - p)))
        return self.scale * _exp2_radius(p, size, self.k, self.j)

    def shape(self, size: int) -> float:
        """Of the Gamma distribution of (r / scale)^k."""
        if size <= self.j:
            raise InputError(f"exp2 noise with j = {self.j:g} needs more than {self.j:g} values, got {size}")
        return (size - self.j) / self.k

    def rms(self, size: int) -> float:
        """See :class:`Scaled`."""
        return sqrt(_gamma_moment(self.shape(size), 2 / self.k) / size) * self.scale

    def mean_l1(self, size: int) -> float:
        """See :class:`Scaled`."""
        return _gamma_moment(self.shape(size), 1 / self.k) * mean_on_sphere(size) * self.scale


@dataclass(frozen=True)
class Pow2:
    """Density proportional to (1 + r / scale)^-(size + tail), r the l2 norm; r has moments below ``tail``."""

    name: ClassVar[str] = "pow2"
    scale: float = 1.0
    tail: float = 10.0

    def __post_init__(self) -> None:
        check_positive(self.name, "scale", self.scale)
        check_positive(self.name, "tail", self.tail)

    def sample(self, x: Tensor, n: int, generator: torch.Generator, out: Tensor | None = None) -> Tensor:
        """See :class:`Sampled`."""
        out = on_sphere(empty(x, n, out), generator)
        share = numpy_generator(generator)
        length = share.standard_gamma(x.numel(), n) / share.standard_gamma(self.tail, n)
        return torch.addcmul(x, out, column(length, x), value=self.scale, out=out)

    def radius(self, p: float, norm: float, size: int | None = None) -> float:
        """Direct in l2."""
        size = needed(size, self.name, norm)
        return certified(self.name, p, norm, size, {2: lambda p: self.scale * _pow2_radius(p, size, self.tail)})

    def rms(self, size: int) -> float:
        """See :class:`Scaled`. Raises :class:`InputError` unless tail > 2: the variance is infinite."""
        if self.tail <= 2:
            raise InputError(f"pow2 noise with tail = {self.tail:g} has no finite variance: set the scale")
        return self.scale * sqrt((size + 1) / ((self.tail - 1) * (self.tail - 2)))

    def mean_l1(self, size: int) -> float:
        """See :class:`Scaled`. Raises :class:`InputError` unless tail > 1: the mean is infinite."""
        if self.tail <= 1:
            raise InputError(f"pow2 noise with tail = {self.tail:g} has no finite mean: set the scale")
        return self.scale * size / (self.tail - 1) * mean_on_sphere(size)


@dataclass(frozen=True)
class UniformBall:
    """Uniform in the l2 ball of radius ``scale``."""

    name: ClassVar[str] = "uniform-ball"
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_positive(self.name, "scale", self.scale)

    def sample(self, x: Tensor, n: int, generator: torch.Generator, out: Tensor | None = None) -> Tensor:
        """See :class:`Sampled`."""
        out = on_sphere(empty(x, n, out), generator)
        length = numpy_generator(generator).random(n) ** (1 / x.numel())
        return torch.addcmul(x, out, column(length, x), value=self.scale, out=out)

    def radius(self, p: float, norm: float, size: int | None = None) -> float:
        """Direct in l2: what two balls at that distance have in common is 3/2 - p of each."""
        size = needed(size, self.name, norm)
        return certified(self.name, p, norm, size, {2: lambda p: self._l2(p, size)})

    def _l2(self, p: float, size: int) -> float:
        from scipy.special import betaincinv

        half = (size + 1) / 2
        return self.scale * (2 - 4 * float(betaincinv(half, half, 0.75 - p / 2)))

    def rms(self, size: int) -> float:
        """See :class:`Scaled`."""
        return self.scale / sqrt(size + 2)

    def mean_l1(self, size: int) -> float:
        """See :class:`Scaled`."""
        return self.scale * size / (size + 1) * mean_on_sphere(size)


@lru_cache(maxsize=4096)
def _exp2_radius(p: float, size: int, k: float, j: float) -> float:
    if size < levels.LEAST:
        return 0.0
    return levels.radius(levels.power_exponential(size, k, j), p, levels.typical_shift(size, k, j))


@lru_cache(maxsize=4096)
def _pow2_radius(p: float, size: int, tail: float) -> float:
    if size < levels.LEAST:
        return 0.0
    return levels.radius(levels.power_law(size, tail), p, sqrt(size) / tail)


def _gamma_moment(shape: float, power: float) -> float:
    return exp(lgamma(shape + power) - lgamma(shape))
