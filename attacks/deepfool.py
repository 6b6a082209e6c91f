"""DeepFool (Moosavi-Dezfooli et al. 2016, arXiv:1511.04599): steps to the nearest boundary of a linear model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import ClassVar

import torch
from torch import Tensor

from assay.attacks.common import minimal_norm
from assay.attacks.common.interface import AttackResult, Model, forward
from assay.attacks.common.minimal_norm import Closest, bisect_segment, dual, length, per_sample
from assay.attacks.common.option_ranges import nonnegative, whole
from assay.attacks.common.projected_gradient import gradient
from assay.attacks.common.task import Task
from assay.verify.core.problem import Problem
from assay.verify.core.region import Region


@dataclass(frozen=True)
class DeepFool:
    """At most ``steps`` steps, each to the nearest decision boundary of the linearised model.

    ``candidates``: how many classes, those of largest outputs, are compared in each step. ``overshoot``: the share by
    which all steps together are lengthened. ``refine``: bisections of the segment to the sample at the end.
    """

    steps: int = 50
    candidates: int = 10
    overshoot: float = 0.02
    refine: int = 10
    name: ClassVar[str] = "deepfool"
    random: ClassVar[bool] = False
    minimises: ClassVar[tuple[float, ...]] = (2.0, inf)

    def __post_init__(self) -> None:
        whole(self, "steps", "candidates")
        whole(self, "refine", least=0)
        nonnegative(self, "overshoot")

    def run(self, model: Model, x: Tensor, labels: Tensor, region: Region, seed: int = 0) -> AttackResult:
        """Attack classification: x (batch x shape), labels (batch); nothing is random.

        Raises :class:`InputError` as every attack does, :class:`UnsupportedError` for a region of another kind.
        """
        return minimal_norm.run(self, model, x, labels, region, "margin", self._method)

    def search(self, problems: Sequence[Problem], seed: int = 0) -> AttackResult:
        """Attack each problem's specification; its disjuncts take the classes' place."""
        return minimal_norm.search(self, problems, self._method)

    def _method(self, job: Task, closest: Closest) -> None:
        whole_job, index = job, torch.arange(len(job.clean), device=job.clean.device)
        x, total = job.clean, torch.zeros_like(job.clean)
        for _ in range(self.steps):
            step, success = self._step(job, x, closest.p)
            closest.note(index, x, success)
            keep = (~success).nonzero()[:, 0]
            if not len(keep):
                break
            index, job, total = index[keep], job.take(keep), (total + step)[keep]
            x = job.project(job.clean + (1 + self.overshoot) * total)
        else:
            closest.note(index, x, job.evaluate(x)[1])
        bisect_segment(whole_job, closest, self.refine)

    def _step(self, job: Task, x: Tensor, p: float) -> tuple[Tensor, Tensor]:
        """The shortest step to a linearised boundary from x, both (batch x shape), and success at x (batch)."""
        best, far = torch.zeros_like(x), torch.full((len(x),), inf, dtype=x.dtype, device=x.device)
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            y = forward(job.model, point)
            _, success = job.goal(y)
            for rank in range(min(self.candidates, job.goal.rivals(y))):
                loss, _ = job.goal.aim(y, rank)(y)
                grad = gradient(loss, point, keep=True)
                # Coordinates at the edge of the domain cannot move further: the linear model is of the others only.
                grad = grad.masked_fill(((x >= job.upper) & (grad > 0)) | ((x <= job.lower) & (grad < 0)), 0)
                distance = loss.detach().abs().to(x) / length(grad, dual(p)).clamp(min=1e-9)
                nearer = distance < far
                best = torch.where(
                    per_sample(nearer, x) > 0, per_sample(distance, x) * steepest_direction(grad, p), best
                )
                far = torch.where(nearer, distance, far)
        return best.nan_to_num(), success & y.detach().isfinite().all(1)


def steepest_direction(grad: Tensor, p: float) -> Tensor:
    """The direction of norm 1, l2 or linf, along which a linear function of gradient ``grad`` rises most.

    Both (batch x shape).
    """
    return grad.sign() if p == inf else minimal_norm.normalise_l2(grad)
