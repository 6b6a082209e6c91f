"""What an ascent remembers of each sample: where it is, where it was one step ago, and where it was best."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from assay.attacks.common.minimal_norm import column


@dataclass(eq=False)
class Trail:
    """Where each sample is, was, and was best: points and gradients (batch x shape), losses (batch)."""

    x: Tensor
    previous: Tensor
    loss: Tensor
    grad: Tensor
    best: Tensor
    best_loss: Tensor
    best_grad: Tensor

    @classmethod
    def of(cls, x: Tensor, loss: Tensor, grad: Tensor) -> Trail:
        """The trail at its start."""
        return cls(x, x, loss, grad, x, loss, grad)

    def take(self, index: Tensor) -> Trail:
        """The trail of the samples ``index``."""
        return Trail(*(getattr(self, field.name)[index] for field in fields(self)))

    def move(self, x: Tensor, loss: Tensor, grad: Tensor) -> Trail:
        """One step on, to x."""
        better = loss > self.best_loss
        rows = column(better, x).bool()
        best, best_grad = torch.where(rows, x, self.best), torch.where(rows, grad, self.best_grad)
        return Trail(x, self.x, loss, grad, best, torch.where(better, loss, self.best_loss), best_grad)

    def back(self, where: Tensor) -> Trail:
        """Some samples (batch, bool) back at their best point, without momentum."""
        if not bool(where.any()):
            return self
        rows = column(where, self.x).bool()
        x, grad = torch.where(rows, self.best, self.x), torch.where(rows, self.best_grad, self.grad)
        loss = torch.where(where, self.best_loss, self.loss)
        return replace(self, x=x, previous=torch.where(rows, x, self.previous), loss=loss, grad=grad)
