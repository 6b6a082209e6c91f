"""The inner maximisation of robust training: projected gradient ascent, kept fast rather than exact.

Unlike the attacks that measure robustness it works in the dtype of the samples, with one random start, never
stops early, and maximises any function of the logits; its points may miss the ball's border by a rounding error.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from assay.models.training.recipe import Step


def perturb(
    model: nn.Module,
    x: Tensor,
    objective: Callable[[Tensor], Tensor],
    eps: float,
    steps: int,
    size: float,
    step: Step,
) -> Tensor:
    """Points within linf ``eps`` of x (batch x shape) and the domain that raise ``objective`` (logits to a number).

    ``steps`` sign steps of length ``size`` from a uniform random start. The model runs in eval mode, so that
    BatchNorm's statistics see no adversarial half-way points, and is then put back as it was.
    """
    low, high = step.domain
    lower, upper = (x - eps).clamp(min=low), (x + eps).clamp(max=high)
    start = torch.rand(x.shape, generator=step.generator, dtype=x.dtype)
    point = lower + start * (upper - lower)
    was_training = model.training
    model.eval()
    for _ in range(steps):
        point.requires_grad_(True)
        (grad,) = torch.autograd.grad(objective(model(point)), point)
        point = torch.minimum(torch.maximum(point.detach() + size * grad.sign(), lower), upper)
    model.train(was_training)
    return point
