"""Fast adaptive boundary attack (Croce and Hein 2020, arXiv:1907.02044): small steps along the decision boundary.

Each step goes a little beyond the boundary of the linearised model, and is blended with the step to the point of it
nearest to the clean sample; from a point that breaks the sample the search goes back towards the clean sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import ClassVar

import torch
from torch import Tensor

from assay.attacks.common import hyperplane, minimal_norm, task
from assay.attacks.common.early_stopping import EarlyStopping, check_patience
from assay.attacks.common.interface import AttackResult, Model, balls_only, forward, norm
from assay.attacks.common.minimal_norm import Closest, bisect_segment, domain, length, loss_and_gradient, per_sample
from assay.attacks.common.option_ranges import whole
from assay.attacks.common.projected_gradient import gradient
from assay.attacks.common.random_streams import sample_keys, uniform
from assay.attacks.common.task import Record, Task
from assay.verify.core.problem import Problem
from assay.verify.core.region import LpBall, Region

# From the paper: the overshoot of a step, the largest weight of the step from the clean sample, and the share of its
# distance from the clean sample that a breaking point keeps.
OVERSHOOT, BIAS, BACK = 1.05, 0.1, 0.9
# Bisections of the segment from the clean sample to the nearest point, at the end.
BISECTIONS = 3

# Indices (samples), points (samples x shape), success (samples) -> which samples stop (samples), bool.
Note = Callable[[Tensor, Tensor, Tensor], Tensor]
# A task, its metric and x (batch x shape) -> loss (batch) and gradient (batch x shape): the hyperplane to step to is
# where their linear model is 0.
Plane = Callable[[Task, "Metric", Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Metric:
    """The length of steps: in the norm ``p``, with coordinates in units of ``scale``, which broadcasts against them."""

    p: float
    scale: Tensor

    def length(self, step: Tensor) -> Tensor:
        """The length of each step (batch x shape): (batch), float64; coordinates of scale 0 are left out."""
        if self.p != inf:
            return length(step.double(), self.p)
        return length(torch.where(self.scale > 0, step / self.scale, 0.0).double(), inf)

    def steepness(self, grad: Tensor) -> Tensor:
        """How much a linear function of gradient ``grad`` (batch x shape) rises over a unit step: (batch), above 0."""
        dual_norm = minimal_norm.length(grad * self.scale if self.p == inf else grad, minimal_norm.dual(self.p))
        return dual_norm.clamp(min=torch.finfo(grad.dtype).tiny)

    @classmethod
    def of(cls, job: Task) -> Metric:
        """The norm of a ball; for a box linf in units of half its extents."""
        if isinstance(job.region, LpBall):
            return cls(norm(job.region), torch.ones_like(job.clean[:1]))
        return cls(inf, (job.upper - job.lower) / 2)

    def take(self, index: Tensor, size: int) -> Metric:
        """The metric of the samples at the positions ``index`` (samples) out of ``size``."""
        return replace(self, scale=self.scale[index]) if len(self.scale) == size > 1 else self


def single_run(job: Task, metric: Metric, plane: Plane, x: Tensor, steps: int, note: Note) -> None:
    """``steps`` steps from x (batch x shape) in the box of ``job``; the samples that ``note`` returns stop."""
    index = torch.arange(len(x), device=x.device)
    for _ in range(steps):
        if not len(index):
            return
        value, normal = plane(job, metric, x)
        x = advance(job, metric, x, value, normal)
        _, success = job.evaluate(x)
        done = note(index, x, success)
        x = torch.where(per_sample(success, x).bool(), job.project(job.clean + BACK * (x - job.clean)), x)
        if bool(done.any()):
            left = (~done).nonzero()[:, 0]
            index, job, x, metric = index[left], job.take(left), x[left], metric.take(left, len(done))


def advance(job: Task, metric: Metric, x: Tensor, value: Tensor, normal: Tensor) -> Tensor:
    """The next points: between the hyperplane's points nearest to x and to the clean samples.

    ``value`` (batch), all others and the result (batch x shape).
    """
    offset = (normal * (job.clean - x)).flatten(1).sum(1)
    box = job.lower, job.upper, metric.p, metric.scale
    here = hyperplane.shortest_step(x, normal, value, *box)
    there = hyperplane.shortest_step(job.clean, normal, value.to(offset) + offset, *box)
    near, far = metric.length(here), metric.length(there)
    bias = (near / (near + far).clamp(min=torch.finfo(torch.float64).tiny)).clamp(max=BIAS)
    weight = per_sample(bias, x)
    blend = (1 - weight) * (x + OVERSHOOT * here) + weight * (job.clean + OVERSHOOT * there)
    return job.project(torch.where(blend.isfinite(), blend, x))


def target_plane(job: Task, metric: Metric, x: Tensor) -> tuple[Tensor, Tensor]:
    """The boundary to the target of the goal: x (batch x shape), value (batch), normal (batch x shape)."""
    loss, _, grad = loss_and_gradient(job, x)
    return loss, grad


def nearest_plane(job: Task, metric: Metric, x: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest boundary by the linearised model, for one gradient per rival.

    x (batch x shape), value (batch), normal (batch x shape).
    """
    value = far = x.new_full((len(x),), inf)
    normal = torch.zeros_like(x)
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        y = forward(job.model, point)
        for rank in range(job.goal.rivals(y)):
            loss, _ = job.goal.aim(y, rank)(y)
            grad = gradient(loss, point, keep=True)
            distance = loss.detach().abs().to(x) / metric.steepness(grad)
            nearer = distance < far
            far = torch.where(nearer, distance, far)
            value = torch.where(nearer, loss.detach().to(x), value)
            normal = torch.where(per_sample(nearer, x).bool(), grad, normal)
    return value, normal


