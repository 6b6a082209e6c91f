"""Training of networks of l_inf distances (Zhang et al. 2021, arXiv:2102.05363): distances in l_p whose exponent grows,
until they are those that are certified; margins taken at their worst within a radius."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from assay.models.distance import LinfDistance, set_exponent
from assay.models.training import ramp
from assay.models.training.recipe import Step
from assay.verify.core.errors import InputError


@dataclass(frozen=True)
class LinfMargin:
    """Cross-entropy of ``scale`` times the logits, of which every other than the label's is raised by what it can gain
    on it within a linf ball of radius ``eps``: 2 eps, since each logit is 1-Lipschitz.

    The radius grows from 0 to ``eps`` over the training. The exponent of the distances grows from ``first`` to ``last``
    by equal factors, and is infinite from the share ``end`` on.
    """

    name: ClassVar[str] = "linf-margin"
    eps: float = 0.1
    scale: float = 20.0
    first: float = 2.0
    last: float = 200.0
    end: float = 0.9

    def __post_init__(self) -> None:
        ramp.check(self.name, self.eps, 0.0, 0.0, self.end)
        if not (isfinite(self.scale) and self.scale > 0):
            raise InputError(f"{self.name}: expected a finite scale > 0, got {self.scale}")
        if not 1 <= self.first <= self.last < inf:
            raise InputError(f"{self.name}: expected exponents 1 <= first <= last, got {self.first} and {self.last}")

    def prepare(self, model: nn.Module, step: Step) -> None:
        """Nothing is changed. Raises :class:`InputError` for a model without layers of l_inf distances."""
        if not any(isinstance(part, LinfDistance) for part in model.modules()):
            raise InputError(f"{self.name} trains layers of l_inf distances: the model has none (--arch linf-distance)")

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """Cross-entropy of the logits at their worst within the radius at this moment: x (batch x shape), y (batch)."""
        set_exponent(model, self.exponent(step.progress))
        logits: Tensor = model(x)
        others = 1 - F.one_hot(y, logits.shape[1]).to(logits)
        return F.cross_entropy(self.scale * (logits + 2 * self.eps * step.progress * others), y)

    def exponent(self, progress: float) -> float:
        """Of the distances, at ``progress`` (0 to 1).

        >>> [round(LinfMargin(first=2, last=200).exponent(t), 3) for t in (0.0, 0.45, 0.9)]
        [2.0, 20.0, inf]
        """
        if progress >= self.end:
            return inf
        return float(self.first * (self.last / self.first) ** (progress / self.end))
