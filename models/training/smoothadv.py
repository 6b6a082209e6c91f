"""SmoothAdv (Salman et al. 2019, arXiv:1906.04584): adversarial training of the smoothed classifier in l2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.models.training.noise import check_count, check_sigma, check_weight, gaussian_noise
from assay.models.training.recipe import Step


@dataclass(frozen=True)
class SmoothAdv:
    """``radius``: l2, of the attack on the smoothed classifier, in ``steps`` steps of 2 radius / steps over ``copies``
    noises that stay the same; it grows from 0 over the share ``warmup`` of the training."""

    name: ClassVar[str] = "smoothadv"
    sigma: float = 0.25
    radius: float = 0.5
    steps: int = 2
    copies: int = 2
    warmup: float = 0.3

    def __post_init__(self) -> None:
        check_sigma(self.name, self.sigma)
        check_weight(self.name, "radius", self.radius)
        check_count(self.name, "steps", self.steps, 1)
        check_count(self.name, "copies", self.copies, 1)
        check_weight(self.name, "warmup", self.warmup)

    @property
    def eps(self) -> float:
        """None is trained for in linf."""
        return 0.0

    def prepare(self, model: nn.Module, step: Step) -> None:
        """Nothing: the initialisation stays."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """Mean cross-entropy at the noisy copies of the point that the attack found: x (batch x shape), y (batch)."""
        noise = gaussian_noise(x, self.sigma, self.copies, step.generator)
        radius = self.radius * min(1.0, step.progress / self.warmup) if self.warmup else self.radius
        worst = x + ascend(model, x, y, noise, radius, self.steps) if radius else x
        return F.cross_entropy(model((worst + noise).flatten(0, 1)), y.repeat(self.copies))


def ascend(model: nn.Module, x: Tensor, y: Tensor, noise: Tensor, radius: float, steps: int) -> Tensor:
    """The l2 step (batch x shape), at most ``radius`` long, that minimises the mean probability of the labels y.

    ``noise`` (copies x batch x shape) stays the same over the steps. The model runs in eval mode and is put back.
    """
    was_training = model.training
    model.eval()
    delta = torch.zeros_like(x)
    column = y.repeat(len(noise))[:, None]
    for _ in range(steps):
        delta.requires_grad_(True)
        logits = model((x + delta + noise).flatten(0, 1))
        each = F.log_softmax(logits, 1).gather(1, column).view(len(noise), len(x))
        (grad,) = torch.autograd.grad(-each.logsumexp(0).sum(), delta)
        delta = shortened(delta.detach() + 2 * radius / steps * unit(grad), radius)
    model.train(was_training)
    return delta


def unit(step: Tensor) -> Tensor:
    """Each sample's step (batch x shape) at length 1; a step of 0 stays."""
    return step / lengths(step).clamp(min=1e-12)


def shortened(step: Tensor, radius: float) -> Tensor:
    """Each sample's step (batch x shape), cut to ``radius`` where it is longer."""
    return step * (radius / lengths(step).clamp(min=radius))


def lengths(step: Tensor) -> Tensor:
    """l2 norms of steps (batch x shape): (batch x 1 x 1 ...), so that they broadcast against these."""
    norms: Tensor = torch.linalg.vector_norm(step.flatten(1), dim=1)
    return norms.view(-1, *[1] * (step.dim() - 1))
