"""Layers of l_inf distances: networks that are 1-Lipschitz in linf by construction (Zhang et al. 2021,
arXiv:2102.05363): half the margin is a certified radius."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf, prod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.models.text import Sizes
from assay.verify.core.errors import InputError


class LinfDistance(nn.Module):
    """Unit j says how far x is from its own point: ``max_i |x_i - w_ji| + b_j``.

    In train mode the maximum is the l_p norm of the differences, ``p`` an attribute to be raised while training, since
    the maximum itself has gradients in one coordinate only; in eval mode it is the maximum, whatever ``p``.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        if inputs < 1 or outputs < 1:
            raise InputError(f"expected at least one input and one output, got {inputs} and {outputs}")
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.p = inf

    def forward(self, x: Tensor) -> Tensor:
        """x (batch x inputs) to (batch x outputs)."""
        outputs, inputs = self.weight.shape
        difference = x.unsqueeze(1).expand(-1, outputs, -1) - self.weight
        if self.training and self.p < inf:
            size = difference.abs()
            largest = size.detach().amax(2, keepdim=True).clamp(min=1e-12)  # whose powers would overflow
            shares: Tensor = (size / largest).pow(self.p).sum(2).pow(1 / self.p)
            return largest.squeeze(2) * shares + self.bias
        both = torch.cat([difference, -difference], 2)
        return F.max_pool1d(both, 2 * inputs).squeeze(2) + self.bias


class Opposite(nn.Module):
    """``-x``: the nearest point is the class."""

    def forward(self, x: Tensor) -> Tensor:
        """x to the same shape."""
        return -x


def linf_distance_net(input_shape: Sequence[int], classes: int, hidden: Sequence[int] = (32,)) -> nn.Sequential:
    """Layers of distances one after the other, logits the opposite of the last ones.

    >>> linf_distance_net((1, 2, 2), 3).eval()(torch.zeros(5, 1, 2, 2)).shape
    torch.Size([5, 3])
    """
    widths = [prod(input_shape), *hidden, classes]
    layers = [LinfDistance(before, after) for before, after in pairwise(widths)]
    return nn.Sequential(nn.Flatten(), *layers, Opposite())


@dataclass(frozen=True)
class LinfDistances:
    """:func:`linf_distance_net`, as an architecture."""

    name: ClassVar[str] = "linf-distance"
    hidden: Sizes = field(default=Sizes((32,)))

    def build(self, input_shape: Sequence[int], classes: int) -> nn.Module:
        """See :class:`assay.models.architectures.Architecture`."""
        return linf_distance_net(input_shape, classes, self.hidden)


def set_exponent(model: nn.Module, p: float) -> None:
    """The exponent of all layers of distances in ``model``, for training."""
    if not p >= 1:
        raise InputError(f"expected an exponent of at least 1, got {p}")
    for part in model.modules():
        if isinstance(part, LinfDistance):
            part.p = p
