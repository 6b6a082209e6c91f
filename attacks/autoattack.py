"""AutoAttack (Croce and Hein 2020, arXiv:2003.01690): four attacks, each on the samples that those before left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Protocol, get_args

import torch
from torch import Tensor

from assay.attacks.apgd import APGD, APGDCE, APGDT
from assay.attacks.common import task
from assay.attacks.common.early_stopping import check_patience
from assay.attacks.common.interface import AttackResult, Model, balls_only, norm
from assay.attacks.common.option_ranges import whole
from assay.attacks.common.task import Record, Task
from assay.attacks.fab import FAB, FABT
from assay.attacks.pgd_eot import Mean, Repeated
from assay.attacks.square import Square
from assay.verify.core.errors import unknown_name
from assay.verify.core.problem import Problem
from assay.verify.core.region import Region

Version = Literal["standard", "plus", "rand"]


class Component(Protocol):
    """An attack that works on a task."""

    def run_on(self, job: Task, seed: int) -> AttackResult:
        """Attack the task; the loss of its goal may be replaced."""
        ...


@dataclass(frozen=True)
class AutoAttack:
    """APGD on cross-entropy, APGD towards 9 targets, FAB towards 9 targets, and Square, the settings as published.

    ``version``: ``standard``; ``plus`` has five restarts of each, APGD on DLR and untargeted FAB too; ``rand``, for
    randomised models, is APGD on cross-entropy and on DLR over ``draws`` runs of the model at each point. In l1 there
    are more restarts and fewer targets. ``steps`` are those of APGD and FAB, ``queries`` those of Square.
    ``patience``: a sample is given up by an attack once its recent progress, kept up so many times as fast, would not
    break it; inf spends the full published budget on each sample, several times as many queries.
    """

    version: Version = "standard"
    steps: int = 100
    queries: int = 5000
    draws: int = 20
    patience: float = 10.0
    name: ClassVar[str] = "autoattack"

    def __post_init__(self) -> None:
        if self.version not in get_args(Version):
            raise unknown_name("version of autoattack", self.version, get_args(Version))
        whole(self, "steps", "queries", "draws")
        check_patience(self.patience)

    def run(self, model: Model, x: Tensor, labels: Tensor, region: Region, seed: int = 0) -> AttackResult:
        """Attack classification: x (batch x shape), labels (batch). The loss of the result is the margin.

        Raises :class:`InputError` for a model in train mode and for inputs that do not fit it or each other.
        """
        return task.run(model, x, labels, region, "margin", lambda job: self.run_on(job, seed))

    def search(self, problems: Sequence[Problem], seed: int = 0) -> AttackResult:
        """Attack each problem's specification, its disjuncts as the targets."""
        return task.search(problems, lambda job: self.run_on(job, seed))

    def run_on(self, job: Task, seed: int) -> AttackResult:
        """One component after the other on the samples of a task that are unbroken."""
        balls_only(self.name, job.region)
        job = replace(job, goal=job.goal.with_loss("margin"))
        if self.version != "rand":
            return self._sequence(job, seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            many = replace(job, model=Repeated(job.model, self.draws), goal=Mean(job.goal, self.draws))
            result = self._sequence(many, seed)
        return replace(result, queries=result.queries * self.draws)

    def _sequence(self, job: Task, seed: int) -> AttackResult:
        record = Record(job.clean)
        for component in self.components(norm(job.region)):
            standing = record.standing
            if not len(standing):
                break
            part = job.take(standing)
            result = component.run_on(part, seed)
            # Losses of different attacks do not compare; the margin does, for one more forward pass.
            loss, _ = part.evaluate(result.adversarial)
            record.note(standing, result.adversarial, loss, result.success)
            record.queries[standing] += result.queries
        return record.result(job.region)

    def components(self, p: float) -> list[Component]:
        """The attacks in order, for regions of norm ``p``."""
        restarts, targets = 5 if p == 1 or self.version == "plus" else 1, 5 if p == 1 else 9
        ce = APGDCE(self.steps, restarts)
        dlr = APGD("dlr", self.steps, restarts, patience=self.patience)
        if self.version == "rand":
            return [ce, dlr]
        apgd_t = APGDT(self.steps, targets, patience=self.patience)
        fab_t = FABT(self.steps, targets, patience=self.patience)
        square = Square(self.queries, patience=self.patience)
        if self.version == "standard":
            return [ce, apgd_t, fab_t, square]
        return [ce, dlr, FAB(self.steps, restarts, patience=self.patience), square, apgd_t, fab_t]
