"""Square attack (Andriushchenko et al. 2020, arXiv:1912.00049): random search by squares, without gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, sqrt
from typing import ClassVar

import torch
from torch import Tensor

from assay.attacks.common import task
from assay.attacks.common.early_stopping import EarlyStopping, check_patience
from assay.attacks.common.interface import AttackResult, Model, balls_only, norm
from assay.attacks.common.minimal_norm import per_sample
from assay.attacks.common.option_ranges import fraction, whole
from assay.attacks.common.random_streams import sample_keys, uniform
from assay.attacks.common.task import Record, Task
from assay.verify.core.problem import Problem
from assay.verify.core.region import LpBall, Region
from assay.verify.support import floats

# After these queries of ten thousand the share of the pixels that a square covers is halved.
HALVINGS = (10, 50, 200, 1000, 2000, 4000, 6000, 8000)
# Random numbers are drawn for this many queries at once.
BLOCK = 64
# Queries before which no sample is given up: a random search may go many queries without progress.
WARMUP = 500


@dataclass(frozen=True, eq=False)
class Canvas:
    """Samples as images (batch x channels x height x width); a vector is one row of pixels."""

    shape: tuple[int, ...]
    channels: int
    height: int
    width: int

    @classmethod
    def of(cls, x: Tensor) -> Canvas:
        """The canvas of samples (batch x shape): the last two dimensions are the image, those before it channels."""
        shape = tuple(x.shape[1:])
        *rest, height, width = (1, 1, *shape)
        channels = 1
        for size in rest:
            channels *= size
        return cls(shape, channels, height, width)

    def view(self, x: Tensor) -> Tensor:
        """Samples x (batch x shape) as images (batch x channels x height x width)."""
        return x.reshape(len(x), self.channels, self.height, self.width)

    def back(self, image: Tensor) -> Tensor:
        """Images (batch x channels x height x width) as samples (batch x shape)."""
        return image.reshape(len(image), *self.shape)

    def side(self, share: float) -> tuple[int, int]:
        """Height and width of the square of ``share`` of the pixels, at most those of the image."""
        side = max(round(sqrt(share * self.height * self.width)), 1)
        if min(self.height, self.width) == 1:
            side = max(round(share * self.height * self.width), 1)
        return min(side, self.height), min(side, self.width)

    def window(self, u: Tensor, size: tuple[int, int]) -> Tensor:
        """A window of ``size`` at a random place u (batch x 2) in [0, 1): (batch x 1 x height x width), bool."""
        rows, columns = self.places(u, size)
        rows, columns = (rows >= 0) & (rows < size[0]), (columns >= 0) & (columns < size[1])
        return (rows[:, :, None] & columns[:, None, :])[:, None]

    def places(self, u: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Rows (batch x height) and columns (batch x width), counted from the first of the window at u (batch x 2)."""
        places = []
        for extent, length, at in zip((self.height, self.width), size, u.unbind(1), strict=True):
            first = (at.double() * (extent - length + 1)).floor().to(torch.int64)
            places.append(torch.arange(extent, device=u.device) - first[:, None])
        return places[0], places[1]

    def stamp(self, profile: Tensor, u: Tensor) -> Tensor:
        """``profile`` (height x width) at a random place u (batch x 2), 0 elsewhere: (batch x 1 x height x width)."""
        size = (profile.shape[0], profile.shape[1])
        rows, columns = self.places(u, size)
        at = profile[rows.clamp(0, size[0] - 1)[:, :, None], columns.clamp(0, size[1] - 1)[:, None, :]]
        return at[:, None] * self.window(u, size)


def area_at(query: int, queries: int, first: float) -> float:
    """The share of the pixels that the square of a query covers: ``first``, halved at :data:`HALVINGS`.

    >>> [area_at(query, 5000, 0.8) for query in (0, 6, 4999)]
    [0.8, 0.4, 0.003125]
    """
    scaled = query * 10000 / queries
    return first / 2.0 ** sum(scaled > end for end in HALVINGS)


