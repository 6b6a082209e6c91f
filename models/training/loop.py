"""The training loop: one for all recipes, reproducible bit for bit on one machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import cos, isfinite, pi
from typing import Literal

import torch
from torch import Tensor, nn

from assay.models.data import Dataset
from assay.models.training.augment import shifted
from assay.models.training.averaging import Average
from assay.models.training.isolation import isolated
from assay.models.training.recipe import Recipe, Step
from assay.verify.core.errors import InputError

Schedule = Literal["cosine", "step"]


@dataclass(frozen=True)
class Epoch:
    """What one pass over the data gave: its number (from 1), mean loss, last learning rate, and seconds taken."""

    number: int
    loss: float
    lr: float
    seconds: float


@dataclass(frozen=True)
class Training:
    """How to minimise a recipe's loss: Adam (Kingma and Ba 2015, arXiv:1412.6980) and a schedule.

    ``schedule``: the learning rate falls as half a cosine to 0, or by 10 after 60% and again after 85%;
    ``weight_decay``: of Adam, an l2 penalty; ``shift``: images move by up to so many pixels at random; ``l1``: so many
    times the sum of the sizes of all weights is added to the loss; ``average``: the network is the moving average of
    its weights, of which a step keeps this share (0: the last weights).
    """

    recipe: Recipe
    epochs: int = 60
    batch: int = 64
    lr: float = 1e-3
    schedule: Schedule = "cosine"
    weight_decay: float = 0.0
    shift: int = 0
    seed: int = 0
    l1: float = 0.0
    average: float = 0.0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1:
            raise InputError(f"training needs epochs >= 1 and batch >= 1, got {self.epochs} and {self.batch}")
        if not (isfinite(self.lr) and self.lr > 0):
            raise InputError(f"training needs a finite learning rate > 0, got {self.lr}")
        if not (isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise InputError(f"training needs a finite weight decay >= 0, got {self.weight_decay}")
        if not (isfinite(self.l1) and self.l1 >= 0 and 0 <= self.average < 1):
            raise InputError(f"training needs l1 >= 0 and 0 <= average < 1, got {self.l1} and {self.average}")
        if self.schedule not in ("cosine", "step"):
            raise InputError(f"expected schedule cosine or step, got {self.schedule!r}")
        if self.shift < 0 or not 0 <= self.seed < 1 << 63:
            raise InputError(f"training needs shift >= 0 and 0 <= seed < 2^63, got {self.shift} and {self.seed}")

    def run(self, model: nn.Module, dataset: Dataset, fresh: bool = True) -> Iterator[Epoch]:
        """Train ``model`` in place, yielding after each epoch with the model in eval mode.

        A model that is not ``fresh`` goes on from its weights, without the recipe's initialisation.

        Neither torch's global generator nor its number of threads is changed for the caller, between epochs
        either. Raises :class:`InputError` when the loss is no longer finite.
        """
        if self.shift and len(dataset.shape) != 3:
            raise InputError(f"shifts need images (channels, height, width), got samples of shape {dataset.shape}")
        generator = torch.Generator().manual_seed(self.seed)
        if fresh:
            with isolated(self.seed):
                self.recipe.prepare(model, Step(0.0, generator, dataset.domain))
        optimizer = torch.optim.Adam(model.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        weights = [value for value in model.parameters() if value.dim() > 1]  # no biases, no scalings
        average = Average(model, self.average) if self.average else None
        for number in range(1, self.epochs + 1):
            start, total = time.perf_counter(), 0.0
            if average and number > 1:
                average.exchange(model)
            model.train()
            # The global generator serves layers such as Dropout that take no other; each epoch has its own seed.
            with isolated((self.seed + number) % (1 << 63)):
                batches = _batches(torch.randperm(len(dataset), generator=generator), self.batch)
                for position, index in enumerate(batches):
                    progress = (number - 1 + position / len(batches)) / self.epochs
                    for group in optimizer.param_groups:
                        group["lr"] = self.lr * decay(self.schedule, progress)
                    x, y = dataset.x[index], dataset.y[index]
                    if self.shift:
                        x = shifted(x, self.shift, dataset.domain[0], generator)
                    loss = self.recipe.loss(model, x, y, Step(progress, generator, dataset.domain))
                    if not bool(loss.isfinite()):
                        raise InputError(f"training diverged in epoch {number} (loss {loss.item():g}): lower --lr")
                    if self.l1:
                        loss = loss + self.l1 * sum(weight.abs().sum() for weight in weights)
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    if average:
                        average.update(model)
                    total += loss.item() * len(index)
            model.eval()
            if average:
                average.exchange(model)
            yield Epoch(number, total / len(dataset), optimizer.param_groups[0]["lr"], time.perf_counter() - start)


def _batches(order: Tensor, size: int) -> list[Tensor]:
    """``order`` cut into batches; a last one of a single sample, which has no variance to normalise by, joins the
    one before."""
    batches = list(torch.split(order, size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def decay(schedule: Schedule, progress: float) -> float:
    """The learning rate at ``progress`` (0 to 1) as a share of the first.

    >>> decay("cosine", 0.5), decay("step", 0.7)
    (0.5, 0.1)
    """
    if schedule == "cosine":
        return round((1 + cos(pi * progress)) / 2, 12)
    return 1.0 if progress < 0.6 else 0.1 if progress < 0.85 else 0.01
