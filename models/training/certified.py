"""What training for certificates shares: margins over the box around each sample, and their worst-case loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.verify.bounds.backward.rows import Backward
from assay.verify.bounds.interval import propagate_box
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.core.network import Network
from assay.verify.core.verifier import Bounds
from assay.verify.frontends.live import read_live


@dataclass(frozen=True, eq=False)
class Live:
    """A batch in training: the network with live weights, its logits at the samples, and their labels."""

    network: Network
    logits: Tensor
    labels: Tensor

    @classmethod
    def read(cls, model: nn.Module, x: Tensor, y: Tensor) -> Live:
        """Run the model at x (batch x shape); y (batch): the labels."""
        return cls(*read_live(model, x), y)

    def over(self, box: Bounds) -> Boxes:
        """Intervals over one box for each sample."""
        return Boxes(self.network, self.logits, propagate_box(self.network, box), self.labels)


@dataclass(frozen=True, eq=False)
class Boxes:
    """A batch in training, and interval bounds of every node over a box for each of its samples."""

    network: Network
    logits: Tensor
    bounds: list[Bounds]
    labels: Tensor

    @classmethod
    def around(cls, model: nn.Module, x: Tensor, y: Tensor, eps: float, domain: tuple[float, float]) -> Boxes:
        """Run the model at x (batch x shape), and intervals over the linf balls of radius eps around it, clipped to
        the domain; y (batch): the labels."""
        return Live.read(model, x, y).over(ball(x, eps, domain))

    def margins(self, linear: bool) -> Tensor:
        """Lower bounds of label's logit minus each logit: (batch x classes), 0 at the label; by intervals with the
        last layer merged, or by linear bounds over the intervals."""
        relaxed = Relaxed.over(self.network, self.bounds)
        backward = Backward.of(relaxed, differences(self.labels, self.logits))
        return backward.over_region() if linear else backward.to_activations().over_intervals()


def ball(x: Tensor, eps: float, domain: tuple[float, float]) -> Bounds:
    """The box of linf radius eps around x (batch x shape), clipped to the domain."""
    low, high = domain
    return Bounds((x - eps).clamp(min=low), (x + eps).clamp(max=high))


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
