"""Weights of fewer bits: what is stored takes half of the room, and is what is measured and certified."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from assay.verify.core.errors import InputError

Precision = Literal["float32", "float16"]


@torch.no_grad()
def round_weights(model: nn.Module, precision: Precision) -> None:
    """Round matrices and kernels in place to the nearest values of that precision, which they hold as what they were.

    Biases, scalings and statistics, of which there are few, stay. Raises :class:`InputError` for weights that are
    beyond its range.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> _ = layer.weight.data.fill_(0.1)
    >>> round_weights(layer, "float16")
    >>> layer.weight.item()
    0.0999755859375
    """
    kept: torch.dtype = getattr(torch, precision)
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            rounded = weight.to(kept).to(weight.dtype)
            if bool((rounded.isfinite() != weight.isfinite()).any()):
                raise InputError(f"{name} has weights of up to {weight.abs().max():g}, more than {precision} holds")
            weight.copy_(rounded)
