"""The goal of a targeted attack: each sample classified as the class that it is aimed at."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from assay.attacks.common.losses import LossName, Misclassify


@dataclass(frozen=True, eq=False)
class Reach:
    """The wanted class strictly the largest: the loss of not being so, with its sign turned.

    ``away`` is the goal of leaving the wanted classes.
    """

    away: Misclassify

    @classmethod
    def of(cls, wanted: Tensor, loss: LossName) -> Reach:
        """The goal of reaching ``wanted`` (batch), any integer dtype."""
        return cls(Misclassify.of(wanted, loss))

    @property
    def signed(self) -> bool:
        """As the loss turned around: a margin of 0 is a tie, which reaches nothing."""
        return self.away.signed

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and success: y (batch x classes). Raises :class:`InputError` for a class that has no output."""
        loss, left = self.away(y)
        return -loss, ~left

    def take(self, index: Tensor) -> Reach:
        """The goal for the samples ``index``."""
        return Reach(self.away.take(index))

    def ascending(self, loss: LossName) -> Reach:
        """The goal by another loss."""
        return Reach(self.away.ascending(loss))

    def rivals(self, y: Tensor) -> int:
        """One: the wanted class."""
        return 1

    def aim(self, y: Tensor, rank: int) -> Reach:
        """Itself: there is one way only."""
        return Reach(replace(self.away, targets=None))