@dataclass(frozen=True)
class Plan:
    """``steps`` from each of ``restarts`` starts; with ``targets`` towards that many rivals, one after the other.

    ``patience``: as in :class:`EarlyStopping`, with radius minus distance as the gap.
    """

    steps: int
    restarts: int
    targets: int
    patience: float

    def runs(self, job: Task) -> Iterator[tuple[Task, Plane]]:
        """For each target, or once without: the task, and the boundary to step to."""
        if not self.targets:
            yield job, nearest_plane
            return
        y = forward(job.model, job.clean)
        for rank in range(min(self.targets, job.goal.rivals(y))):
            yield replace(job, goal=job.goal.aim(y, rank)), target_plane


def search_region(job: Task, plan: Plan, seed: int) -> AttackResult:
    """Search for members of the region only: a sample stops as soon as it is broken in the region."""
    balls_only("fab", job.region)
    job = replace(job, goal=job.goal.with_loss("margin"))
    record, keys = Record(job.clean), sample_keys(job.clean, seed)
    if not len(job.clean):
        return record.result(job.region)
    loss, success = job.evaluate(job.clean)
    record.note(record.standing, job.clean, loss, job.confirm(job.clean, success))
    in_domain = job
    if isinstance(job.region, LpBall):
        in_domain = Task.of(job.model, job.clean, domain(job.region), job.goal)
    metric = Metric.of(job)
    for stream, (run, plane) in enumerate(plan.runs(in_domain)):
        for restart in range(plan.restarts):
            standing = record.standing
            if not len(standing):
                break
            part, part_metric, x = run.take(standing), metric.take(standing, len(job.clean)), job.clean[standing]
            if restart:
                u = uniform(keys[standing], x.shape[1:], stream * plan.restarts + restart, x.dtype)
                x = part.project((x + job.take(standing).region.point(u)) / 2)
            note = RegionRecorder(record, job, standing, part_metric, plan)
            single_run(part, part_metric, plane, x, plan.steps, note)
    return record.result(job.region)


