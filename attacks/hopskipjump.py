"""HopSkipJump (Chen, Jordan and Wainwright 2020, arXiv:1904.02144): along the boundary, by decisions only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf, log2
from typing import ClassVar

import torch
from torch import Tensor

from assay.attacks.common import minimal_norm
from assay.attacks.common.interface import AttackResult, Model
from assay.attacks.common.minimal_norm import Closest, length, normalise_l2, per_sample, project_onto_ball
from assay.attacks.common.option_ranges import whole
from assay.attacks.common.random_streams import normal, sample_keys, uniform
from assay.attacks.common.task import Task
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.problem import Problem
from assay.verify.core.region import Region

# Probes that are evaluated at once, about.
BATCH = 2048
# Draws of noise for a starting point.
TRIES = 100


@dataclass(frozen=True)
class HopSkipJump:
    """``steps`` times: estimate the boundary's normal from random probes, step along it, and bisect back.

    Starts from random noise that the model gets wrong. ``probes``: of the first estimate, growing with the square root
    of the step to ``most`` at most. Only the model's decisions are used, never its gradient or its scores.
    """

    steps: int = 30
    probes: int = 100
    most: int = 10000
    name: ClassVar[str] = "hopskipjump"
    minimises: ClassVar[tuple[float, ...]] = (2.0, inf)

    def __post_init__(self) -> None:
        whole(self, "steps", "most")
        whole(self, "probes", least=2)

    def run(self, model: Model, x: Tensor, labels: Tensor, region: Region, seed: int = 0) -> AttackResult:
        """Attack classification: x (batch x shape), labels (batch).

        Raises :class:`InputError` as every attack does, :class:`UnsupportedError` for a region of another kind, or
        without a domain to draw the first noise from.
        """
        return minimal_norm.run(
            self, model, x, labels, region, "margin", lambda job, near: self._method(job, near, seed)
        )

    def search(self, problems: Sequence[Problem], seed: int = 0) -> AttackResult:
        """Attack each problem's specification."""
        return minimal_norm.search(self, problems, lambda job, near: self._method(job, near, seed))

    def _method(self, job: Task, closest: Closest, seed: int) -> None:
        if not bool((job.lower.isfinite() & job.upper.isfinite()).all()):
            raise UnsupportedError("hopskipjump needs a region with a domain, from which it draws its first noise")
        keys = sample_keys(job.clean, seed)
        self._start(job, closest, keys)
        index = closest.broken.nonzero()[:, 0]
        if not len(index):
            return
        job, keys, size = job.take(index), keys[index], job.clean[0].numel()
        x = self._bisect(job, closest, index, closest.adversarial[index])
        for step in range(1, self.steps + 1):
            far = length(x - job.clean, closest.p)
            spread = far / size if step > 1 else torch.full_like(far, 0.1 * float((job.upper - job.lower).amax()))
            count = min(int(self.probes * step**0.5), self.most)
            direction = self._estimate_normal(job, closest, index, x, spread, count, keys, step)
            x = self._bisect(job, closest, index, self._step_along(job, closest, index, x, direction, far / step**0.5))

    def _start(self, job: Task, closest: Closest, keys: Tensor) -> None:
        """Starting points: noise that breaks each sample, uniform in the domain and in its corners in turn."""
        for number in range(TRIES):
            standing = (~closest.broken).nonzero()[:, 0]
            if not len(standing):
                break
            part = job.take(standing)
            noise = uniform(keys[standing], job.clean.shape[1:], number, job.clean.dtype)
            x = part.region.point(noise if number % 2 == 0 else noise.round())
            closest.note(standing, x, part.evaluate(x)[1])

    def _bisect(self, job: Task, closest: Closest, index: Tensor, x: Tensor) -> Tensor:
        """The breaking points x moved towards their samples, to just beyond the boundary: both (batch x shape)."""
        clean, p = job.clean, closest.p
        delta = x - clean
        inside, outside = torch.zeros(len(x)).to(x), torch.ones(len(x)).to(x)
        for _ in range(ceil((1.5 if p == 2 else 1) * log2(max(2, clean[0].numel()))) + 4):
            middle = (inside + outside) / 2
            point = self._interpolate(job, delta, middle, p)
            success = job.evaluate(point)[1]
            closest.note(index, point, success)
            inside, outside = torch.where(success, inside, middle), torch.where(success, middle, outside)
        return self._interpolate(job, delta, outside, p)

    def _interpolate(self, job: Task, delta: Tensor, share: Tensor, p: float) -> Tensor:
        """The sample plus ``share`` (batch) of delta (l2), or plus delta clipped at that share of its norm (linf)."""
        if p == 2:
            return job.project(job.clean + per_sample(share, delta) * delta)
        return job.project(job.clean + project_onto_ball(delta, share * length(delta, p), p))

    def _estimate_normal(
        self, job: Task, closest: Closest, index: Tensor, x: Tensor, spread: Tensor, count: int, keys: Tensor, step: int
    ) -> Tensor:
        """Monte Carlo estimate of the boundary's normal (batch x shape) at x, towards the wrong classes, of norm 1."""
        total = torch.zeros_like(x)
        group = max(1, BATCH // count)
        for first in range(0, len(x), group):
            rows = torch.arange(first, min(first + group, len(x)), device=x.device)
            draw = self._probes(keys[rows], count, x, step, closest.p)
            each = rows.repeat_interleave(count)
            part = job.take(each)
            points = part.project(x[each] + per_sample(spread[each], part.clean) * draw.flatten(0, 1))
            draw = ((points - x[each]) / per_sample(spread[each].clamp(min=1e-12), part.clean)).view_as(draw)
            sign = 2 * part.evaluate(points)[1].view(len(rows), count).to(x) - 1
            mean = sign.mean(1, keepdim=True)
            weight = torch.where(mean.abs() == 1, sign, sign - mean)
            total[rows] = (
                per_sample(weight.flatten(), part.clean).view(len(rows), count, *[1] * (x.dim() - 1)) * draw
            ).sum(1)
        closest.queries[index] += count
        return total.sign() if closest.p == inf else normalise_l2(total)

    def _probes(self, keys: Tensor, count: int, x: Tensor, step: int, p: float) -> Tensor:
        """Random directions (batch x count x shape): of l2 norm 1, or for linf uniform in [-1, 1)."""
        shape, stream = (count, *x.shape[1:]), TRIES + 2 * step
        if p == inf:
            return 2 * uniform(keys, shape, stream, x.dtype) - 1
        draw = normal(keys, shape, stream, x.dtype)
        return normalise_l2(draw.flatten(0, 1)).view_as(draw)

    def _step_along(
        self, job: Task, closest: Closest, index: Tensor, x: Tensor, direction: Tensor, size: Tensor
    ) -> Tensor:
        """x moved by ``size`` (batch) along ``direction``, halved up to 11 times until that breaks the sample, or x."""
        point, standing = x.clone(), torch.arange(len(x), device=x.device)
        for _ in range(12):
            if not len(standing):
                break
            part = job.take(standing)
            new = part.project(x[standing] + per_sample(size[standing], part.clean) * direction[standing])
            success = part.evaluate(new)[1]
            closest.note(index[standing], new, success)
            point[standing[success]] = new[success]
            standing, size = standing[~success], size / 2
        return point
