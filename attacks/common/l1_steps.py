"""The l1 form of Auto-PGD (Croce and Hein 2021, arXiv:2103.01208): few coordinates a step, then onto ball and box."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import torch
from torch import Tensor

from assay.attacks.common.iterates import Trail
from assay.attacks.common.minimal_norm import column, domain
from assay.attacks.common.random_streams import uniform
from assay.attacks.common.task import Task
from assay.verify.core.region import LpBall

# The first step moves this share of the coordinates; a later one this share of those that the best point moved.
FIRST, KEPT = 0.2, 1 / 1.5
# The best point counts as sparser below this share of the coordinates that it moved before.
SPARSER = 0.95
# A size that did not help is divided by this, down to the smallest.
SLOWER, SMALLEST = 1.5, 0.1
# The ball that the search begins in, in radii.
WIDE = 3


class Sparse:
    """Steps of one radius in the coordinates of largest gradient, fewer as the best point needs fewer.

    Every 0.04 of the steps: who moves clearly fewer coordinates at the best point than before goes back there, with
    the full step; the others take shorter ones.
    """

    def __init__(self, job: Task, trail: Trail, steps: int) -> None:
        features, loss = trail.x[0].numel(), trail.loss
        self.every = max(ceil(0.04 * steps), 1)
        self.size = torch.ones_like(loss)
        moved = (trail.x != job.clean).flatten(1).sum(1).to(loss)
        self.active = torch.where(moved > 0, moved * KEPT, FIRST * features)
        self.moved = torch.where(moved > 0, moved, features)

    def step(self, job: Task, trail: Trail) -> Tensor:
        """The steepest few coordinates moved alike, those that the domain stops left out; then the projection."""
        stuck = ((trail.x >= job.upper) & (trail.grad > 0)) | ((trail.x <= job.lower) & (trail.grad < 0))
        grad = trail.grad.masked_fill(stuck, 0).flatten(1)
        count = self.active.round().clamp(min=1, max=grad.shape[1]).to(torch.int64)
        size = grad.abs()
        least = size.sort(1, descending=True).values.gather(1, count[:, None] - 1)
        way = grad.sign() * (size >= least)
        way = (way / way.abs().sum(1, keepdim=True).clamp(min=1)).view_as(trail.x)
        ball = job.region
        assert isinstance(ball, LpBall)
        return within(
            job, trail.x.double() + column(self.size.double(), way.double()) * ball.radius.to(way.device) * way
        )

    def review(self, job: Task, step: int, before: Trail, trail: Trail) -> Tensor:
        """Adapt sparsity and size to the best point."""
        if step % self.every:
            return torch.zeros_like(self.size, dtype=torch.bool)
        moved = (trail.best != job.clean).flatten(1).sum(1).to(self.moved)
        sparser = moved < SPARSER * self.moved
        self.active, self.moved = moved * KEPT, moved
        self.size = torch.where(sparser, torch.ones_like(self.size), (self.size / SLOWER).clamp(min=SMALLEST))
        return sparser

    def take(self, index: Tensor) -> None:
        """Go on with the samples ``index`` only."""
        self.size, self.active, self.moved = self.size[index], self.active[index], self.moved[index]


def enlarged(job: Task, factor: float) -> Task:
    """The task on a ball ``factor`` times as large."""
    ball = job.region
    assert isinstance(ball, LpBall)
    return Task.of(job.model, job.clean, replace(ball, eps=ball.eps * factor), job.goal)


def scattered(job: Task, keys: Tensor, stream: int) -> Tensor:
    """A random start for each sample, (batch x shape): normal noise projected onto the wide ball.

    Few coordinates move far that way; a uniform draw moves all of them a little, and finds less.
    """
    u = uniform(keys, job.clean.shape[1:], stream, torch.float64)
    noise = torch.erfinv(2 * u - 1).nan_to_num(posinf=0.0, neginf=0.0) * 2**0.5
    return within(enlarged(job, WIDE), job.clean.double() + noise)


def within(job: Task, x: Tensor) -> Tensor:
    """The member nearest to each x (batch x shape) in the l2 sense: of the l1 ball and the domain at once.

    Into one and then into the other would end further away.
    """
    ball = job.region
    assert isinstance(ball, LpBall)
    centre, legal = ball.centre.to(x.device), domain(ball)
    step = onto_l1_in_box(x - centre, ball.radius, legal.lower.to(x.device) - centre, legal.upper.to(x.device) - centre)
    return ball.project((centre + step).to(job.clean))


def onto_l1_in_box(step: Tensor, radius: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Euclidean projection of steps (batch x shape) onto {||z||_1 <= radius, low <= z <= high}, low <= 0 <= high.

    The solution shrinks every coordinate by one amount and then cuts it at its bound; the sum of what is left is
    piecewise linear in that amount, with a kink where a coordinate leaves its bound and one where it reaches 0.
    """
    flat = step.flatten(1)
    size, room = flat.abs(), torch.where(step > 0, high, -low).expand_as(step).flatten(1)
    bound = radius.reshape(-1, 1).expand(len(flat), 1).to(flat)
    free = (size - room).clamp(min=0)
    kinks, order = torch.cat([free, size], 1).sort(1)
    movable = (room > 0).to(flat)
    change = torch.cat([movable, -movable], 1)
    # Between two kinks the sum falls by the number of coordinates on the move for every unit of shrinking.
    moving = change.gather(1, order).cumsum(1)
    falls = moving[:, :-1] * kinks.diff(dim=1)
    start = torch.minimum(size, room).sum(1, keepdim=True)
    sums = torch.cat([start, start - falls.cumsum(1)], 1)
    last = (sums >= bound).sum(1, keepdim=True).clamp(min=1) - 1
    amount = kinks.gather(1, last) + (sums.gather(1, last) - bound).clamp(min=0) / moving.gather(1, last).clamp(min=1)
    amount = torch.where(start <= bound, torch.zeros_like(amount), amount)
    shrunk = flat.sign() * torch.minimum((size - amount).clamp(min=0), room)
    return shrunk.view_as(step)
