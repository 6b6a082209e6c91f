"""Consistency regularisation (Jeong and Shin 2020, arXiv:2006.04062): predictions that agree under noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from assay.models.training.noise import check_count, check_sigma, check_weight, gaussian_noise
from assay.models.training.recipe import Step


@dataclass(frozen=True)
class Consistency:
    """Gaussian augmentation, and penalties on predictions that differ between ``copies`` of a sample.

    ``agreement``: weight of the mean KL divergence of the copies' predictions from their mean; ``sharpness``: weight
    of the entropy of that mean.
    """

    name: ClassVar[str] = "consistency"
    sigma: float = 0.25
    copies: int = 2
    agreement: float = 10.0
    sharpness: float = 0.5

    def __post_init__(self) -> None:
        check_sigma(self.name, self.sigma)
        check_count(self.name, "copies", self.copies, 2)
        check_weight(self.name, "agreement", self.agreement)
        check_weight(self.name, "sharpness", self.sharpness)

    @property
    def eps(self) -> float:
        """None is trained for in linf."""
        return 0.0

    def prepare(self, model: nn.Module, step: Step) -> None:
        """Nothing: the initialisation stays."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """Cross-entropy + agreement * mean_i KL(mean || F_i) + sharpness * H(mean): x (batch x shape), y (batch)."""
        noisy = x + gaussian_noise(x, self.sigma, self.copies, step.generator)
        logits = model(noisy.flatten(0, 1))
        each = F.log_softmax(logits, 1).view(self.copies, len(x), -1)
        mean = each.exp().mean(0)
        log_mean = mean.clamp(min=1e-20).log()
        entropy = -(mean * log_mean).sum(1)
        divergence = (mean * (log_mean - each)).sum(2).mean(0)
        natural = F.cross_entropy(logits, y.repeat(self.copies))
        loss: Tensor = natural + (self.agreement * divergence + self.sharpness * entropy).mean()
        return loss
