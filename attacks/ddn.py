"""Decoupling direction and norm (Rony et al. 2019, arXiv:1811.09600): the nearest adversarial point in l2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from assay.attacks.common import minimal_norm
from assay.attacks.common.interface import AttackResult, Model
from assay.attacks.common.losses import LossName, check_loss
from assay.attacks.common.minimal_norm import (
    Closest,
    bisect_segment,
    cosine,
    length,
    loss_and_gradient,
    normalise_l2,
    per_sample,
)
from assay.attacks.common.option_ranges import fraction, positive, whole
from assay.attacks.common.task import Task
from assay.verify.core.problem import Problem
from assay.verify.core.region import Region


@dataclass(frozen=True)
class DDN:
    """``steps`` steps along the gradient, each scaled to a radius that shrinks while the sample is broken.

    ``gamma``: the share by which the radius grows or shrinks; ``radius``: its first value, in the units of the input:
    a large one, since shrinking finds nearer points than growing does. ``loss``: ``ce``, ``margin``
    or ``dlr``. ``refine``: bisections of the segment to the sample at the end.
    ``targeted``: the labels given to :meth:`run` are the classes to be reached.
    """

    steps: int = 100
    gamma: float = 0.05
    radius: float = 2.0
    refine: int = 10
    loss: LossName = "ce"
    targeted: bool = False
    name: ClassVar[str] = "ddn"
    random: ClassVar[bool] = False
    minimises: ClassVar[tuple[float, ...]] = (2.0,)

    def __post_init__(self) -> None:
        whole(self, "steps")
        whole(self, "refine", least=0)
        fraction(self, "gamma")
        positive(self, "radius")
        check_loss(self.loss)

    def run(self, model: Model, x: Tensor, labels: Tensor, region: Region, seed: int = 0) -> AttackResult:
        """Attack classification: x (batch x shape), labels (batch); nothing is random.

        Raises :class:`InputError` as every attack does, :class:`UnsupportedError` for a region that is no l2 ball.
        """
        return minimal_norm.run(self, model, x, labels, region, self.loss, self._method, self.targeted)

    def search(self, problems: Sequence[Problem], seed: int = 0) -> AttackResult:
        """Attack each problem's specification, whose own loss replaces ``loss``."""
        return minimal_norm.search(self, problems, self._method)

    def _method(self, job: Task, closest: Closest) -> None:
        everything = torch.arange(len(job.clean), device=job.clean.device)
        x, radius = job.clean, torch.full_like(closest.distance, self.radius)
        for step in range(self.steps):
            _, success, grad = loss_and_gradient(job, x)
            closest.note(everything, x, success)
            radius = radius * torch.where(success, 1 - self.gamma, 1 + self.gamma)
            delta = x - job.clean + cosine(step, self.steps, 1.0, 0.01) * normalise_l2(grad)
            size = length(delta, 2).clamp(min=torch.finfo(delta.dtype).tiny)
            x = job.project(job.clean + per_sample(radius / size, delta) * delta)
        closest.note(everything, x, job.evaluate(x)[1])
        bisect_segment(job, closest, self.refine)
