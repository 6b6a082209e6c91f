"""Bounds of a network that hold in real arithmetic: float64 with every rounding error charged, outward.

A sum of n products errs by at most ``gamma_n |a||b|``, ``gamma_n = n u / (1 - n u)``, in any order of summation and
with fused operations (Higham 2002, chapter 3); a product that underflows, even one that is flushed to zero, by at most
the smallest normal number. What overflows becomes an infinite bound, which is true. Values are real numbers: the
weights as the network holds them, the region's box as it is. Curves alone rest on the library: they are taken to err
by eight units in the last place at most, of what their values are made of.
"""

from __future__ import annotations

from functools import singledispatch
from math import inf

import torch
from torch import Tensor

from assay.verify.bounds import interval, layers
from assay.verify.bounds.backward.rows import lower_rows
from assay.verify.bounds.interval import radius_map
from assay.verify.bounds.memo import per_op
from assay.verify.bounds.rounding import precision
from assay.verify.core import ranges
from assay.verify.core.budget import Budget
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.network import Network
from assay.verify.core.ops import (
    Add,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Gather,
    InverseSumExp,
    LeakyRelu,
    Linear,
    Max,
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
from assay.verify.core.region import Box
from assay.verify.core.roundings import magnitude, noise, terms
from assay.verify.core.verifier import Bounds
from assay.verify.support.floats import TINY, UNIT, down, gamma, up

MORE = 1 + 2.0**-50  # a factor beyond the rounding of a few operations on numbers of one sign

magnitude_map = per_op(magnitude)


def intervals(network: Network, box: Box) -> list[Bounds]:
    """Interval bounds of every node over a box of a batch: each (batch x shape of the node)."""
    precision(torch.float64)  # refuses what bounds do not allow for
    bounds = [Bounds(box.lower, box.upper)]
    for node in network.to(torch.float64, box.lower.device).nodes[1:]:
        bounds.append(step(node.op, *(bounds[i] for i in node.inputs)))
    return bounds


def step(op: Op, *inputs: Bounds) -> Bounds:
    """:func:`propagate`, (batch x shape), with infinite bounds in place of what overflowed. Where a curve is not
    defined on all of an interval, they are NaN from there on: no value is known to be a number."""
    box = propagate(op, *inputs)
    if any(bool(side.isnan().any()) for x in inputs for side in (x.lower, x.upper)):
        return box
    if isinstance(op, Smooth) and not bool(ranges.defined(op.of, inputs[0].lower, inputs[0].upper).all()):
        return box
    return Bounds(torch.where(box.lower.isfinite(), box.lower, -inf), torch.where(box.upper.isfinite(), box.upper, inf))


@singledispatch
def propagate(op: Op, *inputs: Bounds) -> Bounds:
    """A box with the real values ``op(v)`` for every ``v`` in the boxes ``inputs``: each (batch x shape)."""
    raise UnsupportedError(f"operation {op.label} has no rigorous bounds")


@propagate.register(Linear)
@propagate.register(Conv2d)
@propagate.register(ConvTranspose2d)
@propagate.register(Scale)
def _(op: Op, x: Bounds) -> Bounds:
    middle = torch.lerp(x.lower, x.upper, 0.5)  # wherever it is: the radius reaches both ends
    radius = up(torch.maximum(x.upper - middle, middle - x.lower))
    n = terms(op) + 1
    centre, reach = evaluate(op, middle), evaluate(radius_map(op), radius)
    size = evaluate(magnitude_map(op), middle.abs())
    reach = (reach + (2 * gamma(n) * (reach + size) + 4 * n * TINY)) * MORE
    return Bounds(down(centre - reach), up(centre + reach))


@propagate.register(Concat)
@propagate.register(Gather)
@propagate.register(Max)
@propagate.register(Relu)
@propagate.register(Reshape)
def _(op: Op, *parts: Bounds) -> Bounds:
    """Non-decreasing in every operand, and nothing is rounded."""
    return Bounds(evaluate(op, *(x.lower for x in parts)), evaluate(op, *(x.upper for x in parts)))


@propagate.register
def _(op: LeakyRelu, x: Bounds) -> Bounds:
    below, above = down(op.slope * x.lower), up(op.slope * x.upper)
    return Bounds(torch.where(x.lower < 0, below, x.lower), torch.where(x.upper < 0, above, x.upper))


@propagate.register(Smooth)
@propagate.register(InverseSumExp)
@propagate.register(Normalised)
@propagate.register(Product)
@propagate.register(Step)
def _(op: Op, x: Bounds) -> Bounds:
    """The interval, and the roundings of its ends."""
    y = interval.propagate(op, x)
    if not (n := terms(op)):
        return y
    size = noise(op, x.lower, x.upper, torch.maximum(y.lower.abs(), y.upper.abs()))
    slack = 2 * (n + 1) * (UNIT * size + TINY)
    ends = down(y.lower - slack), up(y.upper + slack)
    return Bounds(*(ranges.clipped(op.of, ends) if isinstance(op, Smooth) else ends))


@propagate.register
def _(op: Add, a: Bounds, b: Bounds) -> Bounds:
    return Bounds(down(a.lower + b.lower), up(a.upper + b.upper))


@propagate.register
def _(op: Sub, a: Bounds, b: Bounds) -> Bounds:
    return Bounds(down(a.lower - b.upper), up(a.upper - b.lower))


def linear_bounds(network: Network, box: Box, objective: Tensor, budget: Budget) -> tuple[list[Bounds], Tensor]:
    """Bounds of every node over a box of a batch by intervals and linear bounds, each (batch x shape of the node), and
    lower bounds of ``objective @ output``: objective (batch x rows x outputs), result (batch x rows).

    They are CROWN's in float64, with all rounding charged; what has no bound there has an infinite one here. Raises
    :class:`assay.verify.core.budget.Expired` when the time is over.
    """
    relaxed = layers.by_linear_bounds(network, box, torch.float64, budget.on_cpu())
    rows = lower_rows(relaxed, objective, linear=True)
    bounds = [
        Bounds(torch.where(b.lower.isfinite(), b.lower, -inf), torch.where(b.upper.isfinite(), b.upper, inf))
        for b in relaxed.bounds[1:]
    ]
    return [Bounds(box.lower, box.upper), *bounds], torch.where(rows.isfinite(), rows, -inf)
