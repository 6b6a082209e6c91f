"""Adam on a penalty plus ``c`` times the distance to breaking a sample: the inner loop of Carlini and Wagner's attacks.

Each sample has its own ``c``, its own state, and its own end (Carlini and Wagner 2017, arXiv:1608.04644).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from assay.attacks.common.minimal_norm import Closest, column, slope
from assay.attacks.common.task import Task

# A change (batch x shape) and the samples that it is of -> its price (batch) and the price's gradient (batch x shape).
Penalty = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Adam:
    """``steps`` steps of Adam (Kingma and Ba 2015, arXiv:1412.6980) of size ``rate``.

    A sample leaves where its objective fell by less than a ten-thousandth over a tenth of the steps. ``confidence``:
    the loss that a point has to reach to count.
    """

    steps: int
    rate: float
    confidence: float = 0.0
    decay: tuple[float, float] = field(default=(0.9, 0.999))


class Weights:
    """The binary search for the smallest weight ``c`` (batch), float64, that breaks each sample."""

    def __init__(self, first: Tensor) -> None:
        self.c = first
        self.low = torch.zeros_like(first)
        self.high = torch.full_like(first, torch.inf)

    def learn(self, broken: Tensor) -> None:
        """Ten times larger until a sample is first broken, then the middle of what is too small and what is enough."""
        self.high = torch.where(broken, torch.minimum(self.high, self.c), self.high)
        self.low = torch.where(broken, self.low, torch.maximum(self.low, self.c))
        self.c = torch.where(self.high.isinf(), 10 * self.c, (self.low + self.high) / 2)


@dataclass(frozen=True)
class Walk:
    """Where a descent ended: ``x`` (batch x shape) the last points, ``broken`` (batch) whether any point on the way."""

    x: Tensor
    broken: Tensor


def square(delta: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """The squared l2 norm."""
    return delta.square().flatten(1).sum(1), 2 * delta


def excess(threshold: Tensor) -> Penalty:
    """The sum of what the coordinates exceed each sample's ``threshold`` (batch) by."""

    def price(delta: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        over = delta.abs() - column(threshold[index], delta)
        return over.clamp(min=0).flatten(1).sum(1), delta.sign() * (over > 0)

    return price


def descend(
    job: Task,
    closest: Closest,
    start: Tensor,
    c: Tensor,
    penalty: Penalty,
    adam: Adam,
    free: Tensor | None = None,
    stop: bool = False,
) -> Walk:
    """Descend from ``start`` (batch x shape) by the weights ``c`` (batch); every breaking point goes to ``closest``.

    The steps keep to the region by projection, one of the paper's three ways: its change of variables by tanh hardly
    moves what lies at the domain's edge. ``free``: the coordinates that may change (batch x shape), all if None.
    ``stop``: a sample leaves when it is broken at no price, and only then.
    """
    index = torch.arange(len(start), device=start.device)
    x, last, broken = start, start.clone(), torch.zeros(len(start), dtype=torch.bool, device=start.device)
    mean, spread, before = torch.zeros_like(x), torch.zeros_like(x), torch.full_like(c, torch.inf)
    period = max(1, adam.steps // 10)
    for step in range(1, adam.steps + 1):
        loss, success, grad = slope(job, x)
        success = success & (loss >= adam.confidence)
        closest.note(index, x, success)
        broken[index] |= success
        last[index] = x
        price, pull = penalty(x - job.clean, index)
        short = (adam.confidence - loss).clamp(min=0)
        g = pull - column(c * (short > 0), grad) * grad
        g = g if free is None else g * free
        mean = adam.decay[0] * mean + (1 - adam.decay[0]) * g
        spread = adam.decay[1] * spread + (1 - adam.decay[1]) * g.square()
        size = adam.rate * (1 - adam.decay[1] ** step) ** 0.5 / (1 - adam.decay[0] ** step)
        x = job.project(x - size * mean / (spread.sqrt() + 1e-8))
        over = success & (price == 0) if stop else torch.zeros_like(success)
        if step % period == 0 and not stop:
            value = price.double() + c * short.double()
            over = value > 0.9999 * before
            before = value
        if bool(over.any()):
            keep = (~over).nonzero()[:, 0]
            index, job, x, c = index[keep], job.take(keep), x[keep], c[keep]
            mean, spread, before = mean[keep], spread[keep], before[keep]
            free = None if free is None else free[keep]
            if not len(keep):
                break
    return Walk(last, broken)
