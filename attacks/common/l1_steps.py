"""Auto-PGD in l1 (Croce and Hein 2021, arXiv:2103.01208): sparse steps, projected onto ball and box at once."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import torch
from torch import Tensor

from assay.attacks.common.iterates import Iterates
from assay.attacks.common.minimal_norm import domain, per_sample
from assay.attacks.common.random_streams import uniform
from assay.attacks.common.task import Task
from assay.verify.core.region import LpBall

# The first step moves this share of the coordinates; a later one this share of those that the best point moved.
FIRST, KEPT = 0.2, 1 / 1.5
# The best point counts as sparser below this share of the coordinates that it moved before.
SPARSER = 0.95
# A size that did not help is divided by this, down to the smallest.
SLOWER, SMALLEST = 1.5, 0.1
# The radius of the ball that the search begins in, in radii of the region.
WIDE = 3


class SparseSteps:
    """Steps of ``size`` radii along the ``active`` coordinates of largest gradient, both (batch).

    Reviewed every 0.04 of the steps: a sample whose best point changes clearly fewer coordinates than at the review
    before restarts from there with size 1; the size of the others is divided by 1.5, down to 0.1.
    """

    def __init__(self, job: Task, iterates: Iterates, steps: int) -> None:
        features, loss = iterates.x[0].numel(), iterates.loss
        self.every = max(ceil(0.04 * steps), 1)
        self.size = torch.ones_like(loss)
        moved = (iterates.x != job.clean).flatten(1).sum(1).to(loss)
        self.active = torch.where(moved > 0, moved * KEPT, FIRST * features)
        self.moved = torch.where(moved > 0, moved, features)

    def step(self, job: Task, iterates: Iterates) -> Tensor:
        """The next members (batch x shape); coordinates that the domain stops are not counted as steep."""
        stuck = ((iterates.x >= job.upper) & (iterates.grad > 0)) | ((iterates.x <= job.lower) & (iterates.grad < 0))
        grad = iterates.grad.masked_fill(stuck, 0).flatten(1)
        count = self.active.round().clamp(min=1, max=grad.shape[1]).to(torch.int64)
        size = grad.abs()
        least = size.sort(1, descending=True).values.gather(1, count[:, None] - 1)
        direction = grad.sign() * (size >= least)
        direction = (direction / direction.abs().sum(1, keepdim=True).clamp(min=1)).view_as(iterates.x)
        ball = job.region
        assert isinstance(ball, LpBall)
        return nearest_member(
            job,
            iterates.x.double()
            + per_sample(self.size.double(), direction.double()) * ball.radius.to(direction.device) * direction,
        )

    def review(self, job: Task, step: int, previous: Iterates, iterates: Iterates) -> Tensor:
        """Adapt sparsity and size; which samples restart from their best point: (batch), bool."""
        if step % self.every:
            return torch.zeros_like(self.size, dtype=torch.bool)
        moved = (iterates.best != job.clean).flatten(1).sum(1).to(self.moved)
        sparser = moved < SPARSER * self.moved
        self.active, self.moved = moved * KEPT, moved
        self.size = torch.where(sparser, torch.ones_like(self.size), (self.size / SLOWER).clamp(min=SMALLEST))
        return sparser

    def take(self, index: Tensor) -> None:
        """Keep the samples at the positions ``index`` (samples) only."""
        self.size, self.active, self.moved = self.size[index], self.active[index], self.moved[index]


def enlarged(job: Task, factor: float) -> Task:
    """The task on a ball ``factor`` times as large."""
    ball = job.region
    assert isinstance(ball, LpBall)
    return Task.of(job.model, job.clean, replace(ball, eps=ball.eps * factor), job.goal)


def gaussian_start(job: Task, keys: Tensor, stream: int) -> Tensor:
    """Random starts (batch x shape) by ``keys`` (batch): standard normal noise projected onto the enlarged ball.

    The projection leaves few coordinates changed, by much; uniform members change all by little and break fewer
    samples.
    """
    u = uniform(keys, job.clean.shape[1:], stream, torch.float64)
    noise = torch.erfinv(2 * u - 1).nan_to_num(posinf=0.0, neginf=0.0) * 2**0.5
    return nearest_member(enlarged(job, WIDE), job.clean.double() + noise)


def nearest_member(job: Task, x: Tensor) -> Tensor:
    """The Euclidean projection of x (batch x shape), float64, onto the region: (batch x shape), the samples' dtype.

    Onto the l1 ball and the domain at once: one after the other does not give the nearest point.
    """
    ball = job.region
    assert isinstance(ball, LpBall)
    centre, legal = ball.centre.to(x.device), domain(ball)
    step = onto_l1_in_box(x - centre, ball.radius, legal.lower.to(x.device) - centre, legal.upper.to(x.device) - centre)
    return ball.project((centre + step).to(job.clean))


def onto_l1_in_box(step: Tensor, radius: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Euclidean projection of steps (batch x shape) onto {||z||_1 <= radius, low <= z <= high}, low <= 0 <= high.

    ``radius``: one, or (batch); ``low`` and ``high`` broadcast against the steps.

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
    # Between two kinks the sum falls by the number of moving coordinates per unit of shrinking.
    moving = change.gather(1, order).cumsum(1)
    falls = moving[:, :-1] * kinks.diff(dim=1)
    start = torch.minimum(size, room).sum(1, keepdim=True)
    sums = torch.cat([start, start - falls.cumsum(1)], 1)
    last = (sums >= bound).sum(1, keepdim=True).clamp(min=1) - 1
    amount = kinks.gather(1, last) + (sums.gather(1, last) - bound).clamp(min=0) / moving.gather(1, last).clamp(min=1)
    amount = torch.where(start <= bound, torch.zeros_like(amount), amount)
    shrunk = flat.sign() * torch.minimum((size - amount).clamp(min=0), room)
    return shrunk.view_as(step)
