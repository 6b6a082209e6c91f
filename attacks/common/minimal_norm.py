"""Minimal-norm attacks: the nearest point that breaks each sample, and the result that it gives in a region."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import cos, inf, pi
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from assay.attacks.common import task
from assay.attacks.common.interface import Attack, AttackResult, Model, forward, norm
from assay.attacks.common.losses import LossName
from assay.attacks.common.projected_gradient import gradient
from assay.attacks.common.task import Record, Task
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.norms import norm_name
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall, Region, onto_l1, onto_l2
from assay.verify.support import floats


@runtime_checkable
class MinimalAttack(Attack, Protocol):
    """An attack that looks for the nearest point that breaks a sample, in a norm of ``minimises``.

    Its search covers the whole domain of the region's ball. A sample is broken where that point lies in the region;
    ``distance`` is that of the point in the region's norm, within the region or not; inf where none was found.
    """

    minimises: ClassVar[tuple[float, ...]]


class Closest:
    """The nearest breaking point of each sample so far, and its queries.

    ``clean``, ``adversarial`` (batch x shape); ``distance`` (batch), float64, in norm ``p``, inf without a point;
    ``queries`` (batch), int64.
    """

    def __init__(self, clean: Tensor, p: float) -> None:
        n, device = len(clean), clean.device
        self.clean = clean
        self.p = p
        self.adversarial = clean.clone()
        self.distance = torch.full((n,), inf, dtype=torch.float64, device=device)
        self.queries = torch.zeros(n, dtype=torch.int64, device=device)

    def note(self, index: Tensor, x: Tensor, success: Tensor) -> None:
        """One forward pass of the samples at the positions ``index`` (samples) at x (samples x shape).

        Where ``success`` (samples), bool, x is kept if it is the nearest so far.
        """
        self.queries[index] += 1
        far = length(x.double() - self.clean[index].double(), self.p)
        self.keep(index, x, torch.where(success, far, inf))

    def keep(self, index: Tensor, x: Tensor, far: Tensor) -> None:
        """Keep x (samples x shape) of the samples ``index`` where its distance ``far`` is the least so far."""
        nearer = far < self.distance[index]
        rows = index[nearer]
        self.adversarial[rows] = x[nearer]
        self.distance[rows] = far[nearer].to(self.distance)

    @property
    def broken(self) -> Tensor:
        """Whether a breaking point is known: (batch), bool."""
        return self.distance < inf


Method = Callable[[Task, Closest], None]


def run(
    attack: MinimalAttack,
    model: Model,
    x: Tensor,
    labels: Tensor,
    region: Region,
    loss: LossName,
    method: Method,
    targeted: bool = False,
) -> AttackResult:
    """:meth:`Attack.run` for a ``method`` that notes breaking points of a task on the whole domain.

    x (batch x shape), labels (batch).
    Raises :class:`UnsupportedError` for a region that is no ball of a norm that the attack minimises.
    """
    return task.run(model, x, labels, region, loss, lambda job: attack_task(attack, job, method), targeted)


def search(attack: MinimalAttack, problems: Sequence[Problem], method: Method) -> AttackResult:
    """:meth:`assay.attacks.common.interface.Attack.search` likewise."""
    return task.search(problems, lambda job: attack_task(attack, job, method))


def attack_task(attack: MinimalAttack, job: Task, method: Method) -> AttackResult:
    """The result of ``method``, which runs on the samples that the model gets right, in the region of ``job``.

    Where the nearest point lies outside of the region, ``adversarial`` is its projection, which may break the sample
    too.
    """
    region, p = job.region, norm(job.region)
    if not isinstance(region, LpBall) or p not in attack.minimises:
        known = ", ".join(norm_name(q) for q in attack.minimises)
        got = f"one of {norm_name(p)}" if isinstance(region, LpBall) else f"a {type(region).__name__.lower()}"
        raise UnsupportedError(f"{attack.name} needs a region that is a ball of {known}, got {got}")
    whole = Task.of(job.model, job.clean, domain(region), job.goal)
    record, closest = Record(job.clean), Closest(job.clean, p)
    everything = torch.arange(len(job.clean), device=job.clean.device)
    if len(everything):
        loss, success = whole.evaluate(job.clean)
        success = whole.confirm(job.clean, success)
        record.note(everything, job.clean, loss, success)
        closest.note(everything, job.clean, success)
    standing = record.standing
    if len(standing):
        part, near = whole.take(standing), Closest(job.clean[standing], p)
        method(part, near)
        confirm_closest(part, near)
        point = job.take(standing).region.project(near.adversarial)
        record.note(standing, point, *evaluate_one_by_one(part, point))
        closest.distance[standing] = near.distance
        record.queries[standing] += near.queries
    result = record.result(region)
    return replace(result, distance=torch.where(result.success, result.distance, closest.distance))


def confirm_closest(job: Task, closest: Closest) -> None:
    """Evaluate every point in a batch of one, moved outward by 1e-5 of its distance, by up to 1e-2 where that fails.

    The nearest points lie on the decision boundary, where batches of other sizes and other precisions disagree.
    """
    index = closest.broken.nonzero()[:, 0]
    points, far = closest.adversarial[index], closest.adversarial[index] - closest.clean[index]
    closest.distance[index] = inf
    for slack in (1e-5, 1e-4, 1e-3, 1e-2):
        if not len(index):
            return
        part = job.take(index)
        x = part.project(points + slack * far)
        _, success = evaluate_one_by_one(part, x)
        closest.note(index, x, success)
        index, points, far = index[~success], points[~success], far[~success]
    closest.adversarial[index] = closest.clean[index]


def evaluate_one_by_one(job: Task, x: Tensor) -> tuple[Tensor, Tensor]:
    """:meth:`Task.evaluate` at x (batch x shape), with a forward pass for each sample."""
    y = torch.cat([forward(job.model, sample[None]) for sample in x])
    loss, success = job.goal(y)
    finite = y.isfinite().all(1)
    return torch.where(finite, loss, -inf), success & finite


def bisect_segment(job: Task, closest: Closest, tries: int) -> None:
    """Bisect the segment from each sample to its nearest breaking point ``tries`` times."""
    index = closest.broken.nonzero()[:, 0]
    part, clean = job.take(index), closest.clean[index]
    far = closest.adversarial[index] - clean
    inside, outside = torch.zeros_like(closest.distance[index]), torch.ones_like(closest.distance[index])
    for _ in range(tries if len(index) else 0):
        middle = (inside + outside) / 2
        x = part.project(clean + per_sample(middle, clean) * far)
        _, success = part.evaluate(x)
        closest.note(index, x, success)
        inside, outside = torch.where(success, inside, middle), torch.where(success, middle, outside)


def domain(ball: LpBall) -> Box:
    """The domain of the ball as a box, unbounded where it has none."""
    low, high = (-inf, inf) if ball.domain is None else ball.domain
    lower, upper = (torch.as_tensor(bound, dtype=torch.float64).expand_as(ball.centre) for bound in (low, high))
    return Box(lower, upper)


def length(step: Tensor, p: float) -> Tensor:
    """The norm ``p`` of each step (batch x shape): (batch). For p = 0 it is the number of values that differ from 0."""
    flat = step.flatten(1)
    return (flat != 0).sum(1).to(step) if p == 0 else floats.length(flat, p)


def dual(p: float) -> float:
    """The dual q of the norm ``p``, 1/p + 1/q = 1: the change of a linear function over a unit step is its q-norm."""
    return {1.0: inf, 2.0: 2.0, inf: 1.0}[p]


def project_onto_ball(step: Tensor, radius: Tensor, p: float) -> Tensor:
    """Each step (batch x shape) projected onto the ball of norm ``p`` and its ``radius`` (batch): (batch x shape)."""
    size = per_sample(radius, step)
    if p == inf:
        return torch.maximum(torch.minimum(step, size), -size)
    return (onto_l1 if p == 1 else onto_l2)(step, size)


def per_sample(values: Tensor, x: Tensor) -> Tensor:
    """One value per sample (batch) as (batch x 1 x ...) in the dtype of x (batch x shape), to broadcast against it."""
    return values.to(x).view(-1, *[1] * (x.dim() - 1))


def normalise_l2(direction: Tensor) -> Tensor:
    """Each direction (batch x shape) scaled to l2 norm 1; zero stays zero."""
    return direction / per_sample(length(direction, 2).clamp(min=torch.finfo(direction.dtype).tiny), direction)


def cosine(step: int, steps: int, first: float, last: float) -> float:
    """Cosine annealing from ``first`` at step 0 towards ``last`` (Loshchilov and Hutter 2017, arXiv:1608.03983)."""
    return last + (first - last) * (1 + cos(pi * step / steps)) / 2


def loss_and_gradient(job: Task, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and success, both (batch), at x (batch x shape), and the gradient of the loss (batch x shape)."""
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        loss, success = job.evaluate(point)
    return loss.detach(), success, gradient(loss, point)
