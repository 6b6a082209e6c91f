"""Standard training: cross-entropy on the samples as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from assay.models.training.recipe import Step


@dataclass(frozen=True)
class Standard:
    """No defence: the baseline of the others."""

    name: ClassVar[str] = "standard"

    @property
    def eps(self) -> float:
        """None is trained for."""
        return 0.0

    def prepare(self, model: nn.Module, step: Step) -> None:
        """Nothing: the initialisation stays."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """Cross-entropy: x (batch x shape), y (batch)."""
        return F.cross_entropy(model(x), y)
