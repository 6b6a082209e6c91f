"""CROWN-IBP (Zhang et al. 2020, arXiv:1906.06316): margins by linear bounds over intervals, giving way to intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.models.training import ramp
from assay.models.training.certified import Boxes, worst_case
from assay.models.training.recipe import Step
from assay.verify.core.errors import InputError


@dataclass(frozen=True)
class CrownIBP:
    """As IBP, of margins beta times those of linear bounds and 1 - beta times those of intervals.

    The radius grows from 0 to ``eps`` between the shares ``begin`` and ``end`` of the training; with it the weight
    of clean samples falls from 1 to ``kappa``, and beta from 1 to ``beta``. Linear bounds start tighter, intervals
    regularise more strongly at the end and cost less.
    """

    name: ClassVar[str] = "crown-ibp"
    eps: float = 0.1
    kappa: float = 0.5
    beta: float = 0.0
    begin: float = 0.0
    end: float = 0.5

    def __post_init__(self) -> None:
        ramp.check(self.name, self.eps, self.kappa, self.begin, self.end)
        if not 0 <= self.beta <= 1:
            raise InputError(f"{self.name}: expected 0 <= beta <= 1, got {self.beta}")

    def prepare(self, model: nn.Module, step: Step) -> None:
        """Nothing: the initialisation stays."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """The mixture at this moment: x (batch x shape), y (batch)."""
        grown = ramp.linear(step.progress, self.begin, self.end)
        boxes = Boxes.around(model, x, y, self.eps * grown, step.domain)
        kappa, beta = 1 - grown * (1 - self.kappa), 1 - grown * (1 - self.beta)
        margins = boxes.margins(linear=beta > 0)
        if 0 < beta < 1:
            margins = torch.lerp(boxes.margins(linear=False), margins, beta)
        return kappa * F.cross_entropy(boxes.logits, y) + (1 - kappa) * worst_case(margins, y)
