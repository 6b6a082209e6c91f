"""Gaussian augmentation (Cohen, Rosenfeld and Kolter 2019, arXiv:1902.02918): cross-entropy under the noise that the
smoothed classifier will add."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from assay.models.training.noise import check_count, check_sigma, gaussian_noise
from assay.models.training.recipe import Step


@dataclass(frozen=True)
class Gaussian:
    """``sigma``: deviation of the noise, in the units of the input; ``copies``: noisy ones of each sample."""

    name: ClassVar[str] = "gaussian"
    sigma: float = 0.25
    copies: int = 1

    def __post_init__(self) -> None:
        check_sigma(self.name, self.sigma)
        check_count(self.name, "copies", self.copies, 1)

    @property
    def eps(self) -> float:
        """None is trained for in linf."""
        return 0.0

    def prepare(self, model: nn.Module, step: Step) -> None:
        """Nothing: the initialisation stays."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """Mean cross-entropy of the noisy copies: x (batch x shape), y (batch)."""
        noisy = x + gaussian_noise(x, self.sigma, self.copies, step.generator)
        return F.cross_entropy(model(noisy.flatten(0, 1)), y.repeat(self.copies))
