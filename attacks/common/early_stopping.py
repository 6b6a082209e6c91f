"""Early stopping: samples whose progress is too slow to succeed in the steps that are left are given up."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from assay.verify.core.errors import InputError

# How often in a run progress is checked.
CHECKS = 20


class EarlyStopping:
    """The best gap of each sample, (batch), at the checks of one run of ``steps``; a gap of at least 0 is success.

    A sample should stop if its progress over the latter half of the run so far, kept up ``patience`` times as fast
    through all of the rest, would not bring the gap to 0. In the first ``warmup`` steps none should.
    """

    def __init__(self, steps: int, patience: float, warmup: int) -> None:
        self.steps, self.patience, self.warmup = steps, patience, warmup
        self.every = max(steps // CHECKS, 1)
        self.past: list[Tensor] = []

    def should_stop(self, step: int, gap: Tensor) -> Tensor:
        """Which samples to give up after ``step``, counted from 0: (batch), bool. ``gap`` (batch): the best so far."""
        none = torch.zeros_like(gap, dtype=torch.bool)
        if self.patience == inf or step % self.every:
            return none
        self.past.append(gap)
        now = len(self.past) - 1
        half = now // 2
        if step < self.warmup or now == half:
            return none
        rate = (gap - self.past[half]) / ((now - half) * self.every)
        return gap + self.patience * rate * (self.steps - step) < 0

    def take(self, index: Tensor) -> None:
        """Keep the samples at the positions ``index`` (samples) only."""
        self.past = [gap[index] for gap in self.past]


def check_patience(patience: float) -> None:
    """Refuse a ``patience`` below 1 or NaN with an :class:`InputError`."""
    if not patience >= 1:
        raise InputError(f"patience must be a number of at least 1, or inf to give no sample up, got {patience}")
