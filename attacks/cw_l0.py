"""Carlini and Wagner's l0 attack (2017, arXiv:1608.04644): as few changed values as possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from assay.attacks.baselines import clean_record
from assay.attacks.common import task
from assay.attacks.common.interface import AttackResult, Model
from assay.attacks.common.minimal_norm import Closest, length, loss_and_gradient, per_sample
from assay.attacks.common.option_ranges import fraction, positive, whole
from assay.attacks.common.penalty_descent import Adam, descend, l2_penalty
from assay.attacks.common.task import Task
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.problem import Problem
from assay.verify.core.region import Region


@dataclass(frozen=True)
class CWL0:
    """The l2 attack, repeated on fewer and fewer values: each time those that add least to the loss are fixed.

    Within a box or an linf ball; the ball of radius 1 is all of the domain [0, 1]. A sample counts as broken however
    many values had to change: ``distance`` is their number, ``adversarial`` the point with the fewest.

    ``rounds``: at most; ``steps``: of Adam in each, at most; ``rate``: their size, in the units of the input.
    ``fixed``: the share of the free values that is fixed after a round that broke the sample. After one that did not
    ``c`` is ten times larger, ``tries`` times before the sample is given up.
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
        fraction(self, "fixed")

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
        record = clean_record(job)
        standing = record.standing
        if len(standing):
            part = job.take(standing)
            sparse = Closest(part.clean, 0)
            self._sparsify(part, sparse)
            loss, success = part.evaluate(sparse.adversarial)
            record.note(standing, sparse.adversarial, loss, part.confirm(sparse.adversarial, success & sparse.broken))
            record.queries[standing] += sparse.queries
        result = record.result(job.region)
        return replace(result, distance=length(result.adversarial - job.clean, 0).double())

    def _sparsify(self, job: Task, sparse: Closest) -> None:
        """Rounds of the l2 attack; the sparsest breaking points go to ``sparse``."""
        index = torch.arange(len(job.clean), device=job.clean.device)
        loss, _, grad = loss_and_gradient(job, job.clean)
        c = 10 * loss.double().abs() / length(grad.double(), 2).square().clamp(min=1e-9)
        tries = torch.zeros_like(index)
        free, x = job.upper.expand_as(job.clean) > job.lower, job.clean
        for _ in range(self.rounds):
            near = Closest(job.clean, 2.0)
            descent = descend(job, near, x, c, l2_penalty, Adam(self.steps, self.rate), free)
            sparse.queries[index] += near.queries
            broken = descent.broken
            sparse.keep(index[broken], near.adversarial[broken], length(near.adversarial - job.clean, 0)[broken])
            tries = torch.where(broken, 0, tries + 1)
            c = torch.where(broken, c, 10 * c)
            free = torch.where(per_sample(broken, free), self._still_free(job, near.adversarial, free), free)
            x = torch.where(free & per_sample(broken, free), near.adversarial, torch.where(free, descent.x, job.clean))
            going = (tries < self.tries) & free.flatten(1).any(1)
            rows = going.nonzero()[:, 0]
            if not len(rows):
                return
            index, job, c, tries, free, x = index[rows], job.take(rows), c[rows], tries[rows], free[rows], x[rows]

    def _still_free(self, job: Task, x: Tensor, free: Tensor) -> Tensor:
        """The coordinates that stay free, (batch x shape), bool: those of least gain at x (batch x shape) are fixed.

        At least one is fixed, and all that did not change.
        """
        _, _, grad = loss_and_gradient(job, x)
        gain = (grad * (x - job.clean)).abs().flatten(1)
        moved = (free & (x != job.clean)).flatten(1)
        count = moved.sum(1)
        drop = (count * self.fixed).long().clamp(min=1)
        order = gain.masked_fill(~moved, torch.inf).argsort(dim=1, stable=True).argsort(dim=1)
        return (moved & (order >= drop[:, None])).view_as(free)
