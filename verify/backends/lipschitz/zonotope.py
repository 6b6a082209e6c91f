"""Zonotopes of derivatives (Jordan and Dimakis 2021, arXiv:2107.02732), propagated backwards.

A row is ``c + sum_i e_i g_i``, every e_i in [-1, 1]. Affine operations act on the generators g_i; an activation whose
slopes lie between m - r and m + r multiplies all by m and adds a generator of its own for the rest. Unlike intervals
of single derivatives, generators keep how the derivatives by different inputs depend on each other.
Rounding is charged to a box around the zonotope; intervals of all derivatives run along, and each tightens the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import singledispatch

import torch
from torch import Tensor

from assay.verify.backends.lipschitz import jacobian
from assay.verify.backends.lipschitz.norms import transposed
from assay.verify.backends.lipschitz.outward import frobenius, plus, root, times, total
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
from assay.verify.support.floats import TINY, UNIT, gamma

ENTRIES = 1 << 22  # of the generators of one row, at most


@dataclass(frozen=True, eq=False)
class Zonotope:
    """Derivatives of a row by a node: ``vectors`` (1 + generators x shape), the first the centre; ``slack``
    (1 x shape), how far the derivatives may lie off them; ``box``, intervals (1 x shape) that hold it, too."""

    vectors: Tensor
    slack: Tensor
    box: Bounds

    @property
    def spread(self) -> Tensor:
        """At least the sum of magnitudes of all vectors, and the slack: (1 x shape)."""
        return total(self.vectors.abs(), 0)[None] + self.slack

    @property
    def sizes(self) -> Tensor:
        """At least the magnitude of each derivative: (1 x shape)."""
        held = torch.maximum(self.box.lower.abs(), self.box.upper.abs())
        return torch.minimum(held, _outward(self.spread))

    @property
    def length(self) -> float:
        """At least the 2-norm: ``|c + sum e_i g_i|^2`` is at most the sum of magnitudes of the vectors' products."""
        flat = self.vectors.flatten(1)
        count, size = flat.shape
        products = total((flat @ flat.T).abs().flatten(), 0).item()
        far = frobenius(total(flat.abs(), 0))
        rounding = times(2 * gamma(size + count + 4), times(far, far))
        return plus(root(plus(products, rounding)), frobenius(self.slack))


@dataclass(frozen=True, eq=False)
class Derivatives:
    """Of rows by the input: ``sizes`` (rows x inputs), no derivative is larger; ``lengths`` (rows), nor any 2-norm."""

    sizes: Tensor
    lengths: Tensor


def derivatives(
    network: Network, bounds: Sequence[Bounds], rows: Tensor, centre: Sequence[Bounds] | None = None
) -> Derivatives:
    """What :func:`assay.verify.backends.lipschitz.jacobian.jacobian` bounds, more tightly, with the same arguments:
    ``rows`` (rows x outputs), ``bounds`` and ``centre`` of each node."""
    zonotopes = [_of_row(network, bounds, row, centre) for row in rows]
    if not zonotopes:
        return Derivatives(rows.new_zeros(0, network.nodes[0].size), rows.new_zeros(0))
    sizes = torch.cat([zonotope.sizes.flatten(1) for zonotope in zonotopes])
    lengths = [min(frobenius(zonotope.sizes), zonotope.length) for zonotope in zonotopes]
    return Derivatives(sizes, rows.new_tensor(lengths))


def _of_row(network: Network, bounds: Sequence[Bounds], row: Tensor, centre: Sequence[Bounds] | None) -> Zonotope:
    position = len(bounds) - 1
    start = row.reshape(1, *network.nodes[position].shape)
    pending = {position: Zonotope(start, torch.zeros_like(start), Bounds(start, start))}
    used = 1  # vectors so far: branches number their own generators apart
    while (current := max(pending)) > 0:
        node, mine = network.nodes[current], _widened(pending.pop(current), used)
        operands = [bounds[i] for i in node.inputs]
        points = None if centre is None else [centre[i] for i in node.inputs]
        boxes = jacobian.pull(node.op, mine.box, operands, points)
        parts = pull(node.op, mine, operands, points)
        for source, part, box in zip(node.inputs, parts, boxes, strict=True):
            tightened, used = replace(part, box=_met(box, part)), max(used, len(part.vectors))
            other = pending.get(source)
            pending[source] = tightened if other is None else _sum(tightened, other)
    return pending[0]


def _widened(row: Zonotope, count: int) -> Zonotope:
    """With so many vectors; where that is too many, the generators are laid into the slack."""
    if count * row.slack.numel() > ENTRIES:
        return replace(
            row, vectors=row.vectors[:1], slack=total(row.vectors[1:].abs(), 0)[None] + row.slack * (1 + UNIT)
        )
    missing = row.vectors.new_zeros(count - len(row.vectors), *row.vectors.shape[1:])
    return replace(row, vectors=torch.cat([row.vectors, missing]))


def _outward(spread: Tensor) -> Tensor:
    """Sizes that overflowed bound nothing."""
    return (spread * (1 + 4 * UNIT)).nan_to_num(nan=torch.inf, posinf=torch.inf)


