"""The iterates of an ascent: of each sample the current point, the previous one, and the best so far."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from assay.attacks.common.minimal_norm import per_sample


@dataclass(eq=False)
class Iterates:
    """The current, previous and best point of each sample: points and gradients (batch x shape), losses (batch)."""

    x: Tensor
    previous: Tensor
    loss: Tensor
    grad: Tensor
    best: Tensor
    best_loss: Tensor
    best_grad: Tensor

    @classmethod
    def of(cls, x: Tensor, loss: Tensor, grad: Tensor) -> Iterates:
        """The start x (batch x shape) with its loss (batch) and gradient (batch x shape)."""
        return cls(x, x, loss, grad, x, loss, grad)

    def take(self, index: Tensor) -> Iterates:
        """Those of the samples at the positions ``index`` (samples)."""
        return Iterates(*(getattr(self, field.name)[index] for field in fields(self)))

    def move(self, x: Tensor, loss: Tensor, grad: Tensor) -> Iterates:
        """One step on, to x (batch x shape) with its loss (batch) and gradient (batch x shape)."""
        better = loss > self.best_loss
        rows = per_sample(better, x).bool()
        best, best_grad = torch.where(rows, x, self.best), torch.where(rows, grad, self.best_grad)
        return Iterates(x, self.x, loss, grad, best, torch.where(better, loss, self.best_loss), best_grad)

    def restart_from_best(self, where: Tensor) -> Iterates:
        """The samples ``where`` (batch), bool, at their best point, the previous one too, so that momentum is lost."""
        if not bool(where.any()):
            return self
        rows = per_sample(where, self.x).bool()
        x, grad = torch.where(rows, self.best, self.x), torch.where(rows, self.best_grad, self.grad)
        loss = torch.where(where, self.best_loss, self.loss)
        return replace(self, x=x, previous=torch.where(rows, x, self.previous), loss=loss, grad=grad)
