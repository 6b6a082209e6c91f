"""Auto-PGD (Croce and Hein 2020, arXiv:2003.01690): projected ascent with momentum that finds its own step size.

In the l1 norm the form of Croce and Hein 2021 (arXiv:2103.01208), see :mod:`assay.attacks.common.l1_steps`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, inf
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from assay.attacks.common import task
from assay.attacks.common.early_stopping import EarlyStopping, check_patience
from assay.attacks.common.interface import AttackResult, Model, balls_only, forward, norm
from assay.attacks.common.iterates import Iterates
from assay.attacks.common.l1_steps import WIDE, SparseSteps, enlarged, gaussian_start
from assay.attacks.common.losses import LossName, check_loss
from assay.attacks.common.minimal_norm import loss_and_gradient, per_sample
from assay.attacks.common.option_ranges import fraction, whole
from assay.attacks.common.random_streams import sample_keys, uniform
from assay.attacks.common.task import Record, Task
from assay.verify.core.problem import Problem
from assay.verify.core.region import Region

# The weight of the new step; the rest is that of the step before.
NEW_STEP = 0.75


@dataclass(frozen=True)
class Schedule:
    """How long to ascend: ``steps`` from each of ``restarts`` starts.

    ``rho`` as in :class:`Halving`, ``patience`` as in :class:`assay.attacks.common.early_stopping.EarlyStopping`.
    """

    steps: int
    restarts: int
    rho: float
    patience: float


class StepRule(Protocol):
    """How samples step, and how the steps adapt to the losses that they reach."""

    def step(self, job: Task, iterates: Iterates) -> Tensor:
        """The next members, (batch x shape)."""
        ...

    def review(self, job: Task, step: int, previous: Iterates, iterates: Iterates) -> Tensor:
        """Adapt after the ``step``-th step, from ``previous`` to ``iterates``.

        Which samples restart from their best point: (batch), bool.
        """
        ...

    def take(self, index: Tensor) -> None:
        """Keep the samples at the positions ``index`` (samples) only."""
        ...


class Halving:
    """Steps of two radii at first; at each checkpoint the size is halved for samples that have stalled.

    ``loss`` (batch): at the start. A sample has stalled if fewer than ``rho`` of its steps since the last checkpoint
    increased the loss, or if neither its size nor its best loss has changed since.
    """

    def __init__(self, loss: Tensor, steps: int, rho: float) -> None:
        self.rho = rho
        self.ends = checkpoints(steps)
        self.size = torch.full_like(loss, 2.0)
        self.rises = torch.zeros_like(loss)
        self.halved = torch.zeros_like(loss, dtype=torch.bool)
        self.checked = loss

    def step(self, job: Task, iterates: Iterates) -> Tensor:
        """A projected step of steepest ascent, blended with the step before: (batch x shape)."""
        ahead = job.step(iterates.x, iterates.grad, per_sample(self.size, iterates.x))
        blend = iterates.x + NEW_STEP * (ahead - iterates.x) + (1 - NEW_STEP) * (iterates.x - iterates.previous)
        return job.project(blend)

    def review(self, job: Task, step: int, previous: Iterates, iterates: Iterates) -> Tensor:
        """Count the rises; at a checkpoint the samples that have stalled, (batch), bool, whose size is halved."""
        self.rises += iterates.loss > previous.loss
        if step not in self.ends:
            return torch.zeros_like(self.halved)
        span = step - max((end for end in self.ends if end < step), default=0)
        unimproved = ~self.halved & (iterates.best_loss <= self.checked)
        self.halved = (self.rises < self.rho * span) | unimproved
        self.size = torch.where(self.halved, self.size / 2, self.size)
        self.checked, self.rises = iterates.best_loss, torch.zeros_like(self.rises)
        return self.halved

    def take(self, index: Tensor) -> None:
        """Keep the samples at the positions ``index`` (samples) only."""
        for name in ("size", "rises", "halved", "checked"):
            setattr(self, name, getattr(self, name)[index])


def checkpoints(steps: int) -> list[int]:
    """After which steps the size is reviewed: 0.22 of them, then at distances shrinking by 0.03 to no less than 0.06.

    >>> checkpoints(100)
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    ends, last, at = [], 0.0, 0.22
    while (end := ceil(round(at * steps, 9))) <= steps:
        if end not in ends:
            ends.append(end)
        last, at = at, at + max(at - last - 0.03, 0.06)
    return ends


