"""Noises whose density depends on the largest absolute value alone: their level sets are cubes."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, lgamma, log, sqrt
from typing import ClassVar

import torch
from torch import Tensor

from assay.verify.backends.smoothing.noises.directions import on_cube
from assay.verify.backends.smoothing.noises.lengths import gamma_growth
from assay.verify.backends.smoothing.noises.noise import (
    Radius,
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
class ExpInf:
    """Density proportional to r^-j exp(-(r / scale)^k), r the largest absolute value."""

    name: ClassVar[str] = "expinf"
    scale: float = 1.0
    k: float = 1.0
    j: float = 0.0

    def __post_init__(self) -> None:
        check_positive(self.name, "scale", self.scale)
        check_positive(self.name, "k", self.k)
        if not (self.j >= 0 and self.j < inf):
            raise InputError(f"expinf: j must be a finite number >= 0, got {self.j}")

    def sample(self, x: Tensor, n: int, generator: torch.Generator, out: Tensor | None = None) -> Tensor:
        """See :class:`Sampled`."""
        out = on_cube(empty(x, n, out), generator)
        length = numpy_generator(generator).standard_gamma(self._shape(x.numel()), n) ** (1 / self.k)
        return torch.addcmul(x, out, column(length, x), value=self.scale, out=out)

    def radius(self, p: float, norm: float, size: int | None = None) -> float:
        """Direct in l1, and in linf where j = 0."""
        size = needed(size, self.name, norm)
        direct: dict[float, Radius] = {1: lambda p: self._l1(p, size)}
        if self.j == 0:
            direct[inf] = lambda p: self._linf(p, size)
        return certified(self.name, p, norm, size, direct)

    def _l1(self, p: float, size: int) -> float:
        """A shift along an axis gains only where that value is the largest: at a rate that is constant in q down to
        q = 1 / (2 size), and smaller below, which is left out."""
        if size < self.j + 2:
            return 0.0  # the rate is infinite, or there is but one value
        moment = exp(lgamma(self._shape(size)) - lgamma((size - self.j - 1) / self.k))
        return self.scale * 2 * size / (size - 1) * moment * (p - 0.5)

    def _linf(self, p: float, size: int) -> float:
        if self.k == 1:
            return self.scale * log(0.5 / (1 - p))
        return self.scale * growth_integral(gamma_growth(size, self.k), p)

    def _shape(self, size: int) -> float:
        if size <= self.j:
            raise InputError(f"expinf noise with j = {self.j:g} needs more than {self.j:g} values, got {size}")
        return (size - self.j) / self.k

    def rms(self, size: int) -> float:
        """See :class:`Scaled`."""
        return sqrt(self._moment(size, 2) * (size + 2) / (3 * size))

    def mean_l1(self, size: int) -> float:
        """See :class:`Scaled`."""
        return self._moment(size, 1) * (size + 1) / (2 * size)

    def _moment(self, size: int, power: int) -> float:
        shape = self._shape(size)
        return self.scale**power * exp(lgamma(shape + power / self.k) - lgamma(shape))


@dataclass(frozen=True)
class PowInf:
    """Density proportional to (1 + r / scale)^-(size + tail), r the largest absolute value; r has moments below
    ``tail``. (In the source: a = size + tail.)"""

    name: ClassVar[str] = "powinf"
    scale: float = 1.0
    tail: float = 10.0

    def __post_init__(self) -> None:
        check_positive(self.name, "scale", self.scale)
        check_positive(self.name, "tail", self.tail)

    def sample(self, x: Tensor, n: int, generator: torch.Generator, out: Tensor | None = None) -> Tensor:
        """See :class:`Sampled`."""
        out = on_cube(empty(x, n, out), generator)
        share = numpy_generator(generator)
        length = share.standard_gamma(x.numel(), n) / share.standard_gamma(self.tail, n)
        return torch.addcmul(x, out, column(length, x), value=self.scale, out=out)

    def radius(self, p: float, norm: float, size: int | None = None) -> float:
        """Direct in l1 and linf."""
        size = needed(size, self.name, norm)
        direct: dict[float, Radius] = {
            1: lambda p: self.scale * 2 * size / self.tail * (p - 0.5),
            inf: lambda p: self._linf(p, size),
        }
        return certified(self.name, p, norm, size, direct)

    def _linf(self, p: float, size: int) -> float:
        """r / (1 + r) is Beta(size, tail), and the rate (size + tail) / (1 + r) falls with r."""
        from scipy.special import betainc, betaincinv

        def phi(q: float) -> float:
            return self.tail / 2 * float(betainc(size, self.tail + 1, betaincinv(size, self.tail, 2 * q)))

        return self.scale * growth_integral(phi, p)

    def rms(self, size: int) -> float:
        """See :class:`Scaled`. Raises :class:`InputError` unless tail > 2: the variance is infinite."""
        self._check_moment(2)
        square = size * (size + 1) / ((self.tail - 1) * (self.tail - 2))
        return self.scale * sqrt(square * (size + 2) / (3 * size))

    def mean_l1(self, size: int) -> float:
        """See :class:`Scaled`. Raises :class:`InputError` unless tail > 1: the mean is infinite."""
        self._check_moment(1)
        return self.scale * size / (self.tail - 1) * (size + 1) / (2 * size)

    def _check_moment(self, power: int) -> None:
        if self.tail <= power:
            raise InputError(f"powinf noise with tail = {self.tail:g} has no finite moment {power}: set the scale")
