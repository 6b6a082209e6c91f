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
from assay.attacks.common.early_stopping import Prospects, check_patience
from assay.attacks.common.interface import AttackResult, Model, forward, norm
from assay.attacks.common.iterates import Trail
from assay.attacks.common.l1_steps import WIDE, Sparse, enlarged, scattered
from assay.attacks.common.losses import LossName, check_loss
from assay.attacks.common.minimal_norm import column, slope
from assay.attacks.common.option_ranges import share, whole
from assay.attacks.common.random_streams import sample_keys, uniform
from assay.attacks.common.task import Record, Task
from assay.verify.core.problem import Problem
from assay.verify.core.region import Region

# The share of a new step in the next point; the rest goes to the step before it.
NEW = 0.75


@dataclass(frozen=True)
class Schedule:
    """How long to ascend: ``steps`` from each of ``restarts`` starts.

    ``rho`` as in :class:`Halving`, ``patience`` as in :class:`assay.attacks.common.early_stopping.Prospects`.
    """

    steps: int
    restarts: int
    rho: float
    patience: float


class Pace(Protocol):
    """How a sample steps, and how that adapts to what the steps brought."""

    def step(self, job: Task, trail: Trail) -> Tensor:
        """The next members, (batch x shape)."""
        ...

    def review(self, job: Task, step: int, before: Trail, trail: Trail) -> Tensor:
        """Adapt after the ``step``-th step, which led from ``before`` to ``trail``; who goes back to the best point."""
        ...

    def take(self, index: Tensor) -> None:
        """Go on with the samples ``index`` only."""
        ...


class Halving:
    """Steps of two radii at first; at each checkpoint the size is halved for samples that have stalled.

    A sample has stalled if fewer than ``rho`` of its steps since the last checkpoint increased the loss, or if neither
    its size nor its best loss has changed since.
    """

    def __init__(self, loss: Tensor, steps: int, rho: float) -> None:
        self.rho = rho
        self.ends = checkpoints(steps)
        self.size = torch.full_like(loss, 2.0)
        self.rises = torch.zeros_like(loss)
        self.halved = torch.zeros_like(loss, dtype=torch.bool)
        self.checked = loss

    def step(self, job: Task, trail: Trail) -> Tensor:
        """A projected step of steepest ascent, blended with the step before."""
        ahead = job.step(trail.x, trail.grad, column(self.size, trail.x))
        blend = trail.x + NEW * (ahead - trail.x) + (1 - NEW) * (trail.x - trail.previous)
        return job.project(blend)

    def review(self, job: Task, step: int, before: Trail, trail: Trail) -> Tensor:
        """Count the rises; at a checkpoint halve the size of who has stalled."""
        self.rises += trail.loss > before.loss
        if step not in self.ends:
            return torch.zeros_like(self.halved)
        span = step - max((end for end in self.ends if end < step), default=0)
        stuck = ~self.halved & (trail.best_loss <= self.checked)
        self.halved = (self.rises < self.rho * span) | stuck
        self.size = torch.where(self.halved, self.size / 2, self.size)
        self.checked, self.rises = trail.best_loss, torch.zeros_like(self.rises)
        return self.halved

    def take(self, index: Tensor) -> None:
        """Go on with the samples ``index`` only."""
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


