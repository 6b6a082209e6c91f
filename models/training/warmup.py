"""Fast certified training (Shi et al. 2021, arXiv:2103.17268): its initialisation and its two warm-up regularisers.

Both keep interval bounds from exploding while the radius is still small; the third part of that recipe, batch
normalisation before every activation, is an option of the architectures.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import pi, sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.verify.bounds.relaxations.relax import relaxes
from assay.verify.core.network import Network
from assay.verify.core.verifier import Bounds

TAU = 0.5


@torch.no_grad()
def initialise(model: nn.Module, generator: torch.Generator) -> None:
    """Weights of linear and convolutional layers from N(0, 2 pi / n^2), n their fan-in; biases 0.

    Interval widths then neither grow nor shrink from layer to layer (section 3.1); values shrink, which batch
    normalisation makes good.
    """
    for part in model.modules():
        if isinstance(part, (nn.Linear, nn.Conv2d)):
            fan_in = part.weight[0].numel()
            part.weight.normal_(0, sqrt(2 * pi) / fan_in, generator=generator)
            if part.bias is not None:
                part.bias.zero_()


def regulariser(network: Network, bounds: Sequence[Bounds]) -> Tensor:
    """Tightness plus balance of activations (section 3.3), each a mean over the activations: at least 0.

    ``bounds``: of every node, (batch x shape). Tightness asks that bounds before an activation be at most 1/tau
    times as wide as the input; balance that active and inactive neurons have alike means and variances.
    """
    widths, parts = _half_width(bounds[0]).mean(), []
    for node in network.nodes:
        if relaxes(node.op):
            z = bounds[node.inputs[0]]
            tightness = F.relu(TAU - widths / _half_width(z).mean().clamp(min=1e-12)) / TAU
            parts.append(tightness + _imbalance(z))
    return torch.stack(parts).mean() if parts else widths.new_zeros(())


def _imbalance(z: Bounds) -> Tensor:
    """How far the ratios of active to inactive neurons, in mean and variance of the centres, are from [tau, 1/tau]."""
    centre = (z.lower + z.upper) / 2
    active, inactive = (z.lower > 0).to(centre), (z.upper < 0).to(centre)
    if not bool(active.any()) or not bool(inactive.any()):
        return centre.new_zeros(())  # as published: no ratio, no loss
    spread = (centre - centre.mean()) ** 2
    pairs = [
        ((centre * active).mean(), -(centre * inactive).mean()),
        ((spread * active).sum(), (spread * inactive).sum()),
    ]
    total = centre.new_zeros(())
    for a, b in pairs:
        ratio = a / b.clamp(min=1e-12)
        total = total + F.relu(TAU - torch.minimum(ratio, 1 / ratio.clamp(min=1e-12))) / TAU
    return total


def _half_width(box: Bounds) -> Tensor:
    return (box.upper - box.lower) / 2
