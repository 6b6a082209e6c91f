"""PGD by expectation over transformation (Athalye et al. 2018, arXiv:1802.00420): for randomised models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from assay.attacks.common import task
from assay.attacks.common.interface import AttackResult, Model, forward
from assay.attacks.common.losses import Goal, LossName, check_loss
from assay.attacks.common.option_ranges import whole
from assay.attacks.common.projected_gradient import ascend
from assay.attacks.common.task import Task
from assay.attacks.pgd import PGD
from assay.verify.core.problem import Problem
from assay.verify.core.region import Region


@dataclass(frozen=True)
class PGDEOT:
    """PGD on the mean loss of ``draws`` runs of the model at each point; success is where most of these runs are wrong.

    The other options are those of ``pgd``. The model's draws from torch's generator repeat with the seed, but depend on
    what else is in the batch.
    """

    draws: int = 20
    steps: int = 40
    restarts: int = 1
    step_size: float | None = None
    loss: LossName = "ce"
    name: ClassVar[str] = "pgd-eot"

    def __post_init__(self) -> None:
        whole(self, "draws")
        check_loss(self.loss)
        _ = self._pgd  # checks the other options

    def run(self, model: Model, x: Tensor, labels: Tensor, region: Region, seed: int = 0) -> AttackResult:
        """Attack classification: x (batch x shape), labels (batch). Raises what PGD raises."""
        return task.run(model, x, labels, region, self.loss, lambda job: self._method(job, seed))

    def search(self, problems: Sequence[Problem], seed: int = 0) -> AttackResult:
        """Attack each problem's specification, by what ``loss`` is for its rows."""
        return task.search(problems, lambda job: self._method(job, seed), self.loss)

    def _method(self, job: Task, seed: int) -> AttackResult:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            many = replace(job, model=Repeated(job.model, self.draws), goal=Mean(job.goal, self.draws))
            result = ascend(many, self._pgd.schedule, seed)
        return replace(result, queries=result.queries * self.draws)

    @property
    def _pgd(self) -> PGD:
        return PGD(self.steps, self.restarts, self.step_size, loss=self.loss)


@dataclass(frozen=True, eq=False)
class Repeated:
    """A model run ``draws`` times on each batch."""

    model: Model
    draws: int

    def __call__(self, x: Tensor) -> Tensor:
        """x (batch x shape) to all outputs side by side (batch x draws * outputs)."""
        return torch.cat([forward(self.model, x) for _ in range(self.draws)], 1)


@dataclass(frozen=True, eq=False)
class Mean:
    """The mean loss of the outputs of ``draws`` runs, and whether most of them succeed by the ``goal``."""

    goal: Goal
    draws: int
    signed: bool = False  # the mean loss may be positive although few runs succeed

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and success, both (batch): y (batch x draws * outputs)."""
        each = [self.goal(part) for part in y.chunk(self.draws, 1)]
        loss = torch.stack([loss for loss, _ in each]).mean(0)
        return loss, torch.stack([success for _, success in each]).sum(0) * 2 > self.draws

    def take(self, index: Tensor) -> Mean:
        """The goal of the samples at the positions ``index`` (samples)."""
        return replace(self, goal=self.goal.take(index))

    def with_loss(self, loss: LossName) -> Mean:
        """The goal with another loss."""
        return replace(self, goal=self.goal.with_loss(loss))

    def rivals(self, y: Tensor) -> int:
        """As many as one run has: y (batch x draws * outputs)."""
        return self.goal.rivals(y.chunk(self.draws, 1)[0])

    def aim(self, y: Tensor, rank: int) -> Mean:
        """The loss of one target, whose rank is that in the mean of the runs: y (batch x draws * outputs)."""
        return replace(self, goal=self.goal.aim(torch.stack(y.chunk(self.draws, 1)).mean(0), rank))
