"""Baselines without gradients: random members of the region, and a regular grid over it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from assay.attacks.common import task
from assay.attacks.common.interface import AttackResult, Model
from assay.attacks.common.option_ranges import whole
from assay.attacks.common.random_streams import sample_keys, uniform
from assay.attacks.common.task import Record, Task
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.problem import Problem
from assay.verify.core.region import Region
from assay.verify.support.plain import counted

# Points of the grid that are evaluated at once.
BLOCK = 256


@dataclass(frozen=True)
class Random:
    """The clean sample, then ``points`` random members of the region, until one breaks the sample."""

    points: int = 100
    name: ClassVar[str] = "random"

    def __post_init__(self) -> None:
        whole(self, "points")

    def run(self, model: Model, x: Tensor, labels: Tensor, region: Region, seed: int = 0) -> AttackResult:
        """Attack classification: x (batch x shape), labels (batch). Raises :class:`InputError` as every attack does."""
        return task.run(model, x, labels, region, "margin", lambda job: self._method(job, seed))

    def search(self, problems: Sequence[Problem], seed: int = 0) -> AttackResult:
        """Attack each problem's specification."""
        return task.search(problems, lambda job: self._method(job, seed))

    def _method(self, job: Task, seed: int) -> AttackResult:
        record, keys = clean_record(job), sample_keys(job.clean, seed)
        for number in range(self.points):
            standing = record.standing
            if not len(standing):
                break
            part = job.take(standing)
            x = part.region.point(uniform(keys[standing], job.clean.shape[1:], number, job.clean.dtype))
            loss, success = part.evaluate(x)
            record.note(standing, x, loss, part.confirm(x, success))
        return record.result(job.region)


@dataclass(frozen=True)
class Grid:
    """The regular grid of at most ``points`` points over the region's bounding box, corners included.

    Points outside of a ball are projected onto it. For regions of few free inputs: each needs two values at least.
    """

    points: int = 4096
    name: ClassVar[str] = "grid"
    random: ClassVar[bool] = False

    def __post_init__(self) -> None:
        whole(self, "points", least=2)

    def run(self, model: Model, x: Tensor, labels: Tensor, region: Region, seed: int = 0) -> AttackResult:
        """Attack classification: x (batch x shape), labels (batch); nothing is random.

        Raises :class:`InputError` as every attack does, :class:`UnsupportedError` for a region of too many inputs.
        """
        return task.run(model, x, labels, region, "margin", self._method)

    def search(self, problems: Sequence[Problem], seed: int = 0) -> AttackResult:
        """Attack each problem's specification."""
        return task.search(problems, self._method)

    def _method(self, job: Task) -> AttackResult:
        record = clean_record(job)
        for i in record.standing.tolist():
            one = torch.tensor([i], device=job.clean.device)
            part = job.take(one)
            for x in self._blocks(part):
                members = part.take(torch.zeros(len(x), dtype=torch.int64, device=x.device))
                x = members.region.project(x)
                loss, success = members.evaluate(x)
                success = members.confirm(x, success)
                first = success.to(torch.uint8).argmax() if bool(success.any()) else loss.argmax()
                record.note(one, x[first][None], loss[first][None], success[first][None])
                record.queries[i] += len(x) - 1
                if bool(success.any()):
                    break
        return record.result(job.region)

    def _blocks(self, part: Task) -> Iterator[Tensor]:
        """The grid of one sample's region in blocks (points x shape)."""
        box = part.region.box()
        low, high = (bound.reshape(-1).to(part.clean.device) for bound in (box.lower, box.upper))
        axes = (high > low).nonzero()[:, 0]
        values = int((self.points + 0.5) ** (1 / max(1, len(axes))))
        if values < 2:
            raise UnsupportedError(
                f"grid needs at least 2^{len(axes)} points for {counted(len(axes), 'free input')}, "
                f"and has {self.points}"
            )
        total = values ** len(axes)
        for first in range(0, total, BLOCK):
            number = torch.arange(first, min(first + BLOCK, total), device=low.device)
            x = part.clean.reshape(1, -1).double().repeat(len(number), 1)
            for axis in axes.tolist():
                share = (number % values) / (values - 1)
                x[:, axis] = low[axis] + share * (high[axis] - low[axis])
                number = number // values
            yield x.to(part.clean.dtype).view(-1, *part.clean.shape[1:])


def clean_record(job: Task) -> Record:
    """A record in which the clean samples are evaluated."""
    record = Record(job.clean)
    if len(job.clean):
        loss, success = job.evaluate(job.clean)
        record.note(record.standing, job.clean, loss, job.confirm(job.clean, success))
    return record
