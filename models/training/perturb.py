"""The inner maximisation of robust training: projected gradient ascent, kept fast rather than exact.

Unlike the attacks that measure robustness it works in the dtype of the samples, with one random start, never
stops early, and maximises any function of the logits; its points may miss the ball's border by a rounding error.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from assay.models.training.certified import ball
from assay.models.training.recipe import Step
from assay.verify.core.verifier import Bounds


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
    was_training = model.training
    model.eval()
    point = ascend(model, objective, ball(x, eps, step.domain), steps, size, step.generator)
    model.train(was_training)
    return point


def ascend(
    function: Callable[[Tensor], Tensor],
    objective: Callable[[Tensor], Tensor],
    box: Bounds,
    steps: int,
    size: float,
    generator: torch.Generator,
) -> Tensor:
    """Points of the boxes (batch x shape) that raise ``objective`` of what ``function`` makes of them, as above."""
    lower, upper = box.lower, box.upper
    start = torch.rand(lower.shape, generator=generator, dtype=lower.dtype)
    point = lower + start * (upper - lower)
    for _ in range(steps):
        point.requires_grad_(True)
        (grad,) = torch.autograd.grad(objective(function(point)), point)
        point = torch.minimum(torch.maximum(point.detach() + size * grad.sign(), lower), upper)
    return point
