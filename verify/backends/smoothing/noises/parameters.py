"""Noises of one parameter, which change all values of an image at once, for perturbations of that parameter.

Gamma, contrast and brightness resolve themselves: one after the other is one of the same kind, whose parameters (their
logarithms, but for brightness) add up. A vote under normal noise of the parameter is certified in it as Cohen's is in
l2 (TSS: Li et al. 2021, arXiv:2002.12398, theorem 1 and corollary 1). Nothing is cut to a domain under the noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log
from typing import ClassVar

import torch
from torch import Tensor

from assay.verify.backends.smoothing.noises.noise import check_positive, empty
from assay.verify.core.errors import InputError, unknown_name
from assay.verify.core.norms import PERTURBATION

# By name: how far a value of the parameter is from where nothing happens, and what one does to an image.
RESOLVED: dict[str, tuple[Callable[[float], float], Callable[[Tensor, Tensor], Tensor]]] = {
    "gamma": (log, lambda x, t: x.pow(t.exp())),
    "contrast": (log, lambda x, t: x * t.exp()),
    "brightness": (float, lambda x, t: x + t),
}


@dataclass(frozen=True)
class OfParameter:
    """A parameter moved by a normal number with deviation ``sigma``, or multiplied by the exponential of one."""

    kind: str
    sigma: float
    name: ClassVar[str] = "parameter"

    def __post_init__(self) -> None:
        if self.kind not in RESOLVED:
            raise unknown_name("noise of a parameter", self.kind, RESOLVED)
        check_positive(self.kind, "sigma", self.sigma)

    def sample(self, x: Tensor, n: int, generator: torch.Generator, out: Tensor | None = None) -> Tensor:
        """See :class:`Sampled`."""
        t = torch.empty((n, *[1] * x.dim()), dtype=x.dtype, device=x.device).normal_(
            std=self.sigma, generator=generator
        )
        return empty(x, n, out).copy_(RESOLVED[self.kind][1](x, t))

    def radius(self, p: float, norm: float, size: int | None = None) -> float:
        """``sigma`` times the normal quantile of p, in the parameter or its logarithm."""
        from scipy.special import ndtri

        if norm != PERTURBATION:
            raise InputError(f"{self.kind} noise certifies perturbations by {self.kind}, and no balls")
        if not 0 <= p < 1:
            raise InputError(f"expected a probability bound from samples, 0 <= p < 1, got {p}")
        return self.sigma * float(ndtri(p)) if p > 0.5 else 0.0

    def distance(self, low: float, high: float) -> float:
        """How far parameters between these ends lead, at most, in the same measure."""
        measure = RESOLVED[self.kind][0]
        return max(abs(measure(low)), abs(measure(high))) * (1 + 1e-12)
