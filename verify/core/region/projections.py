"""Steps projected onto norm balls about the origin."""

from __future__ import annotations

import torch
from torch import Tensor

from assay.verify.support.floats import length


def onto_l1(step: Tensor, radius: Tensor) -> Tensor:
    """Euclidean projection of each step (batch x shape) onto the l1 ball of ``radius`` (Duchi et al. 2008)."""
    flat = step.flatten(1)
    bound = radius.reshape(-1, 1).expand(len(flat), 1)
    magnitude, _ = flat.abs().sort(dim=1, descending=True)
    excess = magnitude.cumsum(1) - bound
    rank = torch.arange(1, flat.shape[1] + 1, device=flat.device)
    last = (magnitude * rank > excess).sum(1, keepdim=True).clamp(min=1)
    threshold = (excess.gather(1, last - 1) / last).clamp(min=0)
    shrunk = flat.sign() * (flat.abs() - threshold).clamp(min=0)
    inside = flat.abs().sum(1, keepdim=True) <= bound
    return torch.where(inside, flat, shrunk).view_as(step)


def onto_l2(step: Tensor, radius: Tensor) -> Tensor:
    """Euclidean projection of each step (batch x shape) onto the l2 ball of ``radius``, which broadcasts against it."""
    size = length(step.flatten(1), 2).view(-1, *[1] * (step.dim() - 1)).clamp(min=torch.finfo(step.dtype).tiny)
    shrunk: Tensor = step * (radius / size).clamp(max=1)
    return shrunk
