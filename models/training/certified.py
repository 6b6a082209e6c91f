"""What training for certificates shares: margins over the box around each sample, and their worst-case loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.verify.bounds.interval import propagate_box
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.bounds.rows import Backward
from assay.verify.core.network import Network
from assay.verify.core.verifier import Bounds
from assay.verify.frontends.live import read_live


@dataclass(frozen=True, eq=False)
class Boxes:
    """A batch in training: the network with live weights, its logits at the samples, and interval bounds of every
    node over the boxes of linf radius eps around them, clipped to the domain."""

    network: Network
    logits: Tensor
    bounds: list[Bounds]
    labels: Tensor

    @classmethod
    def around(cls, model: nn.Module, x: Tensor, y: Tensor, eps: float, domain: tuple[float, float]) -> Boxes:
        """Run the model at x (batch x shape), and intervals around it; y (batch): the labels."""
        network, logits = read_live(model, x)
        low, high = domain
        box = Bounds((x - eps).clamp(min=low), (x + eps).clamp(max=high))
        return cls(network, logits, propagate_box(network, box), y)

    def margins(self, linear: bool) -> Tensor:
        """Lower bounds of label's logit minus each logit: (batch x classes), 0 at the label; by intervals with the
        last layer merged, or by linear bounds over the intervals."""
        relaxed = Relaxed.over(self.network, self.bounds)
        backward = Backward.of(relaxed, differences(self.labels, self.logits))
        return backward.over_region() if linear else backward.to_activations().over_intervals()


def differences(labels: Tensor, like: Tensor) -> Tensor:
    """The objective label minus each class: (batch x classes x classes), in the dtype of ``like`` (batch x classes).

    >>> differences(torch.tensor([1]), torch.zeros(1, 2)).tolist()
    [[[-1.0, 1.0], [0.0, 0.0]]]
    """
    classes = like.shape[1]
    own = F.one_hot(labels, classes).to(like)
    return own[:, None] - torch.eye(classes, dtype=like.dtype, device=like.device)


def worst_case(margins: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the logits that fit the bounds and fit the label least: minus the margins (batch x classes)."""
    return F.cross_entropy(-margins, labels)
