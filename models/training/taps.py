"""TAPS and STAPS (Mao et al. 2023, arXiv:2305.04574): intervals through the first layers, an attack within them through
the last ones."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import ClassVar

import torch
from torch import Tensor

from assay.models.training.certified import Boxes, Live, differences, worst_case
from assay.models.training.expressive import SABR
from assay.models.training.perturb import ascend
from assay.models.training.recipe import Step
from assay.verify.bounds.relaxations.relax import relaxes
from assay.verify.core.errors import InputError
from assay.verify.core.network import Network
from assay.verify.core.ops import evaluate
from assay.verify.core.verifier import Bounds

REACH = 0.5  # share of a box's width within which a side of it moves the point: c of the paper's connector


@dataclass(frozen=True)
class TAPS(SABR):
    """The product of the loss of intervals and of an attack's in the boxes before the last ``tail`` activations; in its
    gradient the latter weighs ``weight`` times as much. Each class has a point of its own there."""

    name: ClassVar[str] = "taps"
    tau: float = 1.0
    tail: int = 1
    weight: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tail < 1 or not (isfinite(self.weight) and self.weight >= 0):
            raise InputError(f"{self.name}: expected tail >= 1 and weight >= 0, got {self.tail} and {self.weight}")

    def mixture(self, live: Live, x: Tensor, eps: float, step: Step) -> tuple[Tensor, Boxes]:
        """See :class:`Expressive`."""
        boxes = self.small(live, x, eps, step)
        by_intervals = worst_case(boxes.margins(linear=False), live.labels)
        by_points = worst_case(self.found(boxes, step), live.labels)
        share = 2 * self.weight / (1 + self.weight)
        return share * by_points * by_intervals.detach() + (2 - share) * by_intervals * by_points.detach(), boxes

    def found(self, boxes: Boxes, step: Step) -> Tensor:
        """The least margin over each class that the attack finds within the boxes: (batch x classes)."""
        network, position = boxes.network, cut(boxes.network, self.tail)
        rows = differences(boxes.labels, boxes.logits)
        batch, classes = boxes.logits.shape
        box = boxes.bounds[position]
        lower, upper = (side.repeat_interleave(classes, 0) for side in (box.lower, box.upper))

        def margins(at: Tensor) -> Tensor:
            logits = after(network, position, at).view(batch, classes, classes)
            return (rows * logits).sum(2)

        low, wide = lower.detach(), (upper - lower).detach()
        unit = Bounds(torch.zeros_like(low), torch.ones_like(low))
        share = ascend(
            lambda share: margins(low + share * wide),
            lambda found: -found.sum(),
            unit,
            self.steps,
            self.rate / 2 / self.steps,  # half of its width is the radius of a box
            step.generator,
        )
        return margins(connected(lower, upper, share))


@dataclass(frozen=True)
class STAPS(TAPS):
    """TAPS over the small boxes of SABR."""

    name: ClassVar[str] = "staps"
    tau: float = 0.5


def connected(lower: Tensor, upper: Tensor, share: Tensor) -> Tensor:
    """The points at these shares of the way from lower to upper, all (batch x shape), with the gradient of the paper's
    connector: a side moves the points on it by as much as itself, and those that are further than ``REACH`` not at all.
    """
    of_lower, of_upper = (1 - share / REACH).clamp(min=0), (1 - (1 - share) / REACH).clamp(min=0)
    moved = of_lower * lower + of_upper * upper
    return moved + (lower + share * (upper - lower) - moved).detach()


def cut(network: Network, tail: int) -> int:
    """The position of the operand of the last activation but ``tail`` - 1. Raises :class:`InputError` where there are
    fewer, or what follows needs more than it."""
    activations = [node for node in network.nodes if relaxes(node.op)]
    if len(activations) < tail:
        raise InputError(f"the network has {len(activations)} activations, and its tail should have {tail}")
    position = activations[-tail].inputs[0]
    if any(i < position for node in network.nodes[position + 1 :] for i in node.inputs):
        raise InputError(f"what follows the last {tail} activations does not depend on their operand alone")
    return position


def after(network: Network, position: int, value: Tensor) -> Tensor:
    """The output where the node at ``position`` has this value (batch x shape of the node)."""
    values = {position: value}
    for i, node in enumerate(network.nodes[position + 1 :], position + 1):
        values[i] = evaluate(node.op, *(values[j] for j in node.inputs))
    return values[len(network.nodes) - 1]
