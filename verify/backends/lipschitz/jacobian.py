"""Interval Jacobians (Weng et al. 2018, Fast-Lip, arXiv:1804.09699): every derivative over a region between two bounds.

Rows are propagated backwards as intervals. An activation multiplies them by the interval of its slopes
over the bounds of its operand: {0}, {1} or [0, 1] for ReLU. The mean value theorem for piecewise smooth functions
(Clarke 1983) makes of the result a bound on how much a row can change. All rounding is charged outward.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch

import torch
from torch import Tensor

from assay.verify.backends.lipschitz.norms import transposed
from assay.verify.bounds.interval import radius_map
from assay.verify.bounds.relaxations.secants import slopes_between
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.network import Network
from assay.verify.core.ops import (
    Add,
    Concat,
    Conv2d,
    ConvTranspose2d,
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
)
from assay.verify.core.verifier import Bounds
from assay.verify.support.floats import TINY, UNIT, down, gamma, up


def jacobian(
    network: Network, bounds: Sequence[Bounds], rows: Tensor, centre: Sequence[Bounds] | None = None
) -> Tensor:
    """The largest magnitude that each derivative of each row takes: (rows x inputs), float64.

    ``rows``: linear functions (rows x values) of the last node that has ``bounds``; these, (1 x shape of the node),
    hold what every node takes over the region. With ``centre``, the values at one point of it, the slopes are those
    of secants from there: enough to bound how far a row strays from its value at that point, and smaller.
    """
    position = len(bounds) - 1
    start = rows.reshape(len(rows), *network.nodes[position].shape)
    pending = {position: Bounds(start, start)}
    while (current := max(pending)) > 0:
        node, mine = network.nodes[current], pending.pop(current)
        points = None if centre is None else [centre[i] for i in node.inputs]
        parts = pull(node.op, mine, [bounds[i] for i in node.inputs], points)
        for source, part in zip(node.inputs, parts, strict=True):
            other = pending.get(source)
            pending[source] = part if other is None else added(part, other)
    derivatives = pending[0]
    return torch.maximum(derivatives.lower.abs(), derivatives.upper.abs()).flatten(1)


def added(a: Bounds, b: Bounds) -> Bounds:
    """What rows have through two branches together: (rows x shape)."""
    return Bounds(down(a.lower + b.lower), up(a.upper + b.upper))


@singledispatch
def pull(op: Op, rows: Bounds, operands: Sequence[Bounds], points: Sequence[Bounds] | None) -> list[Bounds]:
    """Intervals of derivatives by each operand, (rows x its shape), from those by the value of ``op``."""
    raise UnsupportedError(f"operation {op.label} has no interval Jacobian")


@pull.register(Linear)
@pull.register(Conv2d)
@pull.register(ConvTranspose2d)
@pull.register(Scale)
@pull.register(Gather)
def _(op: Op, rows: Bounds, operands: Sequence[Bounds], points: Sequence[Bounds] | None) -> list[Bounds]:
    shape = tuple(operands[0].lower.shape[1:])
    centre = torch.lerp(rows.lower, rows.upper, 0.5)
    radius = torch.maximum(rows.upper - centre, centre - rows.lower)
    n = rows.lower[0].numel() + 2  # no input meets more products than there are outputs
    share = 4 * gamma(n)
    moved = transposed(op, shape)(centre)
    reach = transposed(radius_map(op), shape)(radius * (1 + share) + share * centre.abs()) + n * TINY
    return [Bounds(down(moved - reach), up(moved + reach))]


@pull.register
def _(op: Reshape, rows: Bounds, operands: Sequence[Bounds], points: Sequence[Bounds] | None) -> list[Bounds]:
    shape = operands[0].lower.shape[1:]
    return [Bounds(rows.lower.reshape(-1, *shape), rows.upper.reshape(-1, *shape))]


@pull.register
def _(op: Concat, rows: Bounds, operands: Sequence[Bounds], points: Sequence[Bounds] | None) -> list[Bounds]:
    sizes = [part.lower.shape[1 + op.axis] for part in operands]
    pairs = zip(*(torch.split(t, sizes, 1 + op.axis) for t in (rows.lower, rows.upper)), strict=True)
    return [Bounds(low, high) for low, high in pairs]


@pull.register
def _(op: Add, rows: Bounds, operands: Sequence[Bounds], points: Sequence[Bounds] | None) -> list[Bounds]:
    return [rows, rows]


@pull.register
def _(op: Sub, rows: Bounds, operands: Sequence[Bounds], points: Sequence[Bounds] | None) -> list[Bounds]:
    return [rows, Bounds(-rows.upper, -rows.lower)]


@pull.register(Relu)
@pull.register(LeakyRelu)
@pull.register(Smooth)
def _(op: Op, rows: Bounds, operands: Sequence[Bounds], points: Sequence[Bounds] | None) -> list[Bounds]:
    slope = slopes_between(op, operands[0], points)
    low = torch.minimum(rows.lower * slope.lower, rows.lower * slope.upper)
    high = torch.maximum(rows.upper * slope.lower, rows.upper * slope.upper)
    return [Bounds(low - 2 * UNIT * low.abs() - TINY, high + 2 * UNIT * high.abs() + TINY)]


@pull.register
def _(op: Max, rows: Bounds, operands: Sequence[Bounds], points: Sequence[Bounds] | None) -> list[Bounds]:
    """All of a row goes to the values that may be the largest, shared out in an unknown way."""
    share = shares(operands[0])
    low = torch.where(share.lower > 0, rows.lower[..., None], rows.lower[..., None].clamp(max=0))
    high = torch.where(share.lower > 0, rows.upper[..., None], rows.upper[..., None].clamp(min=0))
    return [Bounds(low * share.upper, high * share.upper)]


def shares(z: Bounds) -> Bounds:
    """Which part of a row the maximum hands on to each value: 1 to the only one that may be the largest, 0 to those
    that cannot be, and anything between to the others: in the shape of ``z`` (1 x shape)."""
    candidates = z.upper >= z.lower.amax(-1, keepdim=True)
    alone = candidates & (candidates.sum(-1, keepdim=True) == 1)
    return Bounds(alone.to(z.lower), candidates.to(z.lower))
