"""Linear relaxations of activations: two lines between which the activation lies over an interval.

Tensors may have any layout that the operand's bounds have; only what has several operands a value reads an axis, the
last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce, singledispatch

import torch
from torch import Tensor

from assay.verify.bounds.relaxations import normalised, products, steps, tangents
from assay.verify.bounds.relaxations.lines import Lines
from assay.verify.bounds.relaxations.softmax import SoftmaxPlanes
from assay.verify.core import ranges
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.network import Network
from assay.verify.core.ops import (
    Concat,
    Gather,
    InverseSumExp,
    LeakyRelu,
    Max,
    Normalised,
    Op,
    Product,
    Relu,
    Reshape,
    Smooth,
    Step,
    evaluate,
)
from assay.verify.core.roundings import noise
from assay.verify.core.verifier import Bounds

PAIRED = (Product, Normalised)  # of pairs of values of two nodes
MOVERS = (Gather, Reshape, Concat)  # they only move numbers about


@singledispatch
def relax(op: Op, z: Bounds) -> Lines:
    """The relaxation of ``op`` over the interval ``z`` of its operands (any shape)."""
    raise UnsupportedError(f"operation {op.label} has no linear relaxation")


@singledispatch
def undecided(op: Op, z: Bounds) -> Tensor:
    """Where tighter bounds of the operand ``z`` (batch x shape) make a tighter relaxation: of its shape."""
    return z.lower < z.upper


@relax.register
def _(op: Relu, z: Bounds) -> Lines:
    """The chord above; below, the line of slope 0 or 1 that leaves the smaller triangle (Zhang et al. 2018,
    arXiv:1811.00866). Stable neurons are exact."""
    return _convex(z, 0.0)


@relax.register
def _(op: LeakyRelu, z: Bounds) -> Lines:
    """As Relu while it is convex; where the slope is above 1 it is concave, and the lines are exchanged."""
    if op.slope <= 1:
        return _convex(z, op.slope)
    return _concave(z, op.slope)


@undecided.register(Relu)
@undecided.register(LeakyRelu)
def _(op: Op, z: Bounds) -> Tensor:
    return (z.lower < 0) & (z.upper > 0)


def _convex(z: Bounds, left: float) -> Lines:
    """max(z, left * z) for left <= 1."""
    low, high = z.lower.clamp(max=0), z.upper.clamp(min=0)
    width = high - low
    # A neuron that is zero on all of its interval has width 0 and share 0; nothing is divided by zero.
    share = high / width.clamp(min=torch.finfo(width.dtype).tiny)
    # Any line of slope in [0, 1] lies above with this intercept, whatever rounding or overflow made of the slope.
    intercept_gap = torch.maximum(-low * share, high * (1 - share))
    lower = (share > 0.5).to(share)
    if left == 0.0:
        return Lines(lower, share - lower, intercept_gap)
    return Lines(left + (1 - left) * lower, (1 - left) * (share - lower), (1 - left) * intercept_gap)


def _concave(z: Bounds, left: float) -> Lines:
    """min(z, left * z) for left > 1: the chord below, the line of one of the two slopes above."""
    low, high = z.lower.clamp(max=0), z.upper.clamp(min=0)
    share = high / (high - low).clamp(min=torch.finfo(low.dtype).tiny)
    # Any line of slope in [1, left] lies below with this much subtracted; a multiple of share, taken from left, would
    # be off by a multiple of left where the slope is next to 1.
    sides = torch.full_like(share, left), torch.ones_like(share)
    slope = torch.lerp(*sides, share).clamp(1.0, left)
    drop = torch.maximum((slope - left) * low, (slope - 1) * high)
    return Lines(slope, torch.where(share > 0.5, *sides[::-1]) - slope, drop, -drop)


@relax.register
def _(op: Smooth, z: Bounds) -> Lines:
    """See :mod:`assay.verify.bounds.relaxations.tangents`."""
    return tangents.lines_about(op.of, z)


@relax.register
def _(op: Step, z: Bounds) -> Lines:
    """See :mod:`assay.verify.bounds.relaxations.steps`."""
    return steps.lines_about(op, z)


@undecided.register
def _(op: Step, z: Bounds) -> Tensor:
    return evaluate(op, z.lower) < evaluate(op, z.upper)


@relax.register
def _(op: Product, z: Bounds) -> Lines:
    """See :mod:`assay.verify.bounds.relaxations.products`."""
    return products.planes_about(z, *products.flattest(z))


@relax.register
def _(op: InverseSumExp, z: Bounds) -> Lines:
    """See :mod:`assay.verify.bounds.relaxations.softmax`."""
    planes = SoftmaxPlanes.over(z)
    return planes.lines(*planes.touching)


@relax.register
def _(op: Normalised, z: Bounds) -> Lines:
    """See :mod:`assay.verify.bounds.relaxations.normalised`."""
    return normalised.planes_about(*(side.touching(side.best) for side in normalised.sides(z, op.count)))


@relax.register
def _(op: Max, z: Bounds) -> Lines:
    """Below, the operand with the largest lower bound. Above, with m that bound, the better at the middle of the
    box of ``max u`` and of ``m + sum of the chords of max(z_i - m, 0)``; with one candidate left both are exact.

    ``z``: (... x operands).
    """
    best, chosen = z.lower.max(-1, keepdim=True)
    slope = torch.zeros_like(z.lower).scatter(-1, chosen, 1.0)
    above = (z.upper - best).clamp(min=0)
    share = above / (z.upper - z.lower).clamp(min=torch.finfo(best.dtype).tiny)
    # The chord of max(z - m, 0) over [l, u] with l <= m: share * (z - l).
    chords = best[..., 0] - (share * z.lower).sum(-1)
    middle = (share * (z.lower + z.upper) / 2).sum(-1) + chords
    highest = z.upper.amax(-1)
    lines = middle <= highest
    upper = torch.where(lines[..., None], share, 0.0)
    return Lines(slope, upper - slope, torch.where(lines, chords, highest))


@undecided.register
def _(op: Max, z: Bounds) -> Tensor:
    best = z.lower.amax(-1, keepdim=True)
    contested = (z.upper > best).sum(-1, keepdim=True) > 1
    return contested & (z.upper > best)


def relaxes(op: Op) -> bool:
    """Whether ``op`` is an activation with a relaxation here."""
    return relax.dispatch(type(op)) is not relax.dispatch(object)


def feeds(network: Network) -> dict[int, list[Op]]:
    """The activations that read a node, by its position: of such nodes tighter bounds are worth having.

    What only moves the operands of a product about, pairs of them above all, is passed over: its sources count.
    """
    readers: dict[int, list[Op]] = {}
    for node in network.nodes:
        if relaxes(node.op):
            paired = isinstance(node.op, PAIRED)
            for source in moved_from(network, node.inputs[0]) if paired else node.inputs:
                if paired and (source == 0 or relaxes(network.nodes[source].op)):
                    continue
                readers.setdefault(source, []).append(node.op)
    return readers


def moved_from(network: Network, position: int) -> tuple[int, ...]:
    """The nodes, by position, that a node's numbers come from unchanged, through what only moves them about."""
    node = network.nodes[position]
    if not isinstance(node.op, MOVERS):
        return (position,)
    return tuple(dict.fromkeys(source for i in node.inputs for source in moved_from(network, i)))


