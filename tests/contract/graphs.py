"""Random networks of every wiring: nodes read twice, a node added to itself, scalings after activations, and so on."""

from __future__ import annotations

import random
from math import prod

import torch
from torch import Tensor

from assay.verify.core.network import Builder, Network
from assay.verify.core.ops import Add, Concat, Conv2d, LeakyRelu, Linear, Op, Relu, Reshape, Scale, Sub


def eye(network: Network) -> Tensor:
    """The objective that asks for every output."""
    return torch.eye(network.output_size, dtype=torch.float64)


class _Draw:
    def __init__(self, seed: int) -> None:
        self.choice = random.Random(seed)
        self.rng = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(shape, dtype=torch.float64, generator=self.rng)

    def linear(self, inputs: int, outputs: int) -> Op:
        # A bias below zero now and then, so that many neurons are inactive and are left out of supports.
        bias = self.normal(outputs, scale=0.5) - self.choice.choice([0.0, 0.0, 1.0, 4.0])
        return Linear(self.normal(outputs, inputs, scale=inputs**-0.5), bias)

    def conv(self, shape: tuple[int, ...]) -> Op:
        channels, height, width = shape
        groups = self.choice.choice([g for g in (1, 2, 3) if channels % g == 0])
        out = groups * self.choice.choice([1, 2])
        kernel = (self.choice.randint(1, min(3, height)), self.choice.randint(1, min(3, width)))
        stride = (self.choice.randint(1, 2), self.choice.randint(1, 2))
        padding = (self.choice.randint(0, 2), self.choice.randint(0, 1))
        reach = [
            1 if k == 1 or (n + 2 * p - 1) // (k - 1) < 2 else 2
            for n, p, k in zip((height, width), padding, kernel, strict=True)
        ]
        dilation = (self.choice.randint(1, reach[0]), self.choice.randint(1, reach[1]))
        weight = self.normal(out, channels // groups, *kernel, scale=(channels * prod(kernel) / groups) ** -0.5)
        return Conv2d(weight, self.normal(out, scale=0.5), stride, padding, dilation, groups)

    def scale(self, shape: tuple[int, ...]) -> Op:
        part = self.choice.choice([(), shape, shape[:1] + (1,) * (len(shape) - 1)])
        return Scale(self.normal(*part), self.normal(*part))


SLOPES = (0.0, 0.01, 0.5, 1.0, 1.5, 3.0, 50.0)


def random_graph(seed: int, image: bool = False, neurons: int = 10_000, steps: int = 8, more: bool = False) -> Network:
    """A network of up to ``steps`` random operations and a last one, with at most ``neurons`` ReLUs.

    ``more``: LeakyReLUs of slopes below and above 1, and operands side by side, too.
    """
    draw = _Draw(seed)
    choice = draw.choice
    shape = (choice.randint(1, 3), choice.randint(2, 4), choice.randint(2, 4)) if image else (choice.randint(1, 4),)
    builder = Builder(shape)
    left = neurons
    kinds = ["affine", "affine", "relu", "relu", "scale", "sum", "difference", "reshape"]
    kinds += ["leaky", "leaky", "concat"] if more else []
    for _ in range(choice.randint(0, steps)):
        recent = range(max(0, len(builder.nodes) - 3), len(builder.nodes))
        source = choice.choice(list(recent))
        here = builder.nodes[source].shape
        alike = [i for i, n in enumerate(builder.nodes) if n.shape == here]
        kind = choice.choice(kinds)
        if kind == "affine":
            op = (
                draw.conv(here)
                if len(here) == 3 and choice.random() < 0.7
                else draw.linear(here[-1], choice.randint(1, 4))
            )
            builder.add(op, source)
        elif kind == "relu" and prod(here) <= left:
            builder.add(Relu(), source)
            left -= prod(here)
        elif kind == "leaky":
            builder.add(LeakyRelu(choice.choice(SLOPES)), source)
        elif kind == "concat" and prod(here) < 60:
            builder.add(Concat(choice.randrange(len(here))), source, choice.choice(alike))
        elif kind == "scale":
            builder.add(draw.scale(here), source)
        elif kind == "sum":
            builder.add(Add(), source, choice.choice(alike))
        elif kind == "difference":
            builder.add(Sub(), choice.choice(alike), source)
        elif kind == "reshape":
            size = prod(here)
            flat = [(size,), (1, size), (size, 1), *([(2, size // 2), (size // 2, 1, 2)] if size % 2 == 0 else [])]
            builder.add(Reshape(choice.choice(flat)), source)
    last = len(builder.nodes) - 1
    if choice.random() < 0.8:
        last = builder.add(Reshape((builder.nodes[last].size,)), last)
        last = builder.add(draw.linear(builder.nodes[last].size, choice.randint(1, 3)), last)
    return builder.build(last, dtype=torch.float64)


def random_box(network: Network, seed: int) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds of one sample: wide, narrow, or of no width, in some coordinates or all."""
    rng = torch.Generator().manual_seed(seed)
    centre = torch.randn(network.input_shape, dtype=torch.float64, generator=rng)
    width = torch.rand(network.input_shape, dtype=torch.float64, generator=rng) * (0.0, 0.05, 0.5, 2.0)[seed % 4]
    width = torch.where(torch.rand(network.input_shape, generator=rng) < 0.2, torch.zeros_like(width), width)
    return centre - width, centre + width


def members(lower: Tensor, upper: Tensor, n: int, seed: int = 0) -> Tensor:
    """n points of the box, half of them corners: (n x shape)."""
    u = torch.rand((n, *lower.shape), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    u[::2] = u[::2].round()
    return torch.minimum(torch.maximum(lower + u * (upper - lower), lower), upper)
