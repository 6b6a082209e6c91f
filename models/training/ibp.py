"""Interval bound propagation as training (Gowal et al. 2018, arXiv:1810.12715; Shi et al. 2021, arXiv:2103.17268)."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from assay.models.training import ramp, warmup
from assay.models.training.certified import Boxes, worst_case
from assay.models.training.recipe import Step
from assay.verify.core.errors import InputError


@dataclass(frozen=True)
class IBP:
    """kappa times clean cross-entropy and 1 - kappa times that of the worst case within intervals.

    The radius grows from 0 to ``eps`` between the shares ``begin`` and ``end`` of the training; the weight of clean
    samples falls from 1 to ``kappa`` with it. ``fast`` is the schedule of Shi et al., for architectures with batch
    normalisation: their initialisation, a smooth ramp, and ``regularise`` times (1 - radius / eps) times their
    regularisers; their kappa is 0 and constant.
    """

    name: ClassVar[str] = "ibp"
    eps: float = 0.1
    kappa: float = 0.5
    begin: float = 0.0
    end: float = 0.5
    fast: bool = False
    regularise: float = 0.5

    def __post_init__(self) -> None:
        ramp.check(self.name, self.eps, self.kappa, self.begin, self.end)
        if not (isfinite(self.regularise) and self.regularise >= 0):
            raise InputError(f"{self.name}: regularise must be a finite number >= 0, got {self.regularise}")

    def prepare(self, model: nn.Module, step: Step) -> None:
        """The initialisation of the fast schedule, or nothing."""
        if self.fast:
            warmup.initialise(model, step.generator)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """The mixture at this moment, and what the fast schedule adds: x (batch x shape), y (batch)."""
        grown = (ramp.smooth if self.fast else ramp.linear)(step.progress, self.begin, self.end)
        boxes = Boxes.around(model, x, y, self.eps * grown, step.domain)
        kappa = self.kappa if self.fast else 1 - grown * (1 - self.kappa)
        loss = (1 - kappa) * worst_case(boxes.margins(linear=False), y)
        if kappa:
            loss = loss + kappa * F.cross_entropy(boxes.logits, y)
        if self.fast and self.regularise and 0 < grown < 1:
            loss = loss + self.regularise * (1 - grown) * warmup.regulariser(boxes.network, boxes.bounds)
        return loss
