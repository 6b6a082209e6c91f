"""Robust accuracy against the radius: one attack at many radii, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from assay.attacks.common.interface import Attack, Model
from assay.attacks.common.minimal_norm import MinimalAttack
from assay.verify.core.errors import InputError
from assay.verify.core.region import Domain, Region, around, take


@dataclass(frozen=True, eq=False)
class Curve:
    """The samples that an attack breaks at each radius; broken at one, a sample is broken at every larger one.

    ``epsilons``: rising. ``success`` (eps x batch), ``adversarial`` (eps x batch x shape): members of the ball of that
    radius. ``distance`` (batch), float64: of the nearest breaking point found, inf where none was. ``queries`` (batch).
    """

    epsilons: tuple[float, ...]
    success: Tensor
    adversarial: Tensor
    distance: Tensor
    queries: Tensor

    @property
    def accuracy(self) -> list[float]:
        """Robust accuracy at each radius, which never rises."""
        return [1 - float(broken.double().mean()) for broken in self.success]


def unbroken(x: Tensor, epsilons: Sequence[float]) -> Curve:
    """The curve of an attack that found nothing, and asked nothing: x (batch x shape)."""
    radii = tuple(sorted({float(eps) for eps in epsilons}))
    points = x.expand(len(radii), *x.shape).clone()
    distance = torch.full((len(x),), inf, dtype=torch.float64)
    nothing = torch.zeros(len(x), dtype=torch.long)
    return Curve(radii, torch.zeros(len(radii), len(x), dtype=torch.bool), points, distance, nothing)


def curve(
    attack: Attack,
    model: Model,
    x: Tensor,
    labels: Tensor,
    epsilons: Sequence[float],
    norm: float = inf,
    domain: Domain | None = (0.0, 1.0),
    seed: int = 0,
    scale: Tensor | None = None,
) -> Curve:
    """Attack x (batch x shape), labels (batch), in the balls of all ``epsilons`` within ``domain``.

    ``norm``: 0 and ``PATCH`` as well, where radii count pixels.
    ``scale``: in linf, how many units of each channel or feature a radius of 1 is: broadcasts to a sample (shape).

    A minimal-norm attack runs once. Others run at one radius after the other, on the samples unbroken so far.
    Raises :class:`InputError` for no epsilons, and what :meth:`Attack.run` and the regions raise.
    """
    radii = tuple(sorted({float(eps) for eps in epsilons}))
    if not radii:
        raise InputError("expected at least one radius, such as epsilons=[0.05, 0.1]")
    if not len(x):
        raise InputError("expected at least one sample")
    if getattr(attack, "targeted", False):
        raise InputError(f"robust accuracy speaks of any wrong class: take {attack.name} without targeted")
    each = None if scale is None else scale.double().expand(x.shape[1:])[None]
    balls = [around(x, eps if each is None else eps * each, norm, domain) for eps in radii]
    sweep = Sweep(attack, model, x, labels, radii, balls, seed)
    return sweep.once() if isinstance(attack, MinimalAttack) else sweep.one_by_one()


@dataclass(frozen=True, eq=False)
class Sweep:
    """An attack on x (batch x shape), labels (batch), in one ball for each of the radii, rising."""

    attack: Attack
    model: Model
    x: Tensor
    labels: Tensor
    radii: tuple[float, ...]
    balls: Sequence[Region]
    seed: int

    def once(self) -> Curve:
        """In the largest ball alone, for attacks that look for the nearest point."""
        result = self.attack.run(self.model, self.x, self.labels, self.balls[-1], self.seed)
        inside = torch.stack([result.success & ball.contains(result.adversarial) for ball in self.balls])
        points = torch.stack([ball.project(result.adversarial) for ball in self.balls])
        return Curve(self.radii, inside, points, result.distance, result.queries)

    def one_by_one(self) -> Curve:
        """In each ball, on the samples that are unbroken so far."""
        x, n = self.x, len(self.x)
        broken = torch.zeros(n, dtype=torch.bool, device=x.device)
        point, distance = x.detach().clone(), torch.full((n,), inf, dtype=torch.float64, device=x.device)
        queries = torch.zeros(n, dtype=torch.int64, device=x.device)
        success, points = [], []
        for ball in self.balls:
            standing = (~broken).nonzero()[:, 0]
            if len(standing):
                part = take(ball, standing)
                result = self.attack.run(self.model, x[standing], self.labels[standing], part, self.seed)
                point[standing], broken[standing] = result.adversarial, result.success
                queries[standing] += result.queries
                distance[standing] = torch.where(result.success, result.distance, distance[standing])
            success.append(broken.clone())
            points.append(point.clone())
        return Curve(self.radii, torch.stack(success), torch.stack(points), distance, queries)