def single_run(record: Record | None, job: Task, index: Tensor, x: Tensor, steps: int, schedule: Schedule) -> Tensor:
    """``steps`` steps from x (samples x shape) of the samples ``index``, noted in ``record`` until they are broken.

    Without a ``record`` no sample stops early. The result: the points of largest loss of the samples that did not stop,
    (samples x shape).
    """
    patience = schedule.patience if record is not None and job.goal.signed else inf
    stopping = EarlyStopping(steps, patience, max(steps // 4, 25))
    iterates: Iterates | None = None
    rule: StepRule | None = None
    for step in range(steps):
        loss, success, grad = loss_and_gradient(job, x)
        if record is not None:
            success = job.confirm(x, success)
            record.note(index, x, loss, success)
        if iterates is None or rule is None:
            iterates = Iterates.of(x, loss, grad)
            rule = SparseSteps(job, iterates, steps) if norm(job.region) == 1 else Halving(loss, steps, schedule.rho)
        else:
            previous, iterates = iterates, iterates.move(x, loss, grad)
            iterates = iterates.restart_from_best(rule.review(job, step, previous, iterates))
        done = stopping.should_stop(step, iterates.best_loss)
        if record is not None and bool((done := done | success).any()):
            left = (~done).nonzero()[:, 0]
            index, job, iterates = index[left], job.take(left), iterates.take(left)
            rule.take(left)
            stopping.take(left)
        if not len(index):
            return iterates.x
        x = rule.step(job, iterates)
    assert iterates is not None
    loss, success = job.evaluate(x)
    if record is not None:
        record.note(index, x, loss, job.confirm(x, success))
    return iterates.move(x, loss, iterates.grad).best


def ascend(record: Record, job: Task, schedule: Schedule, seed: int) -> None:
    """Runs from the clean samples, then from random members, while any sample is unbroken."""
    keys = sample_keys(job.clean, seed) if schedule.restarts > 1 else record.queries
    in_l1 = norm(job.region) == 1
    for restart in range(schedule.restarts):
        standing = record.standing
        if not len(standing):
            return
        part = job.take(standing)
        x, steps = part.clean, schedule.steps
        if restart:
            x = gaussian_start(part, keys[standing], restart) if in_l1 else random_member(part, keys[standing], restart)
        if in_l1:
            x, spent = enlarged_ball_start(part, x, schedule)
            record.queries[standing] += spent
            steps -= spent
        single_run(record, part, standing, x, steps, schedule)


def random_member(job: Task, keys: Tensor, stream: int) -> Tensor:
    """Random starts by ``keys`` (batch): (batch x shape)."""
    return job.region.point(uniform(keys, job.clean.shape[1:], stream, job.clean.dtype))


def enlarged_ball_start(job: Task, x: Tensor, schedule: Schedule) -> tuple[Tensor, int]:
    """Starts for l1 (batch x shape) from x (batch x shape), and how many steps they took.

    0.3 of all steps in a ball three times as large, then 0.3 in one twice as large.
    """
    part = round(0.3 * schedule.steps)
    everything = torch.arange(len(x), device=x.device)
    for factor in (WIDE, 2) if part else ():
        wide = enlarged(job, factor)
        x = single_run(None, wide, everything, wide.project(x), part - 1, schedule) if part > 1 else x
    return job.project(x), 2 * part


def attack(job: Task, schedule: Schedule, loss: LossName, seed: int) -> AttackResult:
    """Auto-PGD on one loss."""
    balls_only("apgd", job.region)
    record = Record(job.clean)
    ascend(record, replace(job, goal=job.goal.with_loss(loss)), schedule, seed)
    return record.result(job.region)


def attack_targets(job: Task, schedule: Schedule, targets: int, seed: int) -> AttackResult:
    """Auto-PGD towards each sample's ``targets`` nearest targets at the clean sample, one after the other."""
    balls_only("apgd-t", job.region)
    record = Record(job.clean)
    if not len(job.clean):
        return record.result(job.region)
    goal = job.goal.with_loss("dlr")
    y = forward(job.model, job.clean)
    record.queries += 1
    goal(y)  # refuses labels that the model does not have
    for rank in range(min(targets, goal.rivals(y))):
        ascend(record, replace(job, goal=goal.aim(y, rank)), schedule, seed + rank)
    return record.result(job.region)


@dataclass(frozen=True)
class APGD:
    """``steps`` steps of Auto-PGD on ``loss``, again from a random member at each restart.

    ``loss``: ``ce``, ``margin``, or ``dlr``, the margin free of scale. ``rho``: the share of the steps between two
    checkpoints that must increase the loss for the step size to stay. ``patience``: a sample is given up once its
    recent progress, kept up so many times as fast, would not break it; inf for never, as always on cross-entropy.
    """

    loss: LossName = "ce"
    steps: int = 100
    restarts: int = 1
    rho: float = 0.75
    patience: float = 10.0
    name: ClassVar[str] = "apgd"

    def __post_init__(self) -> None:
        whole(self, "steps", "restarts")
        fraction(self, "rho")
        check_patience(self.patience)
        check_loss(self.loss)

    @property
    def random(self) -> bool:
        """Whether any restart begins at random."""
        return self.restarts > 1

    def run(self, model: Model, x: Tensor, labels: Tensor, region: Region, seed: int = 0) -> AttackResult:
        """Attack classification: x (batch x shape), labels (batch); at most ``restarts * (steps + 1)`` forward passes.

        Raises :class:`InputError` for a model in train mode and for inputs that do not fit it or each other.
        """
        return task.run(model, x, labels, region, self.loss, lambda job: self.run_on(job, seed))

    def search(self, problems: Sequence[Problem], seed: int = 0) -> AttackResult:
        """Attack each problem's specification, by what ``loss`` is for its rows."""
        return task.search(problems, lambda job: self.run_on(job, seed))

    def run_on(self, job: Task, seed: int) -> AttackResult:
        """Attack a task with ``loss`` as that of its goal."""
        return attack(job, Schedule(self.steps, self.restarts, self.rho, self.patience), self.loss, seed)


@dataclass(frozen=True)
class APGDCE:
    """Auto-PGD on cross-entropy, the first attack of AutoAttack: ``apgd(loss=ce,patience=inf)``."""

    steps: int = 100
    restarts: int = 1
    rho: float = 0.75
    name: ClassVar[str] = "apgd-ce"

    def __post_init__(self) -> None:
        whole(self, "steps", "restarts")
        fraction(self, "rho")

    @property
    def random(self) -> bool:
        """Whether any restart begins at random."""
        return self.restarts > 1

    def run(self, model: Model, x: Tensor, labels: Tensor, region: Region, seed: int = 0) -> AttackResult:
        """Attack classification, as :meth:`APGD.run` does: x (batch x shape), labels (batch)."""
        return task.run(model, x, labels, region, "ce", lambda job: self.run_on(job, seed))

    def search(self, problems: Sequence[Problem], seed: int = 0) -> AttackResult:
        """Attack each problem's specification, by what cross-entropy is for its rows."""
        return task.search(problems, lambda job: self.run_on(job, seed))

    def run_on(self, job: Task, seed: int) -> AttackResult:
        """Attack a task, on cross-entropy."""
        return attack(job, Schedule(self.steps, self.restarts, self.rho, inf), "ce", seed)


@dataclass(frozen=True)
class APGDT:
    """Auto-PGD towards the ``targets`` classes nearest at the clean sample, one by one, on the targeted DLR loss.

    Every misclassification counts, whichever class is the target. On a specification the targets are its disjuncts.
    ``steps`` and ``restarts`` are spent on each target; ``rho`` and ``patience`` as for :class:`APGD`.
    """

    steps: int = 100
    targets: int = 9
    restarts: int = 1
    rho: float = 0.75
    patience: float = 10.0
    name: ClassVar[str] = "apgd-t"

    def __post_init__(self) -> None:
        whole(self, "steps", "targets", "restarts")
        fraction(self, "rho")
        check_patience(self.patience)

    @property
    def random(self) -> bool:
        """Whether any restart begins at random."""
        return self.restarts > 1

    def run(self, model: Model, x: Tensor, labels: Tensor, region: Region, seed: int = 0) -> AttackResult:
        """Attack classification, as :meth:`APGD.run` does: x (batch x shape), labels (batch).

        At most ``1 + targets * restarts * (steps + 1)`` forward passes.
        """
        return task.run(model, x, labels, region, "dlr", lambda job: self.run_on(job, seed))

    def search(self, problems: Sequence[Problem], seed: int = 0) -> AttackResult:
        """Attack each problem's disjuncts one by one."""
        return task.search(problems, lambda job: self.run_on(job, seed))

    def run_on(self, job: Task, seed: int) -> AttackResult:
        """Attack a task, on the targeted losses of its goal."""
        return attack_targets(job, Schedule(self.steps, self.restarts, self.rho, self.patience), self.targets, seed)
