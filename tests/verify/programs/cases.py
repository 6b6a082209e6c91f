"""Small networks of every kind with boxes and specifications, and their true margins from enumeration."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
from torch import nn

from assay.verify.core.network import Network, chain, to_network
from assay.verify.core.ops import Gather, LeakyRelu, Linear, Max, Relu, Reshape
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.spec import Polyhedron, Spec
from tests import exact, nets

KINDS = ("mlp", "conv", "residual", "skips", "leaky", "largest", "pooled")
GAPS = (1e-4, -1e-4, 0.2, -0.2, 1.0)


def network(kind: str, seed: int) -> Network:
    """A network with few neurons."""
    if kind == "mlp":
        sizes = ((2, 5, 4, 2), (3, 4, 4, 3), (4, 8, 3), (2, 3, 3, 3, 2))[seed % 4]
        return to_network(nets.random_mlp(seed, sizes), (sizes[0],))
    if kind == "conv":
        return to_network(nets.random_cnn(seed, (1, 3, 3), (2, 2)), (1, 3, 3))
    if kind == "residual":
        return to_network(nets.random_resnet(seed, (1, 2, 2), 1), (1, 2, 2))
    if kind == "skips":
        return to_network(nets.random_functional(seed, (1, 2, 2), 3), (1, 2, 2))
    if kind == "pooled":
        return to_network(pooled(seed), (1, 2, 4))
    rng = nets.generator(seed)

    def linear(inputs: int, outputs: int) -> Linear:
        weight = torch.randn(outputs, inputs, dtype=torch.float64, generator=rng)
        return Linear(weight, torch.randn(outputs, dtype=torch.float64, generator=rng))

    if kind == "leaky":
        leaky = LeakyRelu((0.0, 0.1, 1.0, 2.5)[seed % 4])
        return chain((3,), [linear(3, 4), leaky, linear(4, 3), leaky, linear(3, 2)])
    windows = Gather(torch.tensor([0, 1, 1, 2, 2, 3]), (3, 2))  # they overlap
    return chain((3,), [linear(3, 4), windows, Max(), linear(3, 3), Relu(), Reshape((1, 3)), Max(), linear(1, 2)])


def pooled(seed: int) -> nn.Module:
    """A convolution, a maximum and a mean over windows that overlap: (batch x 1 x 2 x 4) to (batch x 2)."""
    windows = [nn.MaxPool2d((1, 2), stride=1), nn.AvgPool2d((1, 2), stride=1, padding=(0, 1))]
    made = nn.Sequential(nn.Conv2d(1, 1, 2), nn.ReLU(), *windows, nn.Flatten(), nn.Linear(3, 2))
    return nets.randomised(made, seed)


@cache
def case(kind: str, seed: int) -> tuple[Problem, float]:
    """A problem of one or two disjuncts of one to three rows, and its margin, which enumeration tells."""
    made = network(kind, seed)
    rng = nets.generator(seed)
    centre = torch.rand(made.input_shape, generator=rng, dtype=torch.float64)
    width = (0.1, 0.3, 0.6)[seed % 3] * (0.4 if kind in ("conv", "skips") else 1.0)
    box = Box(centre - width, centre + width).box()
    counts = ((1,), (2,), (1, 1), (3, 1))[seed % 4]
    rows = [torch.randn(count, made.output_size, dtype=torch.float64, generator=rng) for count in counts]
    least = [exact.least_of_largest(made, box, A, torch.zeros(len(A), dtype=torch.float64)) for A in rows]
    b = min(least) - GAPS[seed % 5]
    disjuncts = tuple(
        Polyhedron(A, torch.full((len(A),), b, dtype=torch.float64), torch.zeros(len(A), dtype=torch.bool))
        for A in rows
    )
    return Problem(made, box, Spec(disjuncts)), min(least) - b


def cases(kind: str, seeds: range) -> list[tuple[Problem, float]]:
    """The cases of these seeds."""
    return [case(kind, seed) for seed in seeds]


def lowered(problem: Problem, margin: float) -> Problem:
    """The same problem with less asked of its outputs by so much: its margin is larger by that."""
    less = tuple(replace(d, b=d.b - margin) for d in problem.spec.disjuncts)
    return problem.with_parts(spec=Spec(less))
