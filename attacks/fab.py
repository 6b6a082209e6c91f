"""Fast adaptive boundary attack (Croce and Hein 2020, arXiv:1907.02044): small steps along the decision boundary.

Each step goes to the boundary of the model made linear, a little beyond it, and is drawn towards the nearest such point
of the clean sample; from beyond the true boundary the search turns back towards the sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import ClassVar

import torch
from torch import Tensor

from assay.attacks.common import hyperplane, minimal_norm, task
from assay.attacks.common.early_stopping import Prospects, check_patience
from assay.attacks.common.interface import AttackResult, Model, forward, norm
from assay.attacks.common.minimal_norm import Closest, column, domain, length, shorten, slope
from assay.attacks.common.option_ranges import whole
from assay.attacks.common.projected_gradient import gradient
from assay.attacks.common.random_streams import sample_keys, uniform
from assay.attacks.common.task import Record, Task
from assay.verify.core.problem import Problem
from assay.verify.core.region import LpBall, Region

# From the paper: how far a step overshoots, the greatest pull towards the clean sample, the way back from beyond.
OVERSHOOT, PULL, BACK = 1.05, 0.1, 0.9
# Points found are moved towards the clean sample by so many bisections.
BISECTIONS = 3

# Told indices, points and success: which of them (bool) are done with.
Note = Callable[[Tensor, Tensor, Tensor], Tensor]
# Loss (batch) and its gradient (batch x shape) at x, whose zero is the boundary to step to.
Plane = Callable[[Task, "Metric", Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Metric:
    """How far a step is: the norm ``p``, and the units of its coordinates, which broadcast against it."""

    p: float
    scale: Tensor

    def length(self, step: Tensor) -> Tensor:
        """(batch), float64; a coordinate without extent counts for nothing."""
        if self.p != inf:
            return length(step.double(), self.p)
        return length(torch.where(self.scale > 0, step / self.scale, 0.0).double(), inf)

    def steepness(self, grad: Tensor) -> Tensor:
        """What a linear function of gradient ``grad`` (batch x shape) gains over a unit step; never 0."""
        slope = minimal_norm.length(grad * self.scale if self.p == inf else grad, minimal_norm.dual(self.p))
        return slope.clamp(min=torch.finfo(grad.dtype).tiny)

    @classmethod
    def of(cls, job: Task) -> Metric:
        """The norm of a ball; in a box, half of its extents are the units."""
        if isinstance(job.region, LpBall):
            return cls(norm(job.region), torch.ones_like(job.clean[:1]))
        return cls(inf, (job.upper - job.lower) / 2)

    def take(self, index: Tensor, size: int) -> Metric:
        """The metric of some samples out of ``size``."""
        return replace(self, scale=self.scale[index]) if len(self.scale) == size > 1 else self


def pursue(job: Task, metric: Metric, plane: Plane, x: Tensor, steps: int, note: Note) -> None:
    """``steps`` steps from the members x of the box of ``job``, as long as ``note`` is not done with a sample."""
    index = torch.arange(len(x), device=x.device)
    for _ in range(steps):
        if not len(index):
            return
        value, normal = plane(job, metric, x)
        x = advance(job, metric, x, value, normal)
        _, success = job.evaluate(x)
        done = note(index, x, success)
        x = torch.where(column(success, x).bool(), job.project(job.clean + BACK * (x - job.clean)), x)
        if bool(done.any()):
            left = (~done).nonzero()[:, 0]
            index, job, x, metric = index[left], job.take(left), x[left], metric.take(left, len(done))


def advance(job: Task, metric: Metric, x: Tensor, value: Tensor, normal: Tensor) -> Tensor:
    """The next point: between the hyperplane's point nearest to x and that nearest to the clean sample."""
    offset = (normal * (job.clean - x)).flatten(1).sum(1)
    box = job.lower, job.upper, metric.p, metric.scale
    here = hyperplane.nearest(x, normal, value, *box)
    there = hyperplane.nearest(job.clean, normal, value.to(offset) + offset, *box)
    near, far = metric.length(here), metric.length(there)
    pull = (near / (near + far).clamp(min=torch.finfo(torch.float64).tiny)).clamp(max=PULL)
    weight = column(pull, x)
    blend = (1 - weight) * (x + OVERSHOOT * here) + weight * (job.clean + OVERSHOOT * there)
    return job.project(torch.where(blend.isfinite(), blend, x))


def toward(job: Task, metric: Metric, x: Tensor) -> tuple[Tensor, Tensor]:
    """The boundary to the one rival that the goal aims at."""
    loss, _, grad = slope(job, x)
    return loss, grad


def closest(job: Task, metric: Metric, x: Tensor) -> tuple[Tensor, Tensor]:
    """The boundary that is nearest by the linear model, of all rivals': one gradient for each."""
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
            normal = torch.where(column(nearer, x).bool(), grad, normal)
    return value, normal


@dataclass(frozen=True)
class Plan:
    """``steps`` from each of ``restarts`` starts; to one rival after the other where there are ``targets``.

    ``patience``: as in :class:`EarlyStopping`, of the distance beyond the region's radius.
    """

    steps: int
    restarts: int
    targets: int
    patience: float

    def runs(self, job: Task) -> Iterator[tuple[Task, Plane]]:
        """The task and the boundaries of each run over all restarts."""
        if not self.targets:
            yield job, closest
            return
        y = forward(job.model, job.clean)
        for rank in range(min(self.targets, job.goal.rivals(y))):
            yield replace(job, goal=job.goal.aim(y, rank)), toward


