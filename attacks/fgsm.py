"""The fast gradient sign method (Goodfellow et al. 2015, arXiv:1412.6572): one full-radius step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from assay.attacks.common import task
from assay.attacks.common.interface import AttackResult, Model
from assay.attacks.common.losses import LossName, check_loss
from assay.attacks.common.projected_gradient import Schedule, ascend
from assay.verify.core.problem import Problem
from assay.verify.core.region import Region


@dataclass(frozen=True)
class FGSM:
    """One step of one radius along the steepest ascent of ``loss``: ``ce``, ``margin`` or ``dlr``; in any norm."""

    loss: LossName = "ce"
    name: ClassVar[str] = "fgsm"
    random: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_loss(self.loss)

    def run(self, model: Model, x: Tensor, labels: Tensor, region: Region, seed: int = 0) -> AttackResult:
        """Attack classification: x (batch x shape), labels (batch). Two forward passes at most.

        Raises :class:`InputError` for a model in train mode and for inputs that do not fit it or each other.
        """
        return task.run(model, x, labels, region, self.loss, self._method)

    def search(self, problems: Sequence[Problem], seed: int = 0) -> AttackResult:
        """Attack each problem's specification, by what ``loss`` is for its rows."""
        return task.search(problems, self._method, self.loss)

    def _method(self, job: task.Task) -> AttackResult:
        return ascend(job, Schedule(steps=1, step_size=1.0), seed=0)