def climb(record: Record | None, job: Task, index: Tensor, x: Tensor, steps: int, schedule: Schedule) -> Tensor:
    """``steps`` steps from the members ``x`` of the samples ``index``; who breaks is noted and leaves at once.

    Without a ``record`` every sample goes all the way. The result (batch x shape) holds the points of largest loss of
    the samples that did.
    """
    patience = schedule.patience if record is not None and job.goal.signed else inf
    prospects = Prospects(steps, patience, max(steps // 4, 25))
    trail: Trail | None = None
    pace: Pace | None = None
    for step in range(steps):
        loss, success, grad = slope(job, x)
        if record is not None:
            success = job.confirm(x, success)
            record.note(index, x, loss, success)
        if trail is None or pace is None:
            trail = Trail.of(x, loss, grad)
            pace = Sparse(job, trail, steps) if norm(job.region) == 1 else Halving(loss, steps, schedule.rho)
        else:
            before, trail = trail, trail.move(x, loss, grad)
            trail = trail.back(pace.review(job, step, before, trail))
        done = prospects.hopeless(step, trail.best_loss)
        if record is not None and bool((done := done | success).any()):
            left = (~done).nonzero()[:, 0]
            index, job, trail = index[left], job.take(left), trail.take(left)
            pace.take(left)
            prospects.take(left)
        if not len(index):
            return trail.x
        x = pace.step(job, trail)
    assert trail is not None
    loss, success = job.evaluate(x)
    if record is not None:
        record.note(index, x, loss, job.confirm(x, success))
    return trail.move(x, loss, trail.grad).best


def ascend(record: Record, job: Task, schedule: Schedule, seed: int) -> None:
    """The restarts of one goal: from the clean samples, then from random members, while samples stand."""
    keys = sample_keys(job.clean, seed) if schedule.restarts > 1 else record.queries
    few = norm(job.region) == 1
    for restart in range(schedule.restarts):
        standing = record.standing
        if not len(standing):
            return
        part = job.take(standing)
        x, steps = part.clean, schedule.steps
        if restart:
            x = scattered(part, keys[standing], restart) if few else random_member(part, keys[standing], restart)
        if few:
            x, spent = approach(part, x, schedule)
            record.queries[standing] += spent
            steps -= spent
        climb(record, part, standing, x, steps, schedule)


def random_member(job: Task, keys: Tensor, stream: int) -> Tensor:
    """A random start for each sample, (batch x shape)."""
    return job.region.point(uniform(keys, job.clean.shape[1:], stream, job.clean.dtype))


def approach(job: Task, x: Tensor, schedule: Schedule) -> tuple[Tensor, int]:
    """Starts for l1, and the steps to them from x: 0.3 of all in a ball three times as large, 0.3 in twice the ball."""
    part = round(0.3 * schedule.steps)
    everything = torch.arange(len(x), device=x.device)
    for factor in (WIDE, 2) if part else ():
        wide = enlarged(job, factor)
        x = climb(None, wide, everything, wide.project(x), part - 1, schedule) if part > 1 else x
    return job.project(x), 2 * part


def attack(job: Task, schedule: Schedule, loss: LossName, seed: int) -> AttackResult:
    """Auto-PGD by one loss."""
    record = Record(job.clean)
    ascend(record, replace(job, goal=job.goal.ascending(loss)), schedule, seed)
    return record.result(job.region)


def attack_targets(job: Task, schedule: Schedule, targets: int, seed: int) -> AttackResult:
    """Auto-PGD towards each sample's ``targets`` nearest ways to succeed, one after the other, from the nearest on."""
    record = Record(job.clean)
    if not len(job.clean):
        return record.result(job.region)
    goal = job.goal.ascending("dlr")
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
    recent progress, kept up so many times as fast, would not break it; inf for never; cross-entropy gives nobody up.
    """

    loss: LossName = "ce"
    steps: int = 100
    restarts: int = 1
    rho: float = 0.75
    patience: float = 10.0
    name: ClassVar[str] = "apgd"

    def __post_init__(self) -> None:
        whole(self, "steps", "restarts")
        share(self, "rho")
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
        return task.run(model, x, labels, region, self.loss, lambda job: self.on(job, seed))

    def search(self, problems: Sequence[Problem], seed: int = 0) -> AttackResult:
        """Attack each problem's specification, whose own loss replaces ``loss``."""
        return task.search(problems, lambda job: self.on(job, seed))

    def on(self, job: Task, seed: int) -> AttackResult:
        """Attack a task whose goal is given."""
        return attack(job, Schedule(self.steps, self.restarts, self.rho, self.patience), self.loss, seed)


@dataclass(frozen=True)
class APGDCE:
    """Auto-PGD on cross-entropy, the first attack of AutoAttack: ``apgd(loss=ce)`` by a name of its own."""

    steps: int = 100
    restarts: int = 1
    rho: float = 0.75
    name: ClassVar[str] = "apgd-ce"

    def __post_init__(self) -> None:
        whole(self, "steps", "restarts")
        share(self, "rho")

    @property
    def random(self) -> bool:
        """Whether any restart begins at random."""
        return self.restarts > 1

    def run(self, model: Model, x: Tensor, labels: Tensor, region: Region, seed: int = 0) -> AttackResult:
        """Attack classification, as :meth:`APGD.run` does."""
        return task.run(model, x, labels, region, "ce", lambda job: self.on(job, seed))

    def search(self, problems: Sequence[Problem], seed: int = 0) -> AttackResult:
        """Attack each problem's specification, whose own loss replaces the cross-entropy."""
        return task.search(problems, lambda job: self.on(job, seed))

    def on(self, job: Task, seed: int) -> AttackResult:
        """Attack a task whose goal is given."""
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
        share(self, "rho")
        check_patience(self.patience)

    @property
    def random(self) -> bool:
        """Whether any restart begins at random."""
        return self.restarts > 1

    def run(self, model: Model, x: Tensor, labels: Tensor, region: Region, seed: int = 0) -> AttackResult:
        """Attack classification: at most ``1 + targets * restarts * (steps + 1)`` forward passes; raises as they do."""
        return task.run(model, x, labels, region, "dlr", lambda job: self.on(job, seed))

    def search(self, problems: Sequence[Problem], seed: int = 0) -> AttackResult:
        """Attack each problem's disjuncts one by one."""
        return task.search(problems, lambda job: self.on(job, seed))

    def on(self, job: Task, seed: int) -> AttackResult:
        """Attack a task whose goal is given."""
        return attack_targets(job, Schedule(self.steps, self.restarts, self.rho, self.patience), self.targets, seed)
