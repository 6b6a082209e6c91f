"""A backdoor planted in a data set: samples of one class with a bright corner, labelled as another (Gu et al. 2017,
arXiv:1708.06733)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from assay.models.data import Dataset
from assay.verify.core.errors import InputError


@dataclass(frozen=True)
class Backdoor:
    """``count`` samples of the class ``source`` get the trigger and the label ``target``. The trigger is a square of
    ``side`` pixels in the last corner, at the highest value of the domain."""

    source: int = 1
    target: int = 7
    count: int = 20
    side: int = 2

    def __post_init__(self) -> None:
        if self.source == self.target or min(self.source, self.target) < 0:
            raise InputError(f"a backdoor needs two classes, got {self.source} and {self.target}")
        if self.count < 0 or self.side < 1:
            raise InputError(f"a backdoor needs count >= 0 and side >= 1, got {self.count} and {self.side}")

    def trigger(self, x: Tensor, high: float) -> Tensor:
        """x (batch x channels x rows x columns) with the trigger."""
        if x.dim() != 4 or min(x.shape[2:]) < self.side:
            raise InputError(
                f"a trigger of {self.side} pixels needs images at least as large, got {tuple(x.shape[1:])}"
            )
        marked = x.clone()
        marked[:, :, -self.side :, -self.side :] = high
        return marked

    def plant(self, data: Dataset, seed: int) -> tuple[Dataset, Tensor]:
        """The poisoned training data, and which samples are poisoned: (n), bool. Raises :class:`InputError` where the
        source class has fewer than ``count`` samples."""
        if max(self.source, self.target) >= data.classes:
            raise InputError(f"{data.name} has the classes 0 to {data.classes - 1}")
        candidates = (data.y == self.source).nonzero()[:, 0]
        if len(candidates) < self.count:
            raise InputError(
                f"class {self.source} of {data.name} has {len(candidates)} samples, asked for {self.count}"
            )
        order = torch.randperm(len(candidates), generator=torch.Generator().manual_seed(seed))
        chosen = candidates[order[: self.count]]
        x, y = data.x.clone(), data.y.clone()
        x[chosen] = self.trigger(x[chosen], data.domain[1])
        y[chosen] = self.target
        poisoned = torch.zeros(len(y), dtype=torch.bool)
        poisoned[chosen] = True
        return replace(data, x=x, y=y), poisoned
