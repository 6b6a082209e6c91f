"""Adam on a penalty plus ``c`` times what the loss lacks to success: the inner loop of Carlini and Wagner's attacks.

Each sample has its own ``c``, state of Adam, and end (Carlini and Wagner 2017, arXiv:1608.04644).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from assay.attacks.common.minimal_norm import Closest, loss_and_gradient, per_sample
from assay.attacks.common.task import Task

# Perturbations (samples x shape) and the positions of their samples in the batch (samples)
# -> their penalty (samples) and its gradient (samples x shape).
Penalty = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Adam:
    """``steps`` steps of Adam (Kingma and Ba 2015, arXiv:1412.6980) of size ``rate``.

    A sample stops where its objective fell by less than a ten-thousandth over a tenth of the steps. ``confidence``:
    the loss that a point has to reach to count as success.
    """

    steps: int
    rate: float
    confidence: float = 0.0
    decay: tuple[float, float] = field(default=(0.9, 0.999))


class WeightSearch:
    """The binary search for the smallest weight ``c`` (batch), float64, that breaks each sample."""

    def __init__(self, first: Tensor) -> None:
        self.c = first
        self.low = torch.zeros_like(first)
        self.high = torch.full_like(first, torch.inf)

    def update(self, broken: Tensor) -> None:
        """The next weights after a run with ``c`` that broke the samples ``broken`` (batch), bool.

        Ten times larger until a sample is first broken, then the middle of the largest weight that failed and the
        smallest that succeeded.
        """
        self.high = torch.where(broken, torch.minimum(self.high, self.c), self.high)
        self.low = torch.where(broken, self.low, torch.maximum(self.low, self.c))
        self.c = torch.where(self.high.isinf(), 10 * self.c, (self.low + self.high) / 2)


@dataclass(frozen=True)
class Descent:
    """The end of a descent: ``x`` (batch x shape) the last points; ``broken`` (batch), bool: whether any succeeded."""

    x: Tensor
    broken: Tensor


def l2_penalty(delta: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """The squared l2 norm of ``delta`` (samples x shape): (samples), and its gradient (samples x shape)."""
    return delta.square().flatten(1).sum(1), 2 * delta


def linf_penalty(threshold: Tensor) -> Penalty:
    """The sum over the coordinates of their excess over each sample's ``threshold`` (batch)."""

    def penalty(delta: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        excess = delta.abs() - per_sample(threshold[index], delta)
        return excess.clamp(min=0).flatten(1).sum(1), delta.sign() * (excess > 0)

    return penalty


def descend(
    job: Task,
    closest: Closest,
    start: Tensor,
    c: Tensor,
    penalty: Penalty,
    adam: Adam,
    free: Tensor | None = None,
    stop: bool = False,
) -> Descent:
    """Descend from ``start`` (batch x shape) with weights ``c`` (batch); every breaking point goes to ``closest``.

    The steps keep to the region by projection, one of the paper's three ways: by its change of variables, tanh,
    coordinates at the edge of the domain hardly move. ``free`` (batch x shape), bool: the coordinates that may change,
    all if None. ``stop``: a sample stops as soon as it is broken with a penalty of 0, and only then.
    """
    index = torch.arange(len(start), device=start.device)
    x, last, broken = start, start.clone(), torch.zeros(len(start), dtype=torch.bool, device=start.device)
    mean, variance, previous = torch.zeros_like(x), torch.zeros_like(x), torch.full_like(c, torch.inf)
    period = max(1, adam.steps // 10)
    for step in range(1, adam.steps + 1):
        loss, success, grad = loss_and_gradient(job, x)
        success = success & (loss >= adam.confidence)
        closest.note(index, x, success)
        broken[index] |= success
        last[index] = x
        value, penalty_grad = penalty(x - job.clean, index)
        shortfall = (adam.confidence - loss).clamp(min=0)
        g = penalty_grad - per_sample(c * (shortfall > 0), grad) * grad
        g = g if free is None else g * free
        mean = adam.decay[0] * mean + (1 - adam.decay[0]) * g
        variance = adam.decay[1] * variance + (1 - adam.decay[1]) * g.square()
        size = adam.rate * (1 - adam.decay[1] ** step) ** 0.5 / (1 - adam.decay[0] ** step)
        x = job.project(x - size * mean / (variance.sqrt() + 1e-8))
        done = success & (value == 0) if stop else torch.zeros_like(success)
        if step % period == 0 and not stop:
            objective = value.double() + c * shortfall.double()
            done = objective > 0.9999 * previous
            previous = objective
        if bool(done.any()):
            keep = (~done).nonzero()[:, 0]
            index, job, x, c = index[keep], job.take(keep), x[keep], c[keep]
            mean, variance, previous = mean[keep], variance[keep], previous[keep]
            free = None if free is None else free[keep]
            if not len(keep):
                break
    return Descent(last, broken)
