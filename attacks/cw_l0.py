"""Carlini and Wagner's l0 attack (2017, arXiv:1608.04644): as few changed values as possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from assay.attacks.baselines import clean_first
from assay.attacks.common import task
from assay.attacks.common.interface import AttackResult, Model
from assay.attacks.common.minimal_norm import Closest, length, slope
from assay.attacks.common.option_ranges import positive, share, whole
from assay.attacks.common.penalty_descent import Adam, descend, square
from assay.attacks.common.task import Task
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.problem import Problem
from assay.verify.core.region import Region


@dataclass(frozen=True)
class CWL0:
    """The l2 attack again and again on fewer values, those that gain least being fixed each time.

    Within a box or an linf ball; the ball of radius 1 is all of the domain. A sample counts as broken however many
    values had to change: ``distance`` is their number, ``adversarial`` the point with the fewest.

    ``rounds``: at most; ``steps``: of Adam in each, at most; ``rate``: their size, in the units of the input.
    ``fixed``: the share of the free values that is fixed after a round that broke the sample. After one that did not
    ``c`` is ten times larger, ``tries`` times before the sample is left.
    """

    rounds: int = 60
    steps: int = 30
    rate: float = 0.05
    fixed: float = 0.3
    tries: int = 3
    targeted: bool = False
    name: ClassVar[str] = "cw-l0"
    random: ClassVar[bool] = False

    def __post_init__(self) -> None:
        whole(self, "rounds", "steps", "tries")
        positive(self, "rate")
        share(self, "fixed")

    def run(self, model: Model, x: Tensor, labels: Tensor, region: Region, seed: int = 0) -> AttackResult:
        """Attack classification: x (batch x shape), labels (batch); nothing is random.

        Raises :class:`InputError` as every attack does, :class:`UnsupportedError` for l1 and l2 balls.
        """
        return task.run(model, x, labels, region, "margin", self._method, self.targeted)

    def search(self, problems: Sequence[Problem], seed: int = 0) -> AttackResult:
        """Attack each problem's specification, whose distance to violation takes the margin's place."""
        return task.search(problems, self._method)

    def _method(self, job: Task) -> AttackResult:
        if not job.is_box:
            raise UnsupportedError(f"{self.name} needs a region that is a box or an linf ball")
        record = clean_first(job)
        standing = record.standing
        if len(standing):
            part = job.take(standing)
            sparse = Closest(part.clean, 0)
            self._thin_out(part, sparse)
            loss, success = part.evaluate(sparse.adversarial)
            record.note(standing, sparse.adversarial, loss, part.confirm(sparse.adversarial, success & sparse.found))
            record.queries[standing] += sparse.queries
        result = record.result(job.region)
        return replace(result, distance=length(result.adversarial - job.clean, 0).double())

    def _thin_out(self, job: Task, sparse: Closest) -> None:
        """Rounds of the l2 attack on the samples that are still getting sparser."""
        index = torch.arange(len(job.clean), device=job.clean.device)
        loss, _, grad = slope(job, job.clean)
        c = 10 * loss.double().abs() / length(grad.double(), 2).square().clamp(min=1e-9)
        tries = torch.zeros_like(index)
        free, x = job.upper.expand_as(job.clean) > job.lower, job.clean
        for _ in range(self.rounds):
            near = Closest(job.clean, 2.0)
            walk = descend(job, near, x, c, square, Adam(self.steps, self.rate), free)
            sparse.queries[index] += near.queries
            broken = walk.broken
            sparse.keep(index[broken], near.adversarial[broken], length(near.adversarial - job.clean, 0)[broken])
            tries = torch.where(broken, 0, tries + 1)
            c = torch.where(broken, c, 10 * c)
            free = torch.where(_column(broken, free), self._thinner(job, near.adversarial, free), free)
            x = torch.where(free & _column(broken, free), near.adversarial, torch.where(free, walk.x, job.clean))
            going = (tries < self.tries) & free.flatten(1).any(1)
            rows = going.nonzero()[:, 0]
            if not len(rows):
                return
            index, job, c, tries, free, x = index[rows], job.take(rows), c[rows], tries[rows], free[rows], x[rows]

    def _thinner(self, job: Task, x: Tensor, free: Tensor) -> Tensor:
        """The free values (batch x shape) without those that the change to x gained least by, at least one of them.

        What did not change at all is fixed too.
        """
        _, _, grad = slope(job, x)
        gain = (grad * (x - job.clean)).abs().flatten(1)
        moved = (free & (x != job.clean)).flatten(1)
        count = moved.sum(1)
        drop = (count * self.fixed).long().clamp(min=1)
        order = gain.masked_fill(~moved, torch.inf).argsort(dim=1, stable=True).argsort(dim=1)
        return (moved & (order >= drop[:, None])).view_as(free)


def _column(values: Tensor, x: Tensor) -> Tensor:
    return values.view(-1, *[1] * (x.dim() - 1))
