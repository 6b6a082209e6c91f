"""Noises that erase pixels, for perturbations of few pixels (l0)."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log, log1p
from typing import ClassVar

import torch
from torch import Tensor

from assay.verify.backends.smoothing.noises.noise import empty, needed
from assay.verify.core.errors import InputError


@dataclass(frozen=True)
class Masking:
    """Each pixel is kept with probability ``keep``, otherwise its channels are all set to ``fill``.

    The radius is the largest NUMBER of changed pixels (positions, not channels) that is certified, inclusive: R
    changed pixels are seen with probability 1 - (1 - keep)^R, so that p less this must stay above 1/2.
    """

    name: ClassVar[str] = "masking"
    keep: float = 0.05
    fill: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.keep < 1:
            raise InputError(f"masking: keep must be a probability between 0 and 1, got {self.keep}")

    def sample(self, x: Tensor, n: int, generator: torch.Generator, out: Tensor | None = None) -> Tensor:
        """See :class:`Sampled`. The last two axes of x are its pixels; all of them where it has fewer than three."""
        out = empty(x, n, out)
        kept = torch.empty((n, *pixels(x)), dtype=x.dtype, device=x.device).bernoulli_(self.keep, generator=generator)
        return erased(x, kept.bool(), self.fill, out)

    def radius(self, p: float, norm: float, size: int | None = None) -> float:
        """In l0, whatever the number of pixels."""
        if not _certifies(self.name, p, norm):
            return 0.0
        count = max(0, floor(log1p(0.5 - p) / log1p(-self.keep)))
        # The last step in exact comparison: strictly above 1/2, and by more than rounding.
        while count and p + (1 - self.keep) ** count - 1.5 <= 1e-12:
            count -= 1
        return float(count)


@dataclass(frozen=True)
class Ablation:
    """Exactly ``kept`` pixels are kept (Levine and Feizi 2020, arXiv:1911.09272), the others set to ``fill``.

    The radius is the largest NUMBER of changed pixels (positions, not channels) that is certified, inclusive.
    """

    name: ClassVar[str] = "ablation"
    kept: int = 45
    fill: float = 0.0

    def __post_init__(self) -> None:
        if self.kept < 1:
            raise InputError(f"ablation: kept must be a whole number of at least 1, got {self.kept}")

    def sample(self, x: Tensor, n: int, generator: torch.Generator, out: Tensor | None = None) -> Tensor:
        """See :class:`Sampled`. The last two axes of x are its pixels; all of them where it has fewer than three."""
        out = empty(x, n, out)
        shape = pixels(x)
        order = torch.rand((n, shape.numel()), generator=generator, dtype=torch.float64, device=x.device)
        chosen = order.topk(min(self.kept, shape.numel()), dim=1).indices
        kept = torch.zeros(order.shape, dtype=torch.bool, device=x.device).scatter_(1, chosen, True)
        return erased(x, kept.view(n, *shape), self.fill, out)

    def radius(self, p: float, norm: float, size: int | None = None) -> float:
        """In l0; ``size``: number of PIXELS."""
        size = needed(size, self.name, norm)
        if not _certifies(self.name, p, norm):
            return 0.0
        # R changed pixels escape with probability C(size - R, kept) / C(size, kept), a product of R factors.
        needed_log, escape, count = log(1.5 - p) + 1e-12, 0.0, 0
        while count + self.kept < size:
            escape += log1p(-self.kept / (size - count))
            if escape <= needed_log:
                break
            count += 1
        return float(count)


def pixels(x: Tensor) -> torch.Size:
    """The axes of a sample x (shape) that count its positions: the last two of three or more, else all."""
    return x.shape[-2:] if x.dim() > 2 else x.shape


def erased(x: Tensor, kept: Tensor, fill: float, out: Tensor) -> Tensor:
    """x where its pixels are ``kept`` (n x pixels), else ``fill``; into ``out`` (n x shape)."""
    shape = [len(kept), *[1] * (x.dim() - kept.dim() + 1), *kept.shape[1:]]
    return torch.where(kept.view(shape), x, torch.tensor(fill, dtype=x.dtype, device=x.device), out=out)


def _certifies(noise: str, p: float, norm: float) -> bool:
    if norm != 0:
        raise InputError(f"{noise} noise certifies numbers of pixels, the norm 0, got {norm}")
    if not 0 <= p < 1:
        raise InputError(f"expected a probability bound from samples, 0 <= p < 1, got {p}")
    return p > 0.5