def undecided_by_any(ops: Sequence[Op], z: Bounds) -> Tensor:
    """:func:`undecided` of any of the activations that read ``z``: of its shape."""
    return reduce(torch.logical_or, (undecided(op, z) for op in ops))


@singledispatch
def extremes(op: Op, z: Bounds, value: Tensor) -> tuple[Tensor, Tensor]:
    """Of any lines that are drawn about ``op`` over parts of ``z``: the largest magnitude of a slope, of the shape of z
    or one number, and what a constant comes to beyond the products of slopes and operands, of the shape of ``value``,
    the magnitude of the activation."""
    return z.lower.new_ones(()), value


@extremes.register
def _(op: LeakyRelu, z: Bounds, value: Tensor) -> tuple[Tensor, Tensor]:
    return z.lower.new_tensor(max(op.slope, 1.0)), value


@extremes.register
def _(op: Smooth, z: Bounds, value: Tensor) -> tuple[Tensor, Tensor]:
    least, most = ranges.slopes(op.of, z.lower, z.upper)
    return torch.maximum(least.abs(), most.abs()), noise(op, z.lower, z.upper, value)


@extremes.register
def _(op: Step, z: Bounds, value: Tensor) -> tuple[Tensor, Tensor]:
    return z.lower.new_tensor(steps.steepest(op)), value + 1


@extremes.register
def _(op: Product, z: Bounds, value: Tensor) -> tuple[Tensor, Tensor]:
    return torch.maximum(z.lower.abs(), z.upper.abs()).flip(-1), value


@extremes.register
def _(op: Normalised, z: Bounds, value: Tensor) -> tuple[Tensor, Tensor]:
    """No plane of another slope than those looked for is taken; its constant is beside the value what its slopes and
    operands make."""
    both = [side.steepest for side in normalised.sides(z, op.count)]
    slope = torch.stack([torch.maximum(side.lower.abs(), side.upper.abs()) for side in both]).amax(0)
    return slope, noise(op, z.lower, z.upper, value)


@extremes.register
def _(op: InverseSumExp, z: Bounds, value: Tensor) -> tuple[Tensor, Tensor]:
    """No weight of an operand is above its exponential times the square of the value."""
    most = evaluate(op, z.lower)
    slope = (z.upper - 2 * z.lower.logsumexp(-1, keepdim=True)).exp()
    return slope, noise(op, z.lower, z.upper, 4 * most) + slope.sum(-1)
