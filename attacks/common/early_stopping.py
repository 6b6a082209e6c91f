"""When to give a sample up: most of an attack's time goes to samples that it comes nowhere near to breaking."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from assay.verify.core.errors import InputError

# How often in a run the prospects are looked at.
LOOKS = 20


class Prospects:
    """The best gap of each sample in the course of one run of ``steps``; at least 0 is success.

    A sample is hopeless if its progress over the latter half of the run so far, kept up ``patience`` times as fast
    through all of the rest, would not bring the gap to 0. In the ``first`` steps nobody is.
    """

    def __init__(self, steps: int, patience: float, first: int) -> None:
        self.steps, self.patience, self.first = steps, patience, first
        self.every = max(steps // LOOKS, 1)
        self.past: list[Tensor] = []

    def hopeless(self, step: int, gap: Tensor) -> Tensor:
        """Whom to give up after ``step``, counted from 0, with ``gap`` (batch) the best so far: (batch), bool."""
        none = torch.zeros_like(gap, dtype=torch.bool)
        if self.patience == inf or step % self.every:
            return none
        self.past.append(gap)
        now = len(self.past) - 1
        half = now // 2
        if step < self.first or now == half:
            return none
        rate = (gap - self.past[half]) / ((now - half) * self.every)
        return gap + self.patience * rate * (self.steps - step) < 0

    def take(self, index: Tensor) -> None:
        """Go on with the samples ``index`` only."""
        self.past = [gap[index] for gap in self.past]


def check_patience(patience: float) -> None:
    """Refuse what is no factor of at least 1."""
    if not patience >= 1:
        raise InputError(f"patience must be a number of at least 1, or inf to give nobody up, got {patience}")
