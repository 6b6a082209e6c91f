"""The goal of a targeted attack: each sample classified as its target."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from assay.attacks.common.losses import LossName, Misclassify


@dataclass(frozen=True, eq=False)
class Reach:
    """The target strictly the largest output; the loss is minus that of misclassifying the target.

    ``away``: the goal of misclassification with the targets as labels.
    """

    away: Misclassify

    @classmethod
    def of(cls, targets: Tensor, loss: LossName) -> Reach:
        """The goal of reaching the classes ``targets`` (batch), any integer dtype."""
        return cls(Misclassify.of(targets, loss))

    @property
    def signed(self) -> bool:
        """As for misclassification; only a loss of 0, a tie, is no success."""
        return self.away.signed

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and success, both (batch): y (batch x classes). Raises :class:`InputError` for a target out of range."""
        loss, misclassified = self.away(y)
        return -loss, ~misclassified

    def take(self, index: Tensor) -> Reach:
        """The goal of the samples at the positions ``index`` (samples)."""
        return Reach(self.away.take(index))

    def with_loss(self, loss: LossName) -> Reach:
        """The goal with another loss."""
        return Reach(self.away.with_loss(loss))

    def rivals(self, y: Tensor) -> int:
        """One, the target, whatever y (batch x classes)."""
        return 1

    def aim(self, y: Tensor, rank: int) -> Reach:
        """The goal itself, whatever y (batch x classes) and the rank: there is one target only."""
        return Reach(replace(self.away, targets=None))
