"""Interval arithmetic through one operation (Gowal et al. 2018, arXiv:1810.12715), in the centre-radius form.

Tensors are (batch x shape of one sample). The radius is carried by non-negative weights, so bounds never cross.
"""

from __future__ import annotations

from functools import reduce, singledispatch
from math import isfinite

import torch

from assay.verify.bounds.memo import per_op
from assay.verify.core import ranges
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
from assay.verify.core.roundings import spread, terms
from assay.verify.core.verifier import Bounds
from assay.verify.support import devices

radius_map = per_op(spread)


def step(op: Op, *inputs: Bounds) -> Bounds:
    """:func:`propagate`, with NaN in place of what overflowed: an infinite bound may be a wrong one, NaN decides
    nothing further on. Shapes are as there."""
    box = propagate(op, *inputs)
    # Nothing overflows where nothing is summed; and the width's sum is finite if all is, which is quickly seen.
    if not terms(op) or (devices.is_host(box.lower) and isfinite((box.upper - box.lower).sum().item())):
        return box
    known = box.lower.isfinite() & box.upper.isfinite()
    return Bounds(torch.where(known, box.lower, torch.nan), torch.where(known, box.upper, torch.nan))


@singledispatch
def propagate(op: Op, *inputs: Bounds) -> Bounds:
    """A box that contains ``op(v)`` for every ``v`` in the boxes ``inputs``: each (batch x shape)."""
    raise UnsupportedError(f"operation {op.label} has no interval bounds")


@propagate.register(Linear)
@propagate.register(Conv2d)
@propagate.register(ConvTranspose2d)
@propagate.register(Scale)
def _(op: Op, x: Bounds) -> Bounds:
    middle = torch.lerp(x.lower, x.upper, 0.5)
    centre = evaluate(op, middle)
    radius = evaluate(radius_map(op), x.upper - middle)
    return Bounds(centre - radius, centre + radius)


@propagate.register(Add)
@propagate.register(Concat)
@propagate.register(Gather)
@propagate.register(LeakyRelu)
@propagate.register(Max)
@propagate.register(Relu)
@propagate.register(Reshape)
@propagate.register(Step)
def _(op: Op, *parts: Bounds) -> Bounds:
    """Non-decreasing in every operand."""
    return Bounds(evaluate(op, *(x.lower for x in parts)), evaluate(op, *(x.upper for x in parts)))


@propagate.register
def _(op: Smooth, x: Bounds) -> Bounds:
    """The range of the curve; NaN where it is not defined on all of the interval."""
    return Bounds(*ranges.values(op.of, x.lower, x.upper))


@propagate.register
def _(op: Product, x: Bounds) -> Bounds:
    """Least and largest at the four corners."""
    corners = x.lower.prod(-1), x.upper.prod(-1), x.lower[..., 0] * x.upper[..., 1], x.upper[..., 0] * x.lower[..., 1]
    return Bounds(reduce(torch.minimum, corners), reduce(torch.maximum, corners))


@propagate.register
def _(op: InverseSumExp, x: Bounds) -> Bounds:
    """Non-increasing in every operand."""
    return Bounds(evaluate(op, x.upper), evaluate(op, x.lower))


@propagate.register
def _(op: Normalised, x: Bounds) -> Bounds:
    """Rising with the value; with the others it falls above 0, and rises below. NaN where all may be 0."""
    (low, least), (high, most) = x.lower.unbind(-1), x.upper.unbind(-1)
    known = least > 0
    ends = (
        torch.stack([end, torch.where(known, other, torch.nan)], -1)
        for end, other in ((low, torch.where(low > 0, most, least)), (high, torch.where(high > 0, least, most)))
    )
    return Bounds(*(evaluate(op, end) for end in ends))


@propagate.register
def _(op: Sub, a: Bounds, b: Bounds) -> Bounds:
    return Bounds(a.lower - b.upper, a.upper - b.lower)


def unsupported(network: Network) -> list[str]:
    """The operations of ``network`` that have no rule here."""
    default = propagate.dispatch(object)
    return sorted({n.op.label for n in network.nodes[1:] if propagate.dispatch(type(n.op)) is default})


def propagate_box(network: Network, box: Bounds) -> list[Bounds]:
    """Interval bounds of every node over a batch of boxes: each (batch x shape of the node)."""
    bounds = [box]
    for node in network.nodes[1:]:
        bounds.append(step(node.op, *(bounds[i] for i in node.inputs)))
    return bounds
