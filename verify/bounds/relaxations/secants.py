"""How steep an activation is over an interval: its slopes, and those of the secants from one point. Rounded outward."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch

import torch

from assay.verify.core import ranges
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.ops import LeakyRelu, Op, Relu, Smooth
from assay.verify.core.verifier import Bounds
from assay.verify.support.floats import UNIT


def slopes_between(op: Op, z: Bounds, points: Sequence[Bounds] | None) -> Bounds:
    """Of all secants over the interval ``z``, or of those from a point of it: (batch x shape)."""
    return slopes(op, z) if points is None else secants(op, z, points[0])


@singledispatch
def slopes(op: Op, z: Bounds) -> Bounds:
    """The least and the largest slope of an activation over the interval of its operand: (batch x shape)."""
    raise UnsupportedError(f"operation {op.label} has no slopes")


@slopes.register(Relu)
@slopes.register(LeakyRelu)
def _(op: Relu | LeakyRelu, z: Bounds) -> Bounds:
    left = op.slope if isinstance(op, LeakyRelu) else 0.0
    one = torch.ones_like(z.lower)
    below, above = torch.where(z.lower > 0, one, left * one), torch.where(z.upper < 0, left * one, one)
    return Bounds(torch.minimum(below, above), torch.maximum(below, above))


@slopes.register
def _(op: Smooth, z: Bounds) -> Bounds:
    """The range of the derivative; a library's curves err by a few units in the last place."""
    least, most = ranges.slopes(op.of, z.lower, z.upper)
    return Bounds(least - 64 * UNIT * (1 + least.abs()), most + 64 * UNIT * (1 + most.abs()))


def secants(op: Op, z: Bounds, point: Bounds) -> Bounds:
    """The least and the largest slope of a secant from ``point`` to the interval ``z`` about it: (batch x shape).

    With relu(z) - relu(c) = d (z - c): c / (c - lower) <= d <= 1 for c > 0, and 0 <= d <= upper / (upper - c) for
    c < 0. Activations other than piecewise linear ones keep their :func:`slopes`.
    """
    slope = slopes(op, z)
    if not isinstance(op, Relu | LeakyRelu):
        return slope
    left = op.slope if isinstance(op, LeakyRelu) else 0.0
    above, below = (z.lower < 0) & (point.lower > 0), (z.upper > 0) & (point.upper < 0)
    least = torch.where(above, point.lower / (point.lower - z.lower) * (1 - 8 * UNIT), 0.0)
    most = torch.where(below, z.upper / (z.upper - point.upper) * (1 + 8 * UNIT), 1.0)
    ends = torch.stack([left + (1 - left) * share for share in (least, most)])
    slack = 8 * UNIT * (1 + left)
    tighter = Bounds(ends.amin(0) - slack, ends.amax(0) + slack)
    between = above | below
    return Bounds(
        torch.where(between, torch.maximum(slope.lower, tighter.lower), slope.lower),
        torch.where(between, torch.minimum(slope.upper, tighter.upper), slope.upper),
    )
