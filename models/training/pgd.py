"""Adversarial training (Madry et al. 2018, arXiv:1706.06083): cross-entropy at the points that PGD finds."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from assay.models.training.perturb import perturb
from assay.models.training.recipe import Step
from assay.verify.core.errors import InputError


@dataclass(frozen=True)
class PGD:
    """``eps``: linf radius; ``steps``: of the inner attack, each ``rate`` times eps / steps long."""

    name: ClassVar[str] = "pgd"
    eps: float = 0.1
    steps: int = 10
    rate: float = 2.5

    def __post_init__(self) -> None:
        if not (isfinite(self.eps) and self.eps >= 0):
            raise InputError(f"pgd: eps must be a finite number >= 0, got {self.eps}")
        if self.steps < 1 or not (isfinite(self.rate) and self.rate > 0):
            raise InputError(f"pgd: expected steps >= 1 and rate > 0, got {self.steps} and {self.rate}")

    def prepare(self, model: nn.Module, step: Step) -> None:
        """Nothing: the initialisation stays."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """Cross-entropy at the perturbed samples alone: x (batch x shape), y (batch)."""

        def objective(logits: Tensor) -> Tensor:
            return F.cross_entropy(logits, y, reduction="sum")

        worst = perturb(model, x, objective, self.eps, self.steps, self.rate * self.eps / self.steps, step)
        return F.cross_entropy(model(worst), y)
