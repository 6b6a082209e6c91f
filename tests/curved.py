"""Small random networks of curves, products, softmaxes, normalisations and steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from assay.verify.bounds.relaxations.lines import Lines
from assay.verify.core.curves import CURVES
from assay.verify.core.network import Builder, Network
from assay.verify.core.ops import (
    Add,
    Concat,
    Gather,
    InverseSumExp,
    Linear,
    Normalised,
    Op,
    Product,
    Relu,
    Reshape,
    Scale,
    Smooth,
    Step,
    Sub,
    evaluate,
)
from tests.nets import generator

D = torch.float64
PARAMETERS = {"elu": (0.5, 1.0, 1.7), "power": (3.0, 4.0, 1.5, 0.3, -0.5, -2.0, -3.0)}
ALL_CURVES = [Smooth(name, p) for name in CURVES for p in PARAMETERS.get(name, (0.0,))]
STEPS = [Step(kind) for kind in ("sign", "floor", "ceil", "round")]


def named(op: Op) -> str:
    """For the ids of tests."""
    return f"{op.label}{op.parameter:g}" if isinstance(op, Smooth) and op.parameter else op.label


def positive(op: Op) -> bool:
    """Whether a curve is not defined on all numbers."""
    return isinstance(op, Smooth) and (bool(op.of.poles) or op.of.domain[0] == 0)


class Net:
    """Builds a network node by node, with random weights."""

    def __init__(self, shape: tuple[int, ...], seed: int) -> None:
        self.rng, self.builder, self.shape = generator(seed), Builder(shape), shape

    def normal(self, *shape: int) -> Tensor:
        """Random numbers of a shape."""
        return torch.randn(shape, generator=self.rng, dtype=D)

    def linear(self, x: int, outputs: int, scale: float = 1.0) -> int:
        """A Linear node on the last axis."""
        inputs = self.builder.nodes[x].shape[-1]
        return self.add(Linear(scale * self.normal(outputs, inputs) / inputs**0.5, scale * self.normal(outputs) / 3), x)

    def add(self, op: Op, *inputs: int) -> int:
        """Any node."""
        return self.builder.add(op, *inputs)

    def curve(self, op: Op, x: int) -> int:
        """An element-wise activation, over values of at least 0.2 where it is not defined on all numbers."""
        if positive(op):
            x = self.add(Smooth("softplus"), x)
            shape = self.builder.nodes[x].shape
            x = self.add(Scale(torch.ones(shape, dtype=D), torch.full(shape, 0.2, dtype=D)), x)
        return self.add(op, x)

    def times(self, a: int, b: int) -> int:
        """The product of two nodes of one shape."""
        return self.pairwise(Product(), a, b)

    def pairwise(self, op: Op, a: int, b: int) -> int:
        """An operation of the values of two nodes of one shape."""
        shape, size = self.builder.nodes[a].shape, self.builder.nodes[a].size
        flat = [self.add(Reshape((size,)), i) for i in (a, b)]
        both = self.add(Concat(0), *flat)
        pairs = torch.stack([torch.arange(size), size + torch.arange(size)], -1)
        return self.add(op, self.add(Gather(pairs.flatten(), (*shape, 2)), both))

    def matmul(self, a: int, b: int) -> int:
        """(n x k) times (k x m)."""
        (n, k), m = self.builder.nodes[a].shape, self.builder.nodes[b].shape[1]
        flat = [self.add(Reshape((self.builder.nodes[i].size,)), i) for i in (a, b)]
        both = self.add(Concat(0), *flat)
        i, j, s = torch.meshgrid(torch.arange(n), torch.arange(m), torch.arange(k), indexing="ij")
        pairs = torch.stack([i * k + s, n * k + s * m + j], -1)
        products = self.add(Product(), self.add(Gather(pairs.flatten(), (n, m, k, 2)), both))
        summed = self.add(Linear(torch.ones(1, k, dtype=D), torch.zeros(1, dtype=D)), products)
        return self.add(Reshape((n, m)), summed)

    def softmax(self, x: int) -> int:
        """Over the last axis."""
        *rest, n = self.builder.nodes[x].shape
        eye = torch.eye(n, dtype=D)
        differences = (eye[None, :, :] - eye[:, None, :]).reshape(n * n, n)  # z_ij = x_j - x_i
        z = self.add(Linear(differences, torch.zeros(n * n, dtype=D)), x)
        return self.add(InverseSumExp(), self.add(Reshape((*rest, n, n)), z))

    def layer_norm(self, x: int, eps: float = 1e-2) -> int:
        """Over the last axis."""
        n = self.builder.nodes[x].shape[-1]
        eye = torch.eye(n, dtype=D)
        centred = self.add(Linear(eye - 1 / n, torch.zeros(n, dtype=D)), x)
        others = Linear(1 - eye, torch.full((n,), n * eps, dtype=D))
        return self.pairwise(Normalised(n), centred, self.add(others, self.add(Smooth("square"), centred)))

    def build(self, x: int, outputs: int = 3) -> Network:
        """All of ``x`` read by a Linear at the end."""
        flat = self.add(Reshape((self.builder.nodes[x].size,)), x)
        return self.builder.build(self.linear(flat, outputs), dtype=D)


def elementwise(op: Op) -> Callable[[int], Network]:
    """Two layers of one activation."""

    def make(seed: int) -> Network:
        net = Net((4,), seed)
        hidden = net.curve(op, net.linear(0, 6))
        return net.build(net.curve(op, net.linear(hidden, 5, 0.7)))

    return make


def gated(seed: int) -> Network:
    net = Net((4,), seed)
    value, gate = net.linear(0, 5), net.add(Smooth("sigmoid"), net.linear(0, 5))
    return net.build(net.add(Relu(), net.times(value, gate)))


def quotient(seed: int) -> Network:
    net = Net((4,), seed)
    return net.build(net.times(net.linear(0, 5), net.curve(Smooth("reciprocal"), net.linear(0, 5))))


def attention(seed: int) -> Network:
    net = Net((3, 4), seed)
    query, key, value = (net.linear(0, 2) for _ in range(3))
    turned = net.add(Gather(torch.arange(6).view(3, 2).T.flatten(), (2, 3)), key)
    return net.build(net.matmul(net.softmax(net.matmul(query, turned)), value))


def transformer(seed: int) -> Network:
    net = Net((3, 4), seed)
    query, key, value = (net.linear(net.layer_norm(0), 4, 0.7) for _ in range(3))
    turned = net.add(Gather(torch.arange(12).view(3, 4).T.flatten(), (4, 3)), key)
    x = net.add(Add(), 0, net.matmul(net.softmax(net.matmul(query, turned)), value))
    hidden = net.add(Smooth("gelu"), net.linear(net.layer_norm(x), 5))
    return net.build(net.add(Sub(), x, net.linear(hidden, 4)))


def log_softmax(seed: int) -> Network:
    net = Net((4,), seed)
    return net.build(net.add(Smooth("log"), net.softmax(net.linear(net.add(Relu(), net.linear(0, 6)), 4))))


def normalised(seed: int) -> Network:
    net = Net((4,), seed)
    return net.build(net.add(Relu(), net.linear(net.layer_norm(net.linear(0, 6)), 5)))


COMPOSED: dict[str, Callable[[int], Network]] = {
    "gated": gated,
    "quotient": quotient,
    "attention": attention,
    "transformer": transformer,
    "log_softmax": log_softmax,
    "layer norm": normalised,
}
NETWORKS: dict[str, Callable[[int], Network]] = {
    **{named(op): elementwise(op) for op in [*ALL_CURVES, *STEPS]},
    **COMPOSED,
}


def boxes(network: Network, seed: int, radius: float, count: int = 3) -> tuple[Tensor, Tensor]:
    """Random boxes of a radius: (count x input shape) each."""
    centre = torch.randn((count, *network.input_shape), generator=generator(seed + 1), dtype=D)
    return centre - radius, centre + radius


def points(lower: Tensor, upper: Tensor, count: int, seed: int = 0) -> Tensor:
    """Points of each box, corners among them: (count x boxes x shape)."""
    rng = generator(seed)
    share = torch.rand((count, *lower.shape), generator=rng, dtype=D)
    share[: count // 3] = share[: count // 3].round()
    return torch.lerp(lower.expand_as(share), upper.expand_as(share), share)


def least(network: Network, lower: Tensor, upper: Tensor, objective: Tensor, count: int = 400) -> Tensor:
    """The least of each row of ``objective`` (rows x outputs) at points of each box: (boxes x rows)."""
    x = points(lower, upper, count)
    y = network(x.flatten(0, 1)).flatten(1)
    values: Tensor = (y @ objective.T).view(count, len(lower), -1).amin(0)
    return values


def rows(outputs: Sequence[int] | int) -> Tensor:
    """Each output and its opposite: (rows x outputs)."""
    count = outputs if isinstance(outputs, int) else len(outputs)
    return torch.cat([torch.eye(count, dtype=D), -torch.eye(count, dtype=D)])


def intervals(op: Op, count: int, seed: int, dtype: torch.dtype = D, operands: int = 1) -> tuple[Tensor, Tensor]:
    """Intervals of all sizes on which ``op`` is defined, those about its turns and of no width among them: (count)
    each, or (count x operands)."""
    rng = generator(seed)
    shape = (count, 2 if isinstance(op, (Product, Normalised)) else operands) if op.several else (count,)

    def uniform(low: float, high: float, each: tuple[int, ...] = shape) -> Tensor:
        return low + (high - low) * torch.rand(each, generator=rng, dtype=D)

    own = (count, *[1] * (len(shape) - 1))
    centre = torch.randn(shape, generator=rng, dtype=D) * 10 ** uniform(-3, 2, own)
    if isinstance(op, Step):
        centre = torch.where(uniform(0, 1) < 0.3, centre.round(), centre)
    if isinstance(op, Smooth):
        special = torch.tensor([*op.of.breaks, *op.of.turns, 0.0], dtype=D)
        centre = torch.where(uniform(0, 1) < 0.3, special[torch.randint(len(special), shape, generator=rng)], centre)
    width = uniform(0, 1) * 10 ** uniform(-6, 2, own)
    width = torch.where(uniform(0, 1) < 0.05, 0.0, width)
    low = centre - width * uniform(0, 1).clamp(0.2, 0.8).sub(0.2).div(0.6)  # centres at ends among them
    high = low + width
    if isinstance(op, Smooth) and positive(op):
        least = 1e-3 if op.of.poles else 0.0
        low = low.abs() + least
        high = low + width
        if op.of.domain[0] < 0:
            left = uniform(0, 1) < 0.5
            low, high = torch.where(left, -high, low), torch.where(left, -low, high)
    if isinstance(op, Normalised):
        low[:, 1], high[:, 1] = low[:, 1].abs(), low[:, 1].abs() + width[:, 1 if width.shape[1] > 1 else 0]
        low[:, 1], high[:, 1] = low[:, 1] + 1e-4, high[:, 1] + 1e-4
    low, high = low.to(dtype), high.to(dtype)
    return torch.minimum(low, high), torch.maximum(low, high)


def inside(low: Tensor, high: Tensor, count: int, seed: int = 0) -> Tensor:
    """Points of intervals, ends and corners among them, in float64: (count x shape of the intervals)."""
    low, high = low.double(), high.double()
    x = points(low, high, count, seed) if low.dim() > 1 else points(low[:, None], high[:, None], count, seed)[..., 0]
    x[0], x[1] = low, high
    return torch.minimum(torch.maximum(x, low), high)


def outside(lines: Lines, op: Op, z: Tensor) -> Tensor:
    """By how much the activation leaves its lines at ``z`` (points x intervals [x operands]), beyond the rounding that
    is charged to lines elsewhere: (points x intervals), negative where it does not."""
    eps = torch.finfo(lines.slope.dtype).eps
    wide = lines.map(torch.Tensor.double)
    base = torch.zeros_like(wide.intercept_gap) if wide.intercept is None else wide.intercept
    below, gap = wide.slope * z, wide.slope_gap * z
    size = below.abs() + gap.abs()
    if op.several:
        below, gap, size = below.sum(-1), gap.sum(-1), size.sum(-1)
    value = evaluate(op, z)
    slack = 4 * eps * (size + base.abs() + wide.intercept_gap.abs()) + 8 * torch.finfo(D).eps * value.abs()
    low, high = below + base, below + gap + base + wide.intercept_gap
    return torch.maximum(low - value, value - high) - slack
