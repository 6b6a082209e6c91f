"""Fast minimum-norm attacks (Pintor et al. 2021, arXiv:2102.12827): the nearest adversarial point in l1, l2 or linf."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import ClassVar

import torch
from torch import Tensor

from assay.attacks.common import minimal_norm
from assay.attacks.common.interface import AttackResult, Model
from assay.attacks.common.minimal_norm import (
    Closest,
    bisect_segment,
    cosine,
    dual,
    length,
    loss_and_gradient,
    normalise_l2,
    project_onto_ball,
)
from assay.attacks.common.option_ranges import fraction, positive, whole
from assay.attacks.common.task import Task
from assay.verify.core.problem import Problem
from assay.verify.core.region import Region

# The l2 length of the first step, by norm; chosen by measurement on images.
STEP_SIZES = {1.0: 1.0, 2.0: 2.0, inf: 20.0}


@dataclass(frozen=True)
class FMN:
    """``steps`` gradient steps of the margin, each projected onto a ball whose radius tracks the boundary's distance.

    ``step_size``: l2 length of the first step, annealed to a hundredth; None is 1 in l1, 2 in l2 and 20 in linf.
    ``gamma``: first share by which the radius changes once the sample is broken, annealed to a fiftieth; before that
    the radius is the distance to the boundary of the linearised model. ``refine``: bisections of the segment to the
    sample at the end.
    ``targeted``: the labels given to :meth:`run` are the classes to be reached.
    """

    steps: int = 100
    step_size: float | None = None
    gamma: float = 0.05
    refine: int = 10
    targeted: bool = False
    name: ClassVar[str] = "fmn"
    random: ClassVar[bool] = False
    minimises: ClassVar[tuple[float, ...]] = (inf, 2.0, 1.0)

    def __post_init__(self) -> None:
        whole(self, "steps")
        whole(self, "refine", least=0)
        fraction(self, "gamma")
        if self.step_size is not None:
            positive(self, "step_size")

    def run(self, model: Model, x: Tensor, labels: Tensor, region: Region, seed: int = 0) -> AttackResult:
        """Attack classification: x (batch x shape), labels (batch); nothing is random.

        Raises :class:`InputError` as every attack does, :class:`UnsupportedError` for a region that is no ball.
        """
        return minimal_norm.run(self, model, x, labels, region, "margin", self._method, self.targeted)

    def search(self, problems: Sequence[Problem], seed: int = 0) -> AttackResult:
        """Attack each problem's specification, whose distance to violation takes the margin's place."""
        return minimal_norm.search(self, problems, self._method)

    def _method(self, job: Task, closest: Closest) -> None:
        everything = torch.arange(len(job.clean), device=job.clean.device)
        x, p, tiny = job.clean, closest.p, torch.finfo(job.clean.dtype).tiny
        first = STEP_SIZES[p] if self.step_size is None else self.step_size
        radius = torch.zeros_like(closest.distance)
        for step in range(self.steps):
            loss, success, grad = loss_and_gradient(job, x)
            closest.note(everything, x, success)
            gamma = cosine(step, self.steps, self.gamma, self.gamma / 50)
            linear = length(x - job.clean, p) + loss.abs() / length(grad, dual(p)).clamp(min=tiny)
            grown = radius * (1 + gamma)
            outward = torch.where(closest.broken, grown, torch.maximum(grown, linear.double()))
            inward = torch.minimum(radius * (1 - gamma), closest.distance)
            radius = torch.where(success, inward, outward)
            alpha = cosine(step, self.steps, first, first / 100)
            delta = project_onto_ball(x - job.clean + alpha * normalise_l2(grad), radius, p)
            x = job.project(job.clean + delta)
        closest.note(everything, x, job.evaluate(x)[1])
        bisect_segment(job, closest, self.refine)
