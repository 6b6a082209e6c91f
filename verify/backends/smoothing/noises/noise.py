"""What a noise is, and what all of them share: the rule of p, the conversion between norms, the choice of scale.

The radii are those of Yang et al. 2020 (arXiv:2002.08118) unless a class names another source. ``p`` is a LOWER
bound of the probability of the majority's class under the noise; a radius holds for every perturbation that is
shorter than it (strictly), in real arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from math import exp, inf, isfinite, log
from typing import ClassVar, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from assay.verify.core.errors import InputError


class Sampled(Protocol):
    """A distribution of noise. Its parameters are the fields of a frozen dataclass, in the units of the input."""

    name: ClassVar[str]

    def __hash__(self) -> int:
        """Of the parameters."""
        ...

    def sample(self, x: Tensor, n: int, generator: torch.Generator, out: Tensor | None = None) -> Tensor:
        """n noisy copies of the sample x (shape): (n x shape), written into ``out`` where it is given."""
        ...


class Noise(Sampled, Protocol):
    """A noise that certifies."""

    def radius(self, p: float, norm: float, size: int | None = None) -> float:
        """The certified radius in the norm 0, 1, 2 or inf; 0 (abstain) unless p > 1/2.

        ``size``: number of the input's values; needed where the radius depends on it. Raises :class:`InputError`
        unless 0 <= p < 1: no number of samples proves a probability of 1; and for norms that are not covered.
        """
        ...


class Scaled(Noise, Protocol):
    """A noise that is a multiple of a standard one; its first field is the multiple."""

    def rms(self, size: int) -> float:
        """Root of the mean square of one value of the noise, for inputs of ``size`` values."""
        ...

    def mean_l1(self, size: int) -> float:
        """Mean absolute value of one value of the noise: E ||noise||_1 / size."""
        ...


S = TypeVar("S", bound=Scaled)
Radius = Callable[[float], float]


def with_rms(noise: S, sigma: float, size: int) -> S:
    """``noise`` with the scale at which each value has the root mean square ``sigma``."""
    return _rescaled(noise, sigma / noise.rms(size))


def with_mean_l1(noise: S, mean: float, size: int) -> S:
    """``noise`` with the scale at which ``E ||noise||_1 / size`` is ``mean``."""
    return _rescaled(noise, mean / noise.mean_l1(size))


def _rescaled(noise: S, factor: float) -> S:
    scale = fields(noise)[0].name  # type: ignore[arg-type]
    return replace(noise, **{scale: getattr(noise, scale) * factor})  # type: ignore[type-var]


def check_positive(noise: str, name: str, value: float, least: float = 0.0) -> None:
    """Refuse a parameter that is not a finite number above ``least``."""
    if not (isfinite(value) and value > least):
        raise InputError(f"{noise}: {name} must be a finite number > {least:g}, got {value}")


def needed(size: int | None, noise: str, norm: float) -> int:
    """``size``, which the radius depends on."""
    if size is None:
        raise InputError(f"the radius of {noise} noise in l{norm:g} depends on the input's size: pass size")
    return size


def certified(noise: str, p: float, norm: float, size: int | None, direct: Mapping[float, Radius]) -> float:
    """The largest radius in ``norm`` that follows from one of the ``direct`` norms' radii at p; 0 unless p > 1/2.

    ``||x||_b <= ||x||_a <= size^(1/a - 1/b) ||x||_b`` for a <= b.
    """
    if not 0 <= p < 1:
        raise InputError(f"expected a probability bound from samples, 0 <= p < 1, got {p}")
    if not any(norm == known for known in (1, 2, inf)):
        raise InputError(f"{noise} noise certifies the norms 1, 2 and inf, got {norm}")
    if p <= 0.5:
        return 0.0
    radii = [converted(at(p), noise, own, norm, size) for own, at in direct.items()]
    return max(0.0, *radii)


def converted(radius: float, noise: str, own: float, norm: float, size: int | None) -> float:
    """What a ``radius`` in the norm ``own`` is worth in ``norm``: the largest ball of that norm inside of its ball."""
    if norm <= own:
        return radius
    share: float = float(needed(size, noise, norm)) ** (1 / norm - 1 / own)
    return radius * share


def growth_integral(phi: Radius, p: float) -> float:
    """Integral of dq / phi(q) over q from 1 - p to 1/2, less the quadrature's estimate of its own error.

    ``phi(q)``: the fastest rate at which a set of probability q gains by a unit shift. In q = e^s, where the
    integrand is smooth down to the smallest q.
    """
    from scipy.integrate import quad

    value, error = quad(lambda s: exp(s) / phi(exp(s)), log(1 - p), log(0.5), epsabs=0, epsrel=1e-11, limit=200)
    return max(0.0, float(value) - float(error))


def empty(x: Tensor, n: int, out: Tensor | None) -> Tensor:
    """The buffer (n x shape) for n noisy copies of x (shape); ``out`` itself where it is given."""
    return torch.empty((n, *x.shape), dtype=x.dtype, device=x.device) if out is None else out


def signs(like: Tensor, generator: torch.Generator) -> Tensor:
    """-1 or 1, each half of the time, in the shape of ``like``."""
    return torch.empty_like(like).bernoulli_(0.5, generator=generator).mul_(2).sub_(1)


def numpy_generator(generator: torch.Generator) -> np.random.Generator:
    """A numpy generator, for what torch cannot draw, seeded by the next number of ``generator``."""
    seed = torch.randint(2**63 - 1, (1,), generator=generator, device=generator.device)
    return np.random.Generator(np.random.SFC64(int(seed)))


def column(values: np.ndarray, x: Tensor) -> Tensor:
    """One number for each noisy copy, shaped so that it multiplies (n x shape of x)."""
    return torch.as_tensor(values).to(x).view(-1, *[1] * x.dim())
