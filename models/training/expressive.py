"""Expressive losses, between adversarial training and intervals: MTL-IBP, CC-IBP and EXP-IBP (De Palma et al. 2024,
arXiv:2305.13991), and SABR (Mueller et al. 2023, arXiv:2210.04871), on Shi et al.'s fast schedule (arXiv:2103.17268).

Points are attacked and bounds computed in one network, with the statistics of the batch at the samples themselves: the
bounds hold for the points, so that a loss is never above the one of the worst case.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.models.training import ramp, warmup
from assay.models.training.certified import Boxes, Live, ball, worst_case
from assay.models.training.perturb import ascend
from assay.models.training.recipe import Step
from assay.verify.core.errors import InputError
from assay.verify.core.verifier import Bounds

SMALLEST = 1e-12  # of a loss whose logarithm is taken


@dataclass(frozen=True)
class Expressive:
    """What these recipes share: a schedule and an attack.

    The radius grows to ``eps`` between the shares ``begin`` and ``end`` of the training; until it is there,
    ``regularise`` times (1 - radius / eps) times Shi et al.'s regularisers is added. The attack takes ``steps`` steps,
    each ``rate`` times its radius / steps long.
    """

    name: ClassVar[str]
    eps: float = 0.1
    begin: float = 0.0
    end: float = 0.5
    regularise: float = 0.5
    steps: int = 1
    rate: float = 2.5

    def __post_init__(self) -> None:
        ramp.check(self.name, self.eps, 0.0, self.begin, self.end)
        if not (isfinite(self.regularise) and self.regularise >= 0):
            raise InputError(f"{self.name}: regularise must be a finite number >= 0, got {self.regularise}")
        if self.steps < 1 or not (isfinite(self.rate) and self.rate > 0):
            raise InputError(f"{self.name}: expected steps >= 1 and rate > 0, got {self.steps} and {self.rate}")

    def prepare(self, model: nn.Module, step: Step) -> None:
        """The initialisation of the fast schedule, for architectures with batch normalisation."""
        warmup.initialise(model, step.generator)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """The mixture at this moment, and the regularisers: x (batch x shape), y (batch)."""
        grown = ramp.smooth(step.progress, self.begin, self.end)
        loss, boxes = self.mixture(Live.read(model, x, y), x, self.eps * grown, step)
        if self.regularise and 0 < grown < 1:
            loss = loss + self.regularise * (1 - grown) * warmup.regulariser(boxes.network, boxes.bounds)
        return loss

    def mixture(self, live: Live, x: Tensor, eps: float, step: Step) -> tuple[Tensor, Boxes]:
        """The loss alone at the radius of this moment, and the intervals that it comes from."""
        raise NotImplementedError

    def attacked(self, live: Live, box: Bounds, radius: float, step: Step) -> Tensor:
        """Points of the boxes of this radius where the cross-entropy is large."""

        def objective(logits: Tensor) -> Tensor:
            return F.cross_entropy(logits, live.labels, reduction="sum")

        return ascend(live.network, objective, box, self.steps, self.rate * radius / self.steps, step.generator)


@dataclass(frozen=True)
class Mixed(Expressive):
    """Between the points that the attack finds and the worst case within intervals: ``alpha``, from 0 (adversarial
    training) to 1 (IBP), is the weight of the latter."""

    alpha: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha <= 1:
            raise InputError(f"{self.name}: expected 0 <= alpha <= 1, got {self.alpha}")

    def mixture(self, live: Live, x: Tensor, eps: float, step: Step) -> tuple[Tensor, Boxes]:
        """See :class:`Expressive`."""
        boxes = live.over(ball(x, eps, step.domain))
        logits = live.network(self.attacked(live, boxes.bounds[0], eps, step))
        at_point = logits.gather(1, live.labels[:, None]) - logits
        return self.between(at_point, boxes.margins(linear=False), live.labels), boxes

    def between(self, at_point: Tensor, proven: Tensor, labels: Tensor) -> Tensor:
        """The loss of margins, the label's logit minus each, at the points and proven: (batch x classes) each."""
        raise NotImplementedError


@dataclass(frozen=True)
class MTLIBP(Mixed):
    """A convex combination of the two losses."""

    name: ClassVar[str] = "mtl-ibp"

    def between(self, at_point: Tensor, proven: Tensor, labels: Tensor) -> Tensor:
        """(1 - alpha) loss at the points + alpha loss of the worst case."""
        return torch.lerp(worst_case(at_point, labels), worst_case(proven, labels), self.alpha)


@dataclass(frozen=True)
class CCIBP(Mixed):
    """The loss of a convex combination of the two margins."""

    name: ClassVar[str] = "cc-ibp"

    def between(self, at_point: Tensor, proven: Tensor, labels: Tensor) -> Tensor:
        """The loss of margins (1 - alpha) at the points + alpha proven."""
        return worst_case(torch.lerp(at_point, proven, self.alpha), labels)


@dataclass(frozen=True)
class EXPIBP(Mixed):
    """A convex combination of the logarithms of the two losses."""

    name: ClassVar[str] = "exp-ibp"

    def between(self, at_point: Tensor, proven: Tensor, labels: Tensor) -> Tensor:
        """The mean of (loss at the point) ** (1 - alpha) * (loss of the worst case) ** alpha."""
        found, worst = (
            F.cross_entropy(-margins, labels, reduction="none").clamp(min=SMALLEST).log()
            for margins in (at_point, proven)
        )
        return torch.lerp(found, worst, self.alpha).exp().mean()


@dataclass(frozen=True)
class SABR(Expressive):
    """The worst case within intervals over a small box, ``tau`` times as wide as the ball, about a point of the ball
    that the attack finds."""

    name: ClassVar[str] = "sabr"
    tau: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.tau <= 1:
            raise InputError(f"{self.name}: expected 0 <= tau <= 1, got {self.tau}")

    def mixture(self, live: Live, x: Tensor, eps: float, step: Step) -> tuple[Tensor, Boxes]:
        """See :class:`Expressive`."""
        boxes = self.small(live, x, eps, step)
        return worst_case(boxes.margins(linear=False), live.labels), boxes

    def small(self, live: Live, x: Tensor, eps: float, step: Step) -> Boxes:
        """Intervals over the small boxes: about x itself, with no attack, where they are the whole balls."""
        around = (1 - self.tau) * eps
        centre = self.attacked(live, ball(x, around, step.domain), around, step) if around else x
        return live.over(ball(centre, self.tau * eps, step.domain))
