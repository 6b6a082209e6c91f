"""Bounds of a network that hold in real arithmetic: float64 with every rounding error charged, outward.

A sum of n products errs by at most ``gamma_n |a||b|``, ``gamma_n = n u / (1 - n u)``, in any order of summation and
with fused operations (Higham 2002, chapter 3); a product that underflows, even one that is flushed to zero, by at most
the smallest normal number. What overflows becomes an infinite bound, which is true. Values are real numbers: the
weights as the network holds them, the region's box as it is. tanh alone rests on the library: it is taken to err by
eight units in the last place at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import singledispatch
from math import inf

import torch
from torch import Tensor

from assay.verify.bounds.interval import radius_map
from assay.verify.bounds.matrix import constant, matrix
from assay.verify.bounds.memo import per_op
from assay.verify.bounds.relax import relaxes, undecided
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InternalError, UnsupportedError
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
    Sub,
    Tanh,
    evaluate,
    magnitude,
    terms,
)
from assay.verify.core.region import Box
from assay.verify.core.verifier import Bounds
from assay.verify.support.floats import TINY, UNIT, down, gamma, up

MORE = 1 + 2.0**-50  # a factor beyond the rounding of a few operations on numbers of one sign
ROWS = 256  # neurons that are bounded together

magnitude_map = per_op(magnitude)


# Intervals.


def intervals(network: Network, box: Box) -> list[Bounds]:
    """Interval bounds of every node over a box of a batch: each (batch x shape of the node)."""
    bounds = [Bounds(box.lower, box.upper)]
    for node in network.to(torch.float64, box.lower.device).nodes[1:]:
        bounds.append(step(node.op, *(bounds[i] for i in node.inputs)))
    return bounds


def step(op: Op, *inputs: Bounds) -> Bounds:
    """:func:`propagate`, (batch x shape), with infinite bounds in place of what overflowed."""
    box = propagate(op, *inputs)
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


@propagate.register
def _(op: Tanh, x: Bounds) -> Bounds:
    low, high = x.lower.tanh(), x.upper.tanh()
    slack = 16 * UNIT
    return Bounds(down(low - slack * low.abs() - TINY).clamp(min=-1), up(high + slack * high.abs() + TINY).clamp(max=1))


@propagate.register
def _(op: Add, a: Bounds, b: Bounds) -> Bounds:
    return Bounds(down(a.lower + b.lower), up(a.upper + b.upper))


@propagate.register
def _(op: Sub, a: Bounds, b: Bounds) -> Bounds:
    return Bounds(down(a.lower - b.upper), up(a.upper - b.lower))


# Linear bounds, propagated backwards.


def linear_bounds(network: Network, box: Box, budget: Budget) -> list[Bounds]:
    """Bounds of every node over a box of a batch: intervals on what is known, and linear bounds of the operands of
    activations that are still undecided; each (batch x shape of the node).

    Raises :class:`assay.verify.core.budget.Expired` when the time is over.
    """
    network = network.to(torch.float64, box.lower.device)
    feeds = {node.inputs[0]: node.op for node in network.nodes if relaxes(node.op)}
    bounds = [Bounds(box.lower, box.upper)]
    for position, node in enumerate(network.nodes[1:], start=1):
        budget.check()
        bounds.append(step(node.op, *(bounds[i] for i in node.inputs)))
        if position in feeds:
            wanted = undecided(feeds[position], bounds[-1]).flatten(1)
            features = wanted.any(0).nonzero().flatten()
            for begin in range(0, len(features), ROWS):
                budget.check()
                bounds[-1] = _tightened(network, bounds, wanted, features[begin : begin + ROWS])
    return bounds


def lower_rows(network: Network, bounds: Sequence[Bounds], objective: Tensor) -> Tensor:
    """Lower bounds of ``objective @ output``: objective (batch x rows x outputs), float64; result (batch x rows).

    ``bounds``: of every node, from :func:`intervals` or :func:`linear_bounds`. The better of the linear bound and the
    interval of the output.
    """
    batch, rows, outputs = objective.shape
    coef = objective.reshape(batch * rows, outputs).T
    last = bounds[-1]
    here = _Sum(coef.new_zeros(batch * rows))
    here.over(coef, last)
    below = torch.maximum(here.lower(), _propagate_backwards(network.to(torch.float64, coef.device), bounds, coef))
    return below.view(batch, rows)


def _tightened(network: Network, bounds: Sequence[Bounds], wanted: Tensor, features: Tensor) -> Bounds:
    """The last of the bounds, with linear bounds of some features, in the samples where they are ``wanted`` (batch x
    all features), where these are better."""
    known = bounds[-1]
    batch, rows = len(known.lower), len(features)
    coef = known.lower.new_zeros(known.lower[0].numel(), batch, 2, rows)
    coef[features, :, 0, torch.arange(rows)] = 1.0
    coef[features, :, 1, torch.arange(rows)] = -1.0
    lowest = _propagate_backwards(network, bounds, coef.flatten(1)).view(batch, 2, rows)
    lowest = torch.where(wanted[:, None, features], lowest, -inf)
    lower, upper = known.lower.flatten(1).clone(), known.upper.flatten(1).clone()
    lower[:, features] = torch.maximum(lower[:, features], lowest[:, 0])
    upper[:, features] = torch.minimum(upper[:, features], -lowest[:, 1])
    if bool((lower > upper).any()):
        raise InternalError("rigorous bounds cross: please report it")
    return Bounds(lower.view_as(known.lower), upper.view_as(known.upper))


@dataclass(eq=False)
class _Sum:
    """A sum for each column: ``value`` as computed, ``size`` the sum of magnitudes, ``charge`` what is to be
    taken off for coefficients that were rounded on the way, and the number of ``terms``."""

    value: Tensor
    size: Tensor = field(init=False)
    charge: Tensor = field(init=False)
    terms: int = 2

    def __post_init__(self) -> None:
        self.size, self.charge = torch.zeros_like(self.value), torch.zeros_like(self.value)

    def add(self, coef: Tensor, worth: Tensor) -> None:
        """``coef`` times ``worth``, (features x columns) both; 0 times infinity counts as 0."""
        product = torch.where(coef == 0, 0.0, coef * worth)
        self.value, self.size = self.value + product.sum(0), self.size + product.abs().sum(0)
        self.terms += len(coef) + 2

    def over(self, coef: Tensor, box: Bounds) -> None:
        """The least value of ``coef`` over a box (batch x features)."""
        self.add(coef.clamp(min=0), _spread(box.lower, coef))
        self.add(coef.clamp(max=0), _spread(box.upper, coef))

    def forgive(self, error: Tensor, box: Bounds) -> None:
        """Charge what coefficients that are wrong by ``error`` (features x columns) can change over the box."""
        self.charge = self.charge + (error * _spread(torch.maximum(box.lower.abs(), box.upper.abs()), error)).sum(0)
        self.terms += len(error)

    def lower(self) -> Tensor:
        """A number below the true sum; -inf where there is none."""
        error = 2 * gamma(self.terms) * self.size + 2 * self.charge + 4 * self.terms * TINY
        below = down(self.value - error * MORE)
        return torch.where(below.isfinite(), below, -inf)


def _spread(t: Tensor, coef: Tensor) -> Tensor:
    """One value a sample and feature (batch x features) for all columns of each sample: (features x columns)."""
    flat = t.flatten(1).T
    return flat.repeat_interleave(coef.shape[1] // flat.shape[1], 1)


def _propagate_backwards(network: Network, bounds: Sequence[Bounds], coef: Tensor) -> Tensor:
    """Lower bounds of functions ``coef`` (features x batch * rows) of the last node that has bounds: (batch * rows)."""
    total = _Sum(coef.new_zeros(coef.shape[1]))
    pending = {len(bounds) - 1: coef}
    while (current := max(pending)) > 0:
        node, mine = network.nodes[current], pending.pop(current)
        parts = pull(node.op, mine, total, [bounds[i] for i in node.inputs], bounds[current])
        for source, part in zip(node.inputs, parts, strict=True):
            if source in pending:
                part = part + pending[source]
                total.forgive(UNIT * part.abs(), bounds[source])
            pending[source] = part
    total.over(pending[0], bounds[0])
    return total.lower()


@singledispatch
def pull(op: Op, coef: Tensor, total: _Sum, operands: Sequence[Bounds], value: Bounds) -> list[Tensor]:
    """``coef`` of the value of ``op`` as coefficients of its operands, each (features x columns); constants and errors
    go to ``total``."""
    raise UnsupportedError(f"operation {op.label} has no rigorous linear bounds")


@pull.register(Linear)
@pull.register(Conv2d)
@pull.register(ConvTranspose2d)
def _(
    op: Linear | Conv2d | ConvTranspose2d, coef: Tensor, total: _Sum, operands: Sequence[Bounds], value: Bounds
) -> list[Tensor]:
    shape = tuple(operands[0].lower.shape[1:])
    total.add(coef, constant(op, tuple(value.lower.shape[1:]))[:, None])
    moved = matrix(op, shape).cut(None, None).pull(coef)
    size = matrix(radius_map(op), shape).cut(None, None).pull(coef.abs())
    n = len(coef) + 2  # no input meets more products than there are outputs
    total.forgive(2 * gamma(n) * size + n * TINY, operands[0])
    return [moved]


@pull.register
def _(op: Scale, coef: Tensor, total: _Sum, operands: Sequence[Bounds], value: Bounds) -> list[Tensor]:
    shape = value.lower.shape[1:]
    factor, shift = (t.expand(shape).reshape(-1, 1) for t in (op.factor, op.shift))
    total.add(coef, shift)
    moved = coef * factor
    total.forgive(UNIT * moved.abs() + TINY, operands[0])
    return [moved]


@pull.register
def _(op: Reshape, coef: Tensor, total: _Sum, operands: Sequence[Bounds], value: Bounds) -> list[Tensor]:
    return [coef]


@pull.register
def _(op: Gather, coef: Tensor, total: _Sum, operands: Sequence[Bounds], value: Bounds) -> list[Tensor]:
    outside = (op.index < 0)[:, None]
    total.add(torch.where(outside, coef, 0.0), coef.new_tensor([[op.fill]]))
    size = operands[0].lower[0].numel()
    inside = torch.where(outside, 0.0, coef)
    index = op.index.clamp(min=0)
    moved = coef.new_zeros(size, coef.shape[1]).index_add_(0, index, inside)
    summed = coef.new_zeros(size, coef.shape[1]).index_add_(0, index, inside.abs())
    total.forgive(2 * gamma(len(coef) + 1) * summed, operands[0])
    return [moved]


@pull.register
def _(op: Concat, coef: Tensor, total: _Sum, operands: Sequence[Bounds], value: Bounds) -> list[Tensor]:
    columns = coef.shape[1]
    sizes = [part.lower.shape[1 + op.axis] for part in operands]
    whole = coef.view(*value.lower.shape[1:], columns)
    return [part.reshape(-1, columns) for part in torch.split(whole, sizes, op.axis)]


@pull.register
def _(op: Add, coef: Tensor, total: _Sum, operands: Sequence[Bounds], value: Bounds) -> list[Tensor]:
    return [coef, coef]


@pull.register
def _(op: Sub, coef: Tensor, total: _Sum, operands: Sequence[Bounds], value: Bounds) -> list[Tensor]:
    return [coef, -coef]


@pull.register(Relu)
@pull.register(LeakyRelu)
@pull.register(Tanh)
@pull.register(Max)
def _(op: Op, coef: Tensor, total: _Sum, operands: Sequence[Bounds], value: Bounds) -> list[Tensor]:
    """Positive coefficients take the lower line, negative ones the upper line."""
    lines = relax(op, operands[0], value)
    positive, negative = coef.clamp(min=0), coef.clamp(max=0)
    total.add(positive, _spread(lines.least, coef))
    total.add(negative, _spread(lines.most, coef))
    each = lines.below[0].numel() // len(coef), coef.shape[1]  # operands of a feature, columns
    below, above = (_spread(s, coef).view(len(coef), *each) for s in (lines.below, lines.above))
    moved = (positive[:, None] * below + negative[:, None] * above).flatten(0, 1)
    total.forgive(UNIT * moved.abs() + TINY, operands[0])
    return [moved]


@dataclass(frozen=True, eq=False)
class Lines:
    """``below * z + least <= activation(z) <= above * z + most``; where there are several operands a feature, the
    products are summed. ``least`` and ``most`` (batch x features), the slopes (batch x features [x operands])."""

    below: Tensor
    least: Tensor
    above: Tensor
    most: Tensor


@singledispatch
def relax(op: Op, z: Bounds, value: Bounds) -> Lines:
    """Two lines about ``op`` over the interval ``z`` of its operand, ``value`` that of its values: (batch x shape)."""
    raise UnsupportedError(f"operation {op.label} has no rigorous relaxation")


@relax.register(Relu)
@relax.register(LeakyRelu)
def _(op: Relu | LeakyRelu, z: Bounds, value: Bounds) -> Lines:
    """A line through 0 on the side of the kink, a line of nearly the chord's slope on the other.

    Any slope s between those of the two sides will do: at the ends of the interval the function is s * z plus
    ``(left - s) * lower`` and ``(1 - s) * upper``, and between them it lies on one side of that line.
    """
    left = op.slope if isinstance(op, LeakyRelu) else 0.0
    low, high = z.lower.clamp(max=0), z.upper.clamp(min=0)
    chord = ((high - left * low) / (high - low)).nan_to_num(nan=1.0).clamp(min(left, 1.0), max(left, 1.0))
    ends = torch.stack([(left - chord) * low, (1 - chord) * high])
    open_, zero = (z.lower < 0) & (z.upper > 0), torch.zeros_like(low)
    sides = torch.full_like(low, left), torch.ones_like(low)
    kink = torch.where(high > -low, sides[1], sides[0])
    chord, kink = (torch.where(open_, s, torch.where(z.upper > 0, sides[1], sides[0])) for s in (chord, kink))
    if left <= 1:
        return Lines(kink, zero, chord, torch.where(open_, ends.amax(0) * MORE + TINY, zero))
    return Lines(chord, torch.where(open_, ends.amin(0) * MORE - TINY, zero), kink, zero)


@relax.register
def _(op: Tanh, z: Bounds, value: Bounds) -> Lines:
    flat = torch.zeros_like(value.lower)
    return Lines(flat, value.lower, flat, value.upper)


@relax.register
def _(op: Max, z: Bounds, value: Bounds) -> Lines:
    """Below, the operand with the largest lower bound; above too where it is never passed, elsewhere a constant."""
    chosen = z.lower.argmax(-1, keepdim=True)
    one = torch.zeros_like(z.lower).scatter(-1, chosen, 1.0)
    passed = (z.upper > z.lower.gather(-1, chosen)) & (one == 0)
    sure = ~passed.any(-1)
    zero = torch.zeros_like(value.lower)
    return Lines(one, zero, one * sure[..., None], torch.where(sure, zero, value.upper))