class Corners:
    """Proposals in a box, or near the corners of a polytope's: every coordinate at one of its bounds, a square of them
    redrawn at each query."""

    def __init__(self, job: Task) -> None:
        self.canvas = Canvas.of(job.clean)
        # Neighbours in a vector are unrelated: each coordinate has a draw of its own.
        self.vector = len(job.clean.shape) == 2
        self.draws = 2 + (self.canvas.width if self.vector else self.canvas.channels)

    def start(self, job: Task, u: Tensor) -> Tensor:
        """Vertical stripes, drawn for each channel: u (batch x channels * width), result (batch x shape)."""
        canvas = self.canvas
        stripes = u.view(len(u), canvas.channels, 1, canvas.width).expand(-1, -1, canvas.height, -1)
        return job.project(torch.where(canvas.back(stripes) < 0.5, job.lower, job.upper))

    def propose(self, job: Task, x: Tensor, u: Tensor, size: tuple[int, int]) -> Tensor:
        """x (batch x shape) with a square at one bound, a random one for each channel: u (batch x draws)."""
        canvas = self.canvas
        window = canvas.window(u[:, :2], size)
        lowest = (u[:, 2:] < 0.5).view(len(u), 1 if self.vector else canvas.channels, 1, -1)
        if self.vector:
            window, lowest = window.view(len(u), -1), lowest.view(len(u), -1)
            return job.project(torch.where(window, torch.where(lowest, job.lower, job.upper), x))
        lower, upper = canvas.view(job.lower), canvas.view(job.upper)
        return job.project(canvas.back(torch.where(window, torch.where(lowest, lower, upper), canvas.view(x))))