class RegionRecorder:
    """The notes of one run: breaking points in the region go into the record, samples that stay far from it stop."""

    def __init__(self, record: Record, job: Task, standing: Tensor, metric: Metric, plan: Plan) -> None:
        self.record, self.job, self.standing, self.metric = record, job, standing, metric
        self.stopping = EarlyStopping(plan.steps, plan.patience, max(plan.steps // 4, 25))
        self.gap = torch.full((len(standing),), -inf, dtype=torch.float64, device=standing.device)
        self.radius = torch.ones_like(self.gap)
        if isinstance(job.region, LpBall):
            self.radius = (
                torch.as_tensor(job.region.eps, dtype=torch.float64).to(self.gap).expand(len(job.clean))[standing]
            )
        self.step = 0

    def __call__(self, index: Tensor, x: Tensor, success: Tensor) -> Tensor:
        """After a step of the samples ``index`` (samples) to x (samples x shape): which stop, (samples), bool."""
        whole = self.standing[index]
        self.record.queries[whole] += 2
        hits = success.nonzero()[:, 0]
        local = self.job.take(whole[hits])
        inside = local.region.contains(x[hits])
        far = self.metric.take(index, len(self.standing)).length(x - self.job.clean[whole])
        self.gap[index] = torch.where(success, (self.radius[index] - far).maximum(self.gap[index]), self.gap[index])
        hits, local = hits[inside], local.take(inside.nonzero()[:, 0])
        done = torch.zeros_like(success)
        if len(hits):
            loss, broken = local.evaluate(x[hits])
            done[hits] = broken = local.confirm(x[hits], broken)
            self.record.note(whole[hits], x[hits], loss, broken)
        stopped = self.stopping.should_stop(self.step, self.gap)
        self.step += 1
        return done | stopped[index]


def minimise(job: Task, closest: Closest, plan: Plan, seed: int) -> None:
    """Search for the nearest breaking point of each sample in the whole box of ``job``."""
    job = replace(job, goal=job.goal.with_loss("margin"))
    metric, keys = Metric(closest.p, torch.ones_like(job.clean[:1])), sample_keys(job.clean, seed)

    def note(index: Tensor, x: Tensor, success: Tensor) -> Tensor:
        closest.queries[index] += 1
        closest.note(index, x, success)
        return torch.zeros_like(success)

    for stream, (run, plane) in enumerate(plan.runs(job)):
        for restart in range(plan.restarts):
            x = job.clean
            if restart:
                u = uniform(keys, x.shape[1:], stream * plan.restarts + restart, x.dtype)
                noise = 2 * u - 1
                reach = torch.where(closest.broken, closest.distance, 0.1) / 2 / length(noise, closest.p)
                x = job.project(x + per_sample(reach, x) * noise)
            single_run(run, metric, plane, x, plan.steps, note)
    bisect_segment(job, closest, BISECTIONS)


@dataclass(frozen=True)
class FAB:
    """``steps`` steps along the boundary, again from near the clean sample at each restart.

    ``targets``: with 0 each step goes to the nearest boundary of the linearised model, for one gradient per class;
    otherwise to the boundaries of so many rivals, those nearest at the clean sample, one after the other. In a ball it
    is a minimal-norm attack; in a box it searches for any point that breaks the sample. ``patience``: where only the
    region counts, in AutoAttack, a sample is given up once its recent approach, kept up so many times as fast, would
    not reach the region; inf for never.
    """

    steps: int = 100
    restarts: int = 1
    targets: int = 0
    patience: float = inf
    name: ClassVar[str] = "fab"
    minimises: ClassVar[tuple[float, ...]] = (1, 2, inf)

    def __post_init__(self) -> None:
        whole(self, "steps", "restarts")
        whole(self, "targets", least=0)
        check_patience(self.patience)

    @property
    def random(self) -> bool:
        """Whether any restart begins at random."""
        return self.restarts > 1

    def run(self, model: Model, x: Tensor, labels: Tensor, region: Region, seed: int = 0) -> AttackResult:
        """Attack classification: x (batch x shape), labels (batch); two forward passes a step.

        Raises :class:`InputError` for a model in train mode and for inputs that do not fit it or each other.
        """
        return task.run(model, x, labels, region, "margin", lambda job: self._method(job, seed))

    def search(self, problems: Sequence[Problem], seed: int = 0) -> AttackResult:
        """Attack each problem's specification."""
        return task.search(problems, lambda job: self._method(job, seed))

    def run_on(self, job: Task, seed: int) -> AttackResult:
        """Attack a task, within its region only."""
        return search_region(job, Plan(self.steps, self.restarts, self.targets, self.patience), seed)

    def _method(self, job: Task, seed: int) -> AttackResult:
        if not isinstance(job.region, LpBall):
            return self.run_on(job, seed)
        plan = Plan(self.steps, self.restarts, self.targets, self.patience)
        return minimal_norm.attack_task(self, job, lambda part, closest: minimise(part, closest, plan, seed))


@dataclass(frozen=True)
class FABT:
    """FAB towards the ``targets`` rivals nearest at the clean sample: ``fab(targets=9)``."""

    steps: int = 100
    targets: int = 9
    restarts: int = 1
    patience: float = inf
    name: ClassVar[str] = "fab-t"
    minimises: ClassVar[tuple[float, ...]] = (1, 2, inf)

    def __post_init__(self) -> None:
        whole(self, "steps", "targets", "restarts")
        check_patience(self.patience)

    @property
    def random(self) -> bool:
        """Whether any restart begins at random."""
        return self.restarts > 1

    def run(self, model: Model, x: Tensor, labels: Tensor, region: Region, seed: int = 0) -> AttackResult:
        """Attack classification, as :meth:`FAB.run` does: x (batch x shape), labels (batch)."""
        return self._fab.run(model, x, labels, region, seed)

    def search(self, problems: Sequence[Problem], seed: int = 0) -> AttackResult:
        """Attack each problem's specification."""
        return self._fab.search(problems, seed)

    def run_on(self, job: Task, seed: int) -> AttackResult:
        """Attack a task, within its region only."""
        return self._fab.run_on(job, seed)

    @property
    def _fab(self) -> FAB:
        return FAB(self.steps, self.restarts, self.targets, self.patience)
