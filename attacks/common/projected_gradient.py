"""Projected gradient ascent of a goal over a region: the loop of steps and restarts that FGSM and PGD share."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from assay.attacks.common.interface import AttackResult, forward
from assay.attacks.common.random_streams import sample_keys, uniform
from assay.attacks.common.task import Record, Task
from assay.verify.core.budget import Expired
from assay.verify.core.errors import InputError

# Streams of random numbers from this one on are directions of the outputs; those before are starting points.
DIRECTIONS = 1 << 32


@dataclass(frozen=True)
class Schedule:
    """How to ascend. ``step_size`` in radii of the region; ``momentum`` is the decay of earlier gradients.

    The first of the ``restarts`` begins at the clean sample, or with ``random_start`` at a random member as the
    others do; the clean sample itself is always evaluated. ``diversify``: steps that change the outputs along a random
    direction, taken first from each random member.
    """

    steps: int
    step_size: float
    restarts: int = 1
    momentum: float = 0.0
    random_start: bool = False
    diversify: int = 0


def ascend(task: Task, schedule: Schedule, seed: int) -> AttackResult:
    """One run from the clean samples, then restarts from random members; a broken sample is not run again."""
    record = Record(task.clean)
    with suppress(Expired):  # what was found by then is found
        _ascend(record, task, schedule, seed)
    return record.result(task.region)


def _ascend(record: Record, task: Task, schedule: Schedule, seed: int) -> None:
    first = 0 if schedule.random_start else 1
    single_run(
        record, task, record.standing, task.clean, replace(schedule, steps=0) if schedule.random_start else schedule
    )
    keys = sample_keys(task.clean, seed) if schedule.restarts > first else record.queries
    for restart in range(first, schedule.restarts):
        standing = record.standing
        part = task.take(standing)
        cube = uniform(keys[standing], task.clean.shape[1:], restart, task.clean.dtype)
        start = part.region.point(cube)
        if schedule.diversify:
            start = diversified_start(part, start, keys[standing], restart, schedule.diversify)
            record.queries[standing] += schedule.diversify
        single_run(record, part, standing, start, schedule)


def diversified_start(task: Task, x: Tensor, keys: Tensor, restart: int, steps: int) -> Tensor:
    """``steps`` half-radius steps from x (batch x shape), each sample's along a random direction of its outputs.

    keys (batch), result (batch x shape). The outputs at the starts differ more than at random members (output
    diversified initialisation: Tashiro, Song and Ermon 2020, arXiv:2003.06878).
    """
    direction = None
    for _ in range(steps):
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            y = forward(task.model, point)
            if direction is None:
                direction = 2 * uniform(keys, y.shape[1:], DIRECTIONS + restart, y.dtype) - 1
            x = task.step(x, gradient((direction * y).flatten(1).sum(1), point), 0.5)
    return x.detach()


def single_run(record: Record, task: Task, index: Tensor, x: Tensor, schedule: Schedule) -> None:
    """``schedule.steps`` steps from x (samples x shape) of the samples ``index`` (samples), until they are broken.

    Momentum as in MI-FGSM (Dong et al. 2018, arXiv:1710.06081): gradients of l1 norm 1, summed with decay.
    """
    velocity = torch.zeros_like(x) if schedule.momentum else None
    for _ in range(schedule.steps):
        if not len(index):
            return
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            loss, success = task.evaluate(point)
        success = task.confirm(x, success)
        record.note(index, x, loss.detach(), success)
        if bool(success.all()):
            return
        grad = gradient(loss, point)
        if bool(success.any()):
            standing = (~success).nonzero()[:, 0]
            index, task, x, grad = index[standing], task.take(standing), x[standing], grad[standing]
            velocity = velocity[standing] if velocity is not None else None
        if velocity is not None:
            size = grad.abs().flatten(1).sum(1).clamp(min=torch.finfo(grad.dtype).tiny)
            grad = velocity = schedule.momentum * velocity + grad / size.view(-1, *[1] * (grad.dim() - 1))
        x = task.step(x, grad, schedule.step_size)
    if len(index):
        loss, success = task.evaluate(x)
        record.note(index, x, loss, task.confirm(x, success))


def gradient(loss: Tensor, x: Tensor, keep: bool = False) -> Tensor:
    """The gradient of each sample's loss (batch) in x (batch x shape), made finite: (batch x shape).

    The model's parameters get no gradients. ``keep``: the graph of the forward pass is kept for another gradient.
    Raises :class:`InputError` where the loss does not depend on x differentiably.
    """
    with torch.enable_grad():
        grad = None
        if loss.requires_grad:
            (grad,) = torch.autograd.grad(loss.sum(), x, retain_graph=keep, allow_unused=True)
    if grad is None:
        raise InputError("the model's output does not depend differentiably on its input: no gradient to follow")
    return grad.nan_to_num()
