"""Augmentation of images by small random shifts."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def shifted(x: Tensor, pixels: int, fill: float, generator: torch.Generator) -> Tensor:
    """Each image of x (batch x channels x height x width) moved by up to ``pixels`` both ways, ``fill`` moving in."""
    batch, channels, height, width = x.shape
    padded = F.pad(x, (pixels,) * 4, value=fill)
    down, right = torch.randint(0, 2 * pixels + 1, (2, batch, 1), generator=generator)
    rows, columns = down + torch.arange(height), right + torch.arange(width)
    return padded[
        torch.arange(batch)[:, None, None, None],
        torch.arange(channels)[:, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]
