"""Projected gradient descent (Madry et al. 2018, arXiv:1706.06083), with restarts and momentum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import ClassVar

from torch import Tensor

from assay.attacks.common import task
from assay.attacks.common.interface import AttackResult, Model
from assay.attacks.common.losses import LossName, check_loss
from assay.attacks.common.projected_gradient import Schedule, ascend
from assay.verify.core.errors import InputError
from assay.verify.core.problem import Problem
from assay.verify.core.region import Region


@dataclass(frozen=True)
class PGD:
    """``steps`` projected steps of steepest ascent of ``loss``, again from a random member at each restart.

    ``step_size``: in radii of the region; None is ``4 / steps``, at most 1. ``momentum``: decay of earlier gradients,
    1.0 is MI-FGSM (Dong et al. 2018, arXiv:1710.06081). ``loss``: ``ce``, ``margin`` or ``dlr``. ``random_start``:
    whether the first restart too begins at random; beginning at the clean sample breaks as many samples or more.
    ``diversify``: steps that each random start takes first along a random direction of the outputs (Tashiro et al.
    2020, arXiv:2003.06878); they cost as much as others.
    ``targeted``: the labels given to :meth:`run` are the classes to be reached.
    """

    steps: int = 40
    restarts: int = 1
    step_size: float | None = None
    momentum: float = 0.0
    loss: LossName = "ce"
    random_start: bool = False
    diversify: int = 0
    targeted: bool = False
    name: ClassVar[str] = "pgd"

    def __post_init__(self) -> None:
        for option in ("steps", "restarts"):
            value = getattr(self, option)
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{option} of pgd must be a whole number of at least 1, got {value}")
        if self.step_size is not None and not (isfinite(self.step_size) and self.step_size > 0):
            raise InputError(f"step_size of pgd must be a positive number of radii, got {self.step_size}")
        if not (isfinite(self.momentum) and self.momentum >= 0):
            raise InputError(f"momentum of pgd must be a finite number of at least 0, got {self.momentum}")
        if not isinstance(self.diversify, int) or self.diversify < 0:
            raise InputError(f"diversify of pgd must be a whole number of at least 0, got {self.diversify}")
        check_loss(self.loss)

    @property
    def random(self) -> bool:
        """Whether any restart begins at random."""
        return self.restarts > 1 or self.random_start

    def run(self, model: Model, x: Tensor, labels: Tensor, region: Region, seed: int = 0) -> AttackResult:
        """Attack classification: x (batch x shape), labels (batch); at most
        ``restarts * (steps + diversify + 1)`` forward passes.

        With ``random_start`` one more, at the clean sample.
        Raises :class:`InputError` for a model in train mode and for inputs that do not fit it or each other.
        """
        return task.run(
            model, x, labels, region, self.loss, lambda job: ascend(job, self.schedule, seed), self.targeted
        )

    def search(self, problems: Sequence[Problem], seed: int = 0) -> AttackResult:
        """Attack each problem's specification, by what ``loss`` is to its rows."""
        return task.search(problems, lambda job: ascend(job, self.schedule, seed), self.loss)

    @property
    def schedule(self) -> Schedule:
        """The schedule of the ascent by these options."""
        size = min(4 / self.steps, 1.0) if self.step_size is None else self.step_size
        return Schedule(self.steps, size, self.restarts, self.momentum, self.random_start, self.diversify)
