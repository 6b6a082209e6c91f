"""What a recipe is: the loss of a batch, at a given moment of the training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Step:
    """The moment at which a loss is asked for.

    ``progress``: share of the training that is done, from 0 to 1, for ramps; ``generator``: the only source of
    randomness that a recipe may use; ``domain``: lowest and highest legal input.
    """

    progress: float
    generator: torch.Generator
    domain: tuple[float, float]


class Recipe(Protocol):
    """What is minimised. Options are the fields of a frozen dataclass."""

    name: ClassVar[str]

    @property
    def eps(self) -> float:
        """The radius (linf, in the units of the input) that is trained for; 0 where there is none."""
        ...

    def prepare(self, model: nn.Module, step: Step) -> None:
        """What is done to the model once, before the first step: nothing, or an initialisation of its own."""
        ...

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """Mean loss of a batch, to be differentiated: x (batch x shape), y (batch); the model is in train mode."""
        ...


@runtime_checkable
class Noisy(Recipe, Protocol):
    """A recipe for networks that are to be smoothed with Gaussian noise."""

    @property
    def sigma(self) -> float:
        """The deviation of the noise, in the units of the input."""
        ...
