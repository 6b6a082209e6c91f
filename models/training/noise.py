"""What the recipes for randomized smoothing share: noisy copies of a batch, and the checks of their options."""

from __future__ import annotations

from math import isfinite

import torch
from torch import Tensor

from assay.verify.core.errors import InputError


def gaussian_noise(x: Tensor, sigma: float, copies: int, generator: torch.Generator) -> Tensor:
    """Gaussian noise of deviation ``sigma`` for so many copies of x (batch x shape): (copies x batch x shape).

    Sums with it are not clipped to the domain, as those of the smoothed classifier are not.
    """
    return sigma * torch.randn((copies, *x.shape), generator=generator, dtype=x.dtype)


def check_sigma(recipe: str, sigma: float) -> None:
    """Refuse a deviation that is not a finite number above 0."""
    if not (isfinite(sigma) and sigma > 0):
        raise InputError(f"{recipe}: sigma must be a finite number > 0, got {sigma}")


def check_count(recipe: str, option: str, value: int, least: int) -> None:
    """Refuse a count below ``least``."""
    if value < least:
        raise InputError(f"{recipe}: {option} must be a whole number of at least {least}, got {value}")


def check_weight(recipe: str, option: str, value: float) -> None:
    """Refuse a weight or a radius that is not a finite number of at least 0."""
    if not (isfinite(value) and value >= 0):
        raise InputError(f"{recipe}: {option} must be a finite number >= 0, got {value}")
