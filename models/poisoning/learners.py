"""Base classifiers that are trained on parts of a data set: determined by the samples of their part alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from assay.models.architectures import mlp
from assay.models.data import Dataset
from assay.models.training.isolation import isolated
from assay.models.training.loop import Training
from assay.models.training.standard import Standard
from assay.verify.core.errors import InputError

Scores = Callable[[Tensor], Tensor]


class Learner(Protocol):
    """Training as a function of the samples and nothing else: no order, no clock, no generator of others."""

    name: ClassVar[str]

    def fit(self, part: Dataset) -> Scores:
        """A classifier: (batch x shape) to scores (batch x classes)."""
        ...


@dataclass(frozen=True)
class Ridge:
    """Least squares on one-hot labels with an l2 penalty, in float64 and closed form. ``penalty``: times the identity,
    beside pixels in the units of the data."""

    penalty: float = 1.0
    name: ClassVar[str] = "ridge"

    def __post_init__(self) -> None:
        if not 0 < self.penalty < float("inf"):
            raise InputError(f"ridge: penalty must be a finite number > 0, got {self.penalty}")

    def fit(self, part: Dataset) -> Scores:
        """See :class:`Learner`."""
        x, y = with_one(part.x), torch.nn.functional.one_hot(part.y, part.classes).double()
        weight = torch.linalg.solve(x.T @ x + self.penalty * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)
        return lambda points: with_one(points) @ weight


@dataclass(frozen=True)
class Perceptron:
    """A network of one hidden layer, trained by Adam from its own seed, whatever runs beside it."""

    hidden: int = 32
    epochs: int = 20
    lr: float = 1e-2
    seed: int = 0
    name: ClassVar[str] = "mlp"

    def __post_init__(self) -> None:
        if self.hidden < 1 or self.epochs < 1:
            raise InputError(f"mlp: expected hidden >= 1 and epochs >= 1, got {self.hidden} and {self.epochs}")

    def fit(self, part: Dataset) -> Scores:
        """See :class:`Learner`."""
        return self.network(part)

    def network(self, part: Dataset) -> torch.nn.Sequential:
        """The trained network, in eval mode."""
        with isolated(self.seed):
            network = mlp(part.shape, part.classes, [self.hidden])
        for _ in Training(Standard(), epochs=self.epochs, lr=self.lr, seed=self.seed).run(network, part):
            pass
        return network


def with_one(x: Tensor) -> Tensor:
    """Samples (batch x shape) as rows with a 1 at the end: (batch x values + 1), float64."""
    flat = x.double().flatten(1)
    return torch.cat([flat, flat.new_ones(len(flat), 1)], 1)
