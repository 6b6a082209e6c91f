"""TRADES (Zhang et al. 2019, arXiv:1901.08573): clean cross-entropy, and how far the prediction moves nearby."""

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
class TRADES:
    """``eps``: linf radius; ``beta``: weight of robustness (1/lambda of the paper); the attack inside as in PGD."""

    name: ClassVar[str] = "trades"
    eps: float = 0.1
    beta: float = 6.0
    steps: int = 10
    rate: float = 2.5

    def __post_init__(self) -> None:
        if not (isfinite(self.eps) and self.eps >= 0):
            raise InputError(f"trades: eps must be a finite number >= 0, got {self.eps}")
        if not (isfinite(self.beta) and self.beta >= 0):
            raise InputError(f"trades: beta must be a finite number >= 0, got {self.beta}")
        if self.steps < 1 or not (isfinite(self.rate) and self.rate > 0):
            raise InputError(f"trades: expected steps >= 1 and rate > 0, got {self.steps} and {self.rate}")

    def prepare(self, model: nn.Module, step: Step) -> None:
        """Nothing: the initialisation stays."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """Cross-entropy at x + beta KL(prediction at x || prediction at the point nearby that makes it largest)."""
        logits = model(x)
        fixed = F.softmax(logits.detach(), dim=1)

        def divergence(nearby: Tensor) -> Tensor:
            return F.kl_div(F.log_softmax(nearby, dim=1), fixed, reduction="sum")

        worst = perturb(model, x, divergence, self.eps, self.steps, self.rate * self.eps / self.steps, step)
        moved = F.kl_div(F.log_softmax(model(worst), dim=1), F.softmax(logits, dim=1), reduction="batchmean")
        return F.cross_entropy(logits, y) + self.beta * moved
