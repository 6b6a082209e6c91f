"""Random directions on the unit spheres of the three norms, for noises that are a direction times a length."""

from __future__ import annotations

from math import exp, lgamma, pi, sqrt

import torch
from torch import Tensor

from assay.verify.backends.smoothing.noises.noise import signs


def on_cross(out: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform on the l1 sphere, written into ``out`` (n x shape)."""
    out.exponential_(generator=generator)
    out.mul_(signs(out, generator))
    return out.div_(_column(out.flatten(1).abs().sum(1), out))


def on_sphere(out: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform on the l2 sphere, written into ``out`` (n x shape)."""
    out.normal_(generator=generator)
    return out.div_(_column(out.flatten(1).norm(dim=1), out))


def on_cube(out: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform on the surface of the linf ball, written into ``out`` (n x shape)."""
    out.uniform_(-1, 1, generator=generator)
    flat = out.view(len(out), -1)
    face = torch.randint(flat.shape[1], (len(out), 1), generator=generator, device=out.device)
    flat.scatter_(1, face, signs(flat[:, :1], generator))
    return out


def mean_on_sphere(size: int) -> float:
    """Mean absolute value of one coordinate on the l2 sphere."""
    return exp(lgamma(size / 2) - lgamma((size + 1) / 2)) / sqrt(pi)


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))