def _met(box: Bounds, part: Zonotope) -> Bounds:
    """The intervals, within the box around the zonotope."""
    middle, radius = part.vectors[:1], total(part.vectors[1:].abs(), 0)[None] + part.slack
    far = _outward(radius + 4 * UNIT * middle.abs())
    return Bounds(torch.fmax(box.lower, middle - far), torch.fmin(box.upper, middle + far))


def _sum(a: Zonotope, b: Zonotope) -> Zonotope:
    """Of one row through two branches: generators of the same number are the same."""
    count = max(len(a.vectors), len(b.vectors))
    vectors = _widened(a, count).vectors + _widened(b, count).vectors
    slack = (a.slack + b.slack + 2 * UNIT * total(vectors.abs(), 0)[None]) * (1 + 8 * UNIT)
    return Zonotope(vectors, slack, jacobian.added(a.box, b.box))


@singledispatch
def pull(op: Op, row: Zonotope, operands: Sequence[Bounds], points: Sequence[Bounds] | None) -> list[Zonotope]:
    """Derivatives by each operand (of its shape) from those by the value of ``op``; the caller sets the boxes."""
    raise UnsupportedError(f"operation {op.label} has no zonotope of derivatives")


@pull.register(Linear)
@pull.register(Conv2d)
@pull.register(ConvTranspose2d)
@pull.register(Scale)
@pull.register(Gather)
def _(op: Op, row: Zonotope, operands: Sequence[Bounds], points: Sequence[Bounds] | None) -> list[Zonotope]:
    shape = tuple(operands[0].lower.shape[1:])
    n = row.slack.numel() + 2  # no input meets more products than there are outputs
    share, least = 4 * gamma(n), n * len(row.vectors) * TINY
    apart = row.slack * (1 + share) + share * row.spread
    slack = transposed(radius_map(op), shape)(apart) * (1 + share) + least
    return [replace(row, vectors=transposed(op, shape)(row.vectors), slack=slack)]


@pull.register
def _(op: Reshape, row: Zonotope, operands: Sequence[Bounds], points: Sequence[Bounds] | None) -> list[Zonotope]:
    shape = operands[0].lower.shape[1:]
    return [replace(row, vectors=row.vectors.reshape(-1, *shape), slack=row.slack.reshape(-1, *shape))]


@pull.register
def _(op: Concat, row: Zonotope, operands: Sequence[Bounds], points: Sequence[Bounds] | None) -> list[Zonotope]:
    sizes = [part.lower.shape[1 + op.axis] for part in operands]
    pairs = zip(*(torch.split(t, sizes, 1 + op.axis) for t in (row.vectors, row.slack)), strict=True)
    return [replace(row, vectors=vectors, slack=slack) for vectors, slack in pairs]


@pull.register
def _(op: Add, row: Zonotope, operands: Sequence[Bounds], points: Sequence[Bounds] | None) -> list[Zonotope]:
    return [row, row]


@pull.register
def _(op: Sub, row: Zonotope, operands: Sequence[Bounds], points: Sequence[Bounds] | None) -> list[Zonotope]:
    return [row, replace(row, vectors=-row.vectors)]


@pull.register(Relu)
@pull.register(LeakyRelu)
@pull.register(Smooth)
def _(op: Op, row: Zonotope, operands: Sequence[Bounds], points: Sequence[Bounds] | None) -> list[Zonotope]:
    return [_times(row, slopes_between(op, operands[0], points))]


@pull.register
def _(op: Max, row: Zonotope, operands: Sequence[Bounds], points: Sequence[Bounds] | None) -> list[Zonotope]:
    share = jacobian.shares(operands[0])
    box = Bounds(*(side[..., None].expand(share.lower.shape) for side in (row.box.lower, row.box.upper)))
    vectors = row.vectors[..., None].expand(-1, *share.lower.shape[1:])
    return [_times(Zonotope(vectors, row.slack[..., None].expand(share.lower.shape), box), share)]


def _times(row: Zonotope, factor: Bounds) -> Zonotope:
    """Each derivative times a number of its own between ``factor.lower`` and ``factor.upper`` (1 x shape): a generator
    more for each whose factor is not known."""
    middle = torch.lerp(factor.lower, factor.upper, 0.5)
    radius = torch.maximum(factor.upper - middle, middle - factor.lower) * (1 + 4 * UNIT)
    vectors = middle * row.vectors
    slack = (middle.abs() * row.slack + 2 * UNIT * total(vectors.abs(), 0)[None]) * (1 + 8 * UNIT) + len(vectors) * TINY
    more = (radius * row.sizes * (1 + 4 * UNIT) + TINY).where(radius > 0, 0.0).flatten()
    where = more.nonzero().flatten()
    own = more.new_zeros(len(where), len(more))
    own[torch.arange(len(where)), where] = more[where]
    return replace(row, vectors=torch.cat([vectors, own.view(-1, *middle.shape[1:])]), slack=slack)
