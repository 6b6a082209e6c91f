"""Elastic-net attacks (Chen et al. 2018, arXiv:1709.04114): near in l1 and l2 at once, hence sparse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from assay.attacks.common import minimal_norm
from assay.attacks.common.interface import AttackResult, Model
from assay.attacks.common.minimal_norm import Closest, bisect_segment, length, loss_and_gradient, per_sample
from assay.attacks.common.option_ranges import nonnegative, positive, whole
from assay.attacks.common.penalty_descent import WeightSearch
from assay.attacks.common.task import Task
from assay.verify.core.problem import Problem
from assay.verify.core.region import Region


@dataclass(frozen=True)
class EAD:
    """Minimises ``c`` times what the margin lacks, plus the squared l2 and ``beta`` times the l1 norm of the change.

    By accelerated shrinkage and thresholding (FISTA), ``rounds`` times ``steps`` steps at most, the first of size
    ``rate``. ``c`` is ten times larger in each round until it breaks the sample, bisected from then on; None starts
    from the gradient at the sample. Of all iterates that break a sample the nearest in the region's norm is kept.
    ``refine``: bisections of the segment to the sample at the end.
    ``targeted``: the labels given to :meth:`run` are the classes to be reached.
    """

    rounds: int = 9
    steps: int = 50
    rate: float = 0.01
    beta: float = 0.01
    c: float | None = None
    refine: int = 10
    targeted: bool = False
    name: ClassVar[str] = "ead"
    random: ClassVar[bool] = False
    minimises: ClassVar[tuple[float, ...]] = (1.0, 2.0)

    def __post_init__(self) -> None:
        whole(self, "rounds", "steps")
        whole(self, "refine", least=0)
        positive(self, "rate", *(["c"] if self.c is not None else []))
        nonnegative(self, "beta")

    def run(self, model: Model, x: Tensor, labels: Tensor, region: Region, seed: int = 0) -> AttackResult:
        """Attack classification: x (batch x shape), labels (batch); nothing is random.

        Raises :class:`InputError` as every attack does, :class:`UnsupportedError` for a region of another kind.
        """
        return minimal_norm.run(self, model, x, labels, region, "margin", self._method, self.targeted)

    def search(self, problems: Sequence[Problem], seed: int = 0) -> AttackResult:
        """Attack each problem's specification, whose distance to violation takes the margin's place."""
        return minimal_norm.search(self, problems, self._method)

    def _method(self, job: Task, closest: Closest) -> None:
        if self.c is None:
            loss, _, grad = loss_and_gradient(job, job.clean)
            search = WeightSearch(2 * loss.double().abs() / length(grad.double(), 2).square().clamp(min=1e-9))
        else:
            search = WeightSearch(torch.full_like(closest.distance, self.c))
        x = job.clean
        for _ in range(self.rounds):
            last, broken = self._fista_round(job, closest, x, search.c)
            search.update(broken)
            x = torch.where(per_sample(closest.broken, x) > 0, closest.adversarial, last)
        bisect_segment(job, closest, self.refine)

    def _fista_round(self, job: Task, closest: Closest, start: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """One round from ``start`` (batch x shape) with ``c`` (batch): the last points, and success (batch)."""
        index = torch.arange(len(start), device=start.device)
        last, broken = start.clone(), torch.zeros(len(start), dtype=torch.bool, device=start.device)
        x, y, before = start, start, torch.full_like(c, torch.inf)
        period = max(1, self.steps // 10)
        for step in range(self.steps):
            loss, success, grad = loss_and_gradient(job, y)
            closest.note(index, y, success)
            broken[index] |= success
            delta, shortfall = y - job.clean, (-loss).clamp(min=0)
            g = 2 * delta - per_sample(c * (shortfall > 0), grad) * grad
            moved = delta - self.rate * (1 - step / self.steps) ** 0.5 * g
            moved = moved.sign() * (moved.abs() - self.beta).clamp(min=0)
            new = job.project(job.clean + moved)
            x, y = new, job.project(new + step / (step + 3) * (new - x))
            last[index] = x
            if (step + 1) % period == 0:
                value = c * shortfall + delta.square().flatten(1).sum(1) + self.beta * length(delta, 1)
                keep = (value <= 0.9999 * before).nonzero()[:, 0]
                index, job, x, y, c, before = index[keep], job.take(keep), x[keep], y[keep], c[keep], value[keep]
                if not len(keep):
                    break
        return last, broken