def search_region(job: Task, plan: Plan, seed: int) -> AttackResult:
    """What lies within the region, on either side of it; a sample is done with as soon as it is broken there."""
    job = replace(job, goal=job.goal.ascending("margin"))
    record, keys = Record(job.clean), sample_keys(job.clean, seed)
    if not len(job.clean):
        return record.result(job.region)
    loss, success = job.evaluate(job.clean)
    record.note(record.standing, job.clean, loss, job.confirm(job.clean, success))
    legal = job
    if isinstance(job.region, LpBall):
        legal = Task.of(job.model, job.clean, domain(job.region), job.goal)
    metric = Metric.of(job)
    for stream, (run, plane) in enumerate(plan.runs(legal)):
        for restart in range(plan.restarts):
            standing = record.standing
            if not len(standing):
                break
            part, unit, x = run.take(standing), metric.take(standing, len(job.clean)), job.clean[standing]
            if restart:
                u = uniform(keys[standing], x.shape[1:], stream * plan.restarts + restart, x.dtype)
                x = part.project((x + job.take(standing).region.point(u)) / 2)
            pursue(part, unit, plane, x, plan.steps, Visits(record, job, standing, unit, plan))
    return record.result(job.region)


class Visits:
    """What one run sees: points in the region go into the record; who stays far from it is given up."""

    def __init__(self, record: Record, job: Task, standing: Tensor, metric: Metric, plan: Plan) -> None:
        self.record, self.job, self.standing, self.metric = record, job, standing, metric
        self.prospects = Prospects(plan.steps, plan.patience, max(plan.steps // 4, 25))
        self.gap = torch.full((len(standing),), -inf, dtype=torch.float64, device=standing.device)
        self.radius = torch.ones_like(self.gap)
        if isinstance(job.region, LpBall):
            self.radius = (
                torch.as_tensor(job.region.eps, dtype=torch.float64).to(self.gap).expand(len(job.clean))[standing]
            )
        self.step = 0

    def __call__(self, index: Tensor, x: Tensor, success: Tensor) -> Tensor:
        """The next step has led the samples ``index`` of the run to x."""
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
        hopeless = self.prospects.hopeless(self.step, self.gap)
        self.step += 1
        return done | hopeless[index]


def minimise(job: Task, found: Closest, plan: Plan, seed: int) -> None:
    """The nearest point that breaks each sample, wherever it lies in the box of ``job``."""
    job = replace(job, goal=job.goal.ascending("margin"))
    metric, keys = Metric(found.p, torch.ones_like(job.clean[:1])), sample_keys(job.clean, seed)

    def note(index: Tensor, x: Tensor, success: Tensor) -> Tensor:
        found.queries[index] += 1
        found.note(index, x, success)
        return torch.zeros_like(success)

    for stream, (run, plane) in enumerate(plan.runs(job)):
        for restart in range(plan.restarts):
            x = job.clean
            if restart:
                u = uniform(keys, x.shape[1:], stream * plan.restarts + restart, x.dtype)
                noise = 2 * u - 1
                reach = torch.where(found.found, found.distance, 0.1) / 2 / length(noise, found.p)
                x = job.project(x + column(reach, x) * noise)
            pursue(run, metric, plane, x, plan.steps, note)
    shorten(job, found, BISECTIONS)


@dataclass(frozen=True)
class FAB:
    """``steps`` steps along the boundary, again from near the clean sample at each restart.

    ``targets``: 0 takes the boundary to whatever rival is nearest by the linear model, at the price of one gradient for
    each class; otherwise the boundaries to so many rivals, those nearest at the clean sample, are taken one after the
    other. Around a ball it is a minimal-norm attack; in a box it looks for any point that breaks the sample.
    ``patience``: where only the region counts, in AutoAttack, a sample is given up once its recent approach, kept up
    so many times as fast, would not reach the region; inf for never.
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

    def on(self, job: Task, seed: int) -> AttackResult:
        """Look within the region of a task only."""
        return search_region(job, Plan(self.steps, self.restarts, self.targets, self.patience), seed)

    def _method(self, job: Task, seed: int) -> AttackResult:
        if not isinstance(job.region, LpBall):
            return self.on(job, seed)
        plan = Plan(self.steps, self.restarts, self.targets, self.patience)
        return minimal_norm.seek(self, job, lambda part, found: minimise(part, found, plan, seed))


@dataclass(frozen=True)
class FABT:
    """FAB towards the ``targets`` rivals nearest at the clean sample: ``fab(targets=9)`` by a name of its own."""

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
        """Attack classification, as :meth:`FAB.run` does."""
        return self._fab.run(model, x, labels, region, seed)

    def search(self, problems: Sequence[Problem], seed: int = 0) -> AttackResult:
        """Attack each problem's specification."""
        return self._fab.search(problems, seed)

    def on(self, job: Task, seed: int) -> AttackResult:
        """Look within the region of a task only."""
        return self._fab.on(job, seed)

    @property
    def _fab(self) -> FAB:
        return FAB(self.steps, self.restarts, self.targets, self.patience)
