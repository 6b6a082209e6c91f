"""The momentum iterative fast gradient sign method (Dong et al. 2018, arXiv:1710.06081): PGD with momentum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from assay.attacks.common.interface import AttackResult, Model
from assay.attacks.common.losses import LossName, check_loss
from assay.attacks.common.option_ranges import nonnegative, whole
from assay.attacks.pgd import PGD
from assay.verify.core.problem import Problem
from assay.verify.core.region import Region


@dataclass(frozen=True)
class MIFGSM:
    """``steps`` steps that add up to one radius, along gradients summed with ``decay``; in any norm.

    ``loss``: ``ce``, ``margin`` or ``dlr``. ``targeted``: the labels given to :meth:`run` are the classes to be
    reached.
    """

    steps: int = 10
    decay: float = 1.0
    loss: LossName = "ce"
    targeted: bool = False
    name: ClassVar[str] = "mi-fgsm"
    random: ClassVar[bool] = False

    def __post_init__(self) -> None:
        whole(self, "steps")
        nonnegative(self, "decay")
        check_loss(self.loss)

    def run(self, model: Model, x: Tensor, labels: Tensor, region: Region, seed: int = 0) -> AttackResult:
        """Attack classification: x (batch x shape), labels (batch); nothing is random. Raises what PGD raises."""
        return self._pgd.run(model, x, labels, region, seed)

    def search(self, problems: Sequence[Problem], seed: int = 0) -> AttackResult:
        """Attack each problem's specification, by what ``loss`` is for its rows."""
        return self._pgd.search(problems, seed)

    @property
    def _pgd(self) -> PGD:
        return PGD(self.steps, step_size=1 / self.steps, momentum=self.decay, loss=self.loss, targeted=self.targeted)