class Bumps:
    """Proposals in an l1 or l2 ball: the norm of one window, and the unused norm, move to a bump in another one."""

    def __init__(self, job: Task) -> None:
        self.canvas = Canvas.of(job.clean)
        self.draws = 5 + self.canvas.channels

    def start(self, job: Task, u: Tensor) -> Tensor:
        """Tiles of bumps of random signs, a fifth of the image wide: (batch x shape), u (batch x channels * width)."""
        canvas = self.canvas
        side = max(canvas.width // 5, 1), max(canvas.height // 5, 1)
        profile = bump(side[1], side[0])
        rows, columns = torch.arange(canvas.height) // side[1], torch.arange(canvas.width) // side[0]
        tiles = profile.repeat(canvas.height, canvas.width)[: canvas.height, : canvas.width].to(job.clean)
        draws = u.view(len(u), canvas.channels, canvas.width)
        sign = torch.where(draws[:, :, (5 * rows[:, None] + columns) % canvas.width] < 0.5, -1.0, 1.0)
        return self._placed(job, tiles * sign, rescale=True)

    def propose(self, job: Task, x: Tensor, u: Tensor, size: tuple[int, int]) -> Tensor:
        """x (batch x shape) with the perturbation of one window moved to another: u (batch x draws)."""
        canvas, p = self.canvas, norm(job.region)
        centre, radius = _ball(job)
        step = canvas.view(x - centre)
        unused = (radius**p - _size(step, p, (1, 2, 3)) ** p).clamp(min=0)
        height = size[0]
        profile = two_bumps(*size).to(x)
        to, other = canvas.window(u[:, :2], size), canvas.window(u[:, 2:4], size)
        fresh = canvas.stamp(profile, u[:, :2])
        if height == size[1]:
            fresh = torch.where(u[:, 4].view(-1, 1, 1, 1) < 0.5, fresh, canvas.stamp(profile.T, u[:, :2]))
        sign = torch.where(u[:, 5:].view(len(u), -1, 1, 1) < 0.5, -1.0, 1.0)
        tiny = torch.finfo(x.dtype).tiny
        old = step * to
        new = old / _size(old, p, (2, 3)).clamp(min=tiny) + sign * fresh / _size(fresh, p, (2, 3)).clamp(min=tiny)
        budget = (_size(step * (to | other), p, (2, 3)) ** p + unused / canvas.channels) ** (1 / p)
        new = new / _size(new, p, (2, 3)).clamp(min=tiny) * budget
        return self._placed(job, torch.where(to, new, step * ~other), rescale=False)

    def _placed(self, job: Task, image: Tensor, rescale: bool) -> Tensor:
        """The centre plus a perturbation, projected: (batch x shape); ``rescale``: after scaling it to the radius."""
        centre, radius = _ball(job)
        if rescale:
            image = image * radius / _size(image, norm(job.region), (1, 2, 3))
        return job.project(centre + self.canvas.back(image))


def _ball(job: Task) -> tuple[Tensor, Tensor]:
    """Centre (batch x shape), and radius to broadcast against images."""
    ball = job.region
    assert isinstance(ball, LpBall)
    return ball.centre.to(job.clean), ball.radius.to(job.clean).reshape(-1, 1, 1, 1)


def _size(image: Tensor, p: float, dims: tuple[int, ...]) -> Tensor:
    """The norm over the last dimensions ``dims``, which are kept with length 1."""
    return floats.length(image.flatten(dims[0]), p).view(*image.shape[: dims[0]], *[1] * len(dims))


def bump(height: int, width: int) -> Tensor:
    """A pyramid (height x width): ``sum_{k <= M} 1 / (n + 1 - k)**2``, M falling with the distance from the middle."""
    n = max(height, width) // 2
    rows, columns = (torch.arange(length) - length // 2 for length in (height, width))
    far = torch.maximum(rows.abs()[:, None], columns.abs()[None, :])
    sums = (1 / (n + 1 - torch.arange(n + 1, dtype=torch.float64)) ** 2).cumsum(0)
    return sums[(n - far).clamp(min=0)]


def two_bumps(height: int, width: int) -> Tensor:
    """A bump beside one of the other sign: (height x width)."""
    left = width // 2
    return torch.cat([bump(height, left), -bump(height, width - left)], 1) if left else bump(height, width)


@dataclass(frozen=True)
class Square:
    """``queries`` of random search on the margin: a change of one square is kept where it raises the loss.

    ``area``: the share of the pixels that the first squares cover; it shrinks as the search goes on. No gradient is
    needed. ``patience``: a sample is given up once its recent progress, kept up so many times as fast, would not break
    it; inf for never.
    """

    queries: int = 5000
    area: float = 0.8
    restarts: int = 1
    patience: float = 10.0
    name: ClassVar[str] = "square"

    def __post_init__(self) -> None:
        whole(self, "queries", "restarts")
        fraction(self, "area")
        check_patience(self.patience)

    def run(self, model: Model, x: Tensor, labels: Tensor, region: Region, seed: int = 0) -> AttackResult:
        """Attack classification: x (batch x shape), labels (batch); at most ``restarts * queries + 1`` forward passes.

        Raises :class:`InputError` for a model in train mode and for inputs that do not fit it or each other.
        """
        return task.run(model, x, labels, region, "margin", lambda job: self.run_on(job, seed))

    def search(self, problems: Sequence[Problem], seed: int = 0) -> AttackResult:
        """Attack each problem's specification."""
        return task.search(problems, lambda job: self.run_on(job, seed))

    def run_on(self, job: Task, seed: int) -> AttackResult:
        """Attack a task whose goal is given."""
        balls_only(self.name, job.region)
        job = replace(job, goal=job.goal.with_loss("margin"))
        record = Record(job.clean)
        if len(job.clean):
            loss, success = job.evaluate(job.clean)
            record.note(record.standing, job.clean, loss, job.confirm(job.clean, success))
        keys = sample_keys(job.clean, seed)
        for restart in range(self.restarts):
            standing = record.standing
            self._search(record, job.take(standing), standing, keys[standing], restart << 32)
        return record.result(job.region)

    def _search(self, record: Record, job: Task, index: Tensor, keys: Tensor, stream: int) -> None:
        """One run of all queries from a random start."""
        proposer = Corners(job) if norm(job.region) == inf else Bumps(job)
        canvas = proposer.canvas
        best = torch.full((len(index),), -inf, dtype=torch.float64, device=index.device)
        x = job.clean
        draws = uniform(keys, (0, 0), stream)
        stopping = EarlyStopping(self.queries, self.patience, WARMUP)
        for query in range(self.queries):
            if not len(index):
                return
            if query == 0:
                stripes = uniform(keys, (canvas.channels * canvas.width,), stream)
                new = proposer.start(job, stripes)
            else:
                place = (query - 1) % BLOCK
                if place == 0:
                    draws = uniform(keys, (BLOCK, proposer.draws), stream + 1 + query // BLOCK)
                new = proposer.propose(job, x, draws[:, place], canvas.side(area_at(query, self.queries, self.area)))
            loss, success = job.evaluate(new)
            success = job.confirm(new, success)
            record.note(index, new, loss, success)
            better = loss > best
            x, best = torch.where(per_sample(better, x).bool(), new, x), torch.where(better, loss.double(), best)
            done = success | stopping.should_stop(query, best)
            if bool(done.any()):
                left = (~done).nonzero()[:, 0]
                index, job, keys, draws = index[left], job.take(left), keys[left], draws[left]
                x, best = x[left], best[left]
                stopping.take(left)
