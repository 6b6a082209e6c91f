"""Lipschitz-margin training (Tsuzuku, Sato, Sugiyama 2018, arXiv:1802.04034), margins taken pairwise as in GloRo
(Leino, Wang, Fredrikson 2021, arXiv:2102.08452); and layers kept within a spectral norm.

Norms here are estimates that gradients pass through, by power iteration that goes on from batch to batch. Nothing is
certified by them: ``assay.verify.backends.lipschitz`` bounds the trained network from above.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import singledispatch
from math import inf, isfinite
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.weak import WeakIdKeyDictionary

from assay.models.training import ramp
from assay.models.training.recipe import Step
from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.network import Network
from assay.verify.core.ops import (
    Add,
    Conv2d,
    Gather,
    LeakyRelu,
    Linear,
    Max,
    Op,
    Relu,
    Reshape,
    Scale,
    Smooth,
    Sub,
    evaluate,
)
from assay.verify.core.ranges import slopes_everywhere
from assay.verify.frontends.live import read_live


@dataclass(frozen=True)
class LipschitzMargin:
    """Cross-entropy of logits of which every other than the label's is raised by ``radius`` times the Lipschitz
    constant, in l2, of its difference with it.

    The radius grows from 0 to ``radius`` between the shares ``begin`` and ``end`` of the training. ``cap``: after each
    step every layer whose spectral norm is above it is scaled down to it (Gouk et al. 2021, arXiv:1804.04368), 0:
    none is. ``steps``: of power iteration for each batch.
    """

    name: ClassVar[str] = "lipschitz-margin"
    radius: float = 0.5
    begin: float = 0.0
    end: float = 0.5
    cap: float = 0.0
    steps: int = 2

    def __post_init__(self) -> None:
        ramp.check(self.name, self.radius, 0.0, self.begin, self.end)
        if not (isfinite(self.cap) and self.cap >= 0) or self.steps < 1:
            raise InputError(f"{self.name}: expected cap >= 0 and steps >= 1, got {self.cap} and {self.steps}")

    @property
    def eps(self) -> float:
        """No linf radius is trained for; ``radius`` is in l2."""
        return 0.0

    def prepare(self, model: nn.Module, step: Step) -> None:
        """Nothing: the initialisation stays."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """Cross-entropy of the logits at their worst within the radius at this moment: x (batch x shape), y (batch)."""
        network, logits = read_live(model, x)
        if self.cap:
            _scale_down(network, self.cap, self.steps)
            network, logits = read_live(model, x)
        grown = self.radius * ramp.linear(step.progress, self.begin, self.end)
        return F.cross_entropy(logits + grown * raises(network, y, self.steps), y)


def raises(network: Network, labels: Tensor, steps: int) -> Tensor:
    """The Lipschitz constant in l2 of each logit minus the label's: (batch x classes), 0 at the label."""
    constants = [torch.ones(())]
    for node in network.nodes[1:]:
        constants.append(rule(node.op, [constants[i] for i in node.inputs], network.nodes[node.inputs[0]].shape, steps))
    last = network.nodes[-1]
    if not isinstance(last.op, Linear):
        different = 1 - F.one_hot(labels, network.output_size).to(constants[-1])
        return 2**0.5 * constants[-1] * different
    weight = last.op.weight
    squares = (weight[labels][:, None] - weight).square().sum(2)
    own = F.one_hot(labels, len(weight)).bool()
    return constants[last.inputs[0]] * squares.masked_fill(own, 1.0).sqrt().masked_fill(own, 0.0)


@singledispatch
def rule(op: Op, parts: list[Tensor], shape: tuple[int, ...], steps: int) -> Tensor:
    """The constant of a node, given those of its operands, the first of which has ``shape``."""
    raise UnsupportedError(f"operation {op.label} has no estimate of its Lipschitz constant")


@rule.register(Linear)
@rule.register(Conv2d)
def _(op: Linear | Conv2d, parts: list[Tensor], shape: tuple[int, ...], steps: int) -> Tensor:
    return parts[0] * spectral_norm(op, shape, steps)


@rule.register(Relu)
@rule.register(Reshape)
@rule.register(Max)
def _(op: Op, parts: list[Tensor], shape: tuple[int, ...], steps: int) -> Tensor:
    return parts[0]


@rule.register
def _(op: Smooth, parts: list[Tensor], shape: tuple[int, ...], steps: int) -> Tensor:
    steepest = max(abs(slope) for slope in slopes_everywhere(op.of))
    if steepest == inf:
        raise UnsupportedError(f"operation {op.label} has no Lipschitz constant")
    return parts[0] * steepest


@rule.register
def _(op: LeakyRelu, parts: list[Tensor], shape: tuple[int, ...], steps: int) -> Tensor:
    return parts[0] * max(op.slope, 1.0)


@rule.register
def _(op: Scale, parts: list[Tensor], shape: tuple[int, ...], steps: int) -> Tensor:
    return parts[0] * op.factor.abs().amax()


@rule.register
def _(op: Gather, parts: list[Tensor], shape: tuple[int, ...], steps: int) -> Tensor:
    return parts[0] * torch.bincount(op.index[op.index >= 0]).amax().sqrt()


@rule.register(Add)
@rule.register(Sub)
def _(op: Op, parts: list[Tensor], shape: tuple[int, ...], steps: int) -> Tensor:
    return parts[0] + parts[1]


def spectral_norm(op: Linear | Conv2d, shape: tuple[int, ...], steps: int) -> Tensor:
    """``|A v|`` () for v (1 x ``shape``) near the direction that A, without its bias, stretches most; v is kept."""
    bare = replace(op, bias=torch.zeros_like(op.bias))
    fixed = replace(bare, weight=bare.weight.detach())
    direction = cast(Tensor, _DIRECTIONS[op.weight]) if op.weight in _DIRECTIONS else None
    if direction is None or direction.shape[1:] != shape:
        direction = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0)).to(op.weight)
    for _ in range(steps):
        start = direction.detach().requires_grad_()
        (pulled,) = torch.autograd.grad(evaluate(fixed, start).square().sum() / 2, start)
        direction = pulled / pulled.norm().clamp(min=1e-12)
    _DIRECTIONS[op.weight] = direction
    length: Tensor = evaluate(bare, direction).norm()
    return length


# The last direction of each weight, for as long as the weight lives.
_DIRECTIONS: WeakIdKeyDictionary = WeakIdKeyDictionary()


def _scale_down(network: Network, cap: float, steps: int) -> None:
    """Every weight with a spectral norm above ``cap`` scaled down to it, in place."""
    for node in network.nodes[1:]:
        if isinstance(node.op, Linear | Conv2d) and node.op.weight.is_leaf:
            size = spectral_norm(node.op, network.nodes[node.inputs[0]].shape, steps).detach()
            node.op.weight.data.mul_((cap / size).clamp(max=1))
