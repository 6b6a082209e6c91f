"""Interval arithmetic through one operation (Gowal et al. 2018, arXiv:1810.12715), in the centre-radius form.

Tensors are (batch x shape of one sample). The radius is carried by non-negative weights, so bounds never cross.
"""

from __future__ import annotations

from functools import singledispatch

from verify.bounds.memo import per_op
from verify.core.errors import UnsupportedError
from verify.core.network import Network
from verify.core.ops import Add, Conv2d, Linear, Op, Relu, Reshape, Scale, Sub, evaluate, slopes_only
from verify.core.region import Box
from verify.core.verifier import Bounds

radius_map = per_op(slopes_only)


@singledispatch
def propagate(op: Op, *inputs: Bounds) -> Bounds:
    """A box that contains ``op(v)`` for every ``v`` in the boxes ``inputs``."""
    raise UnsupportedError(f"operation {op.label} has no interval bounds")


@propagate.register(Linear)
@propagate.register(Conv2d)
@propagate.register(Scale)
def _(op: Op, x: Bounds) -> Bounds:
    centre = evaluate(op, (x.lower + x.upper) / 2)
    radius = evaluate(radius_map(op), (x.upper - x.lower) / 2)
    return Bounds(centre - radius, centre + radius)


@propagate.register(Relu)
@propagate.register(Reshape)
def _(op: Op, x: Bounds) -> Bounds:
    return Bounds(evaluate(op, x.lower), evaluate(op, x.upper))


@propagate.register
def _(op: Add, a: Bounds, b: Bounds) -> Bounds:
    return Bounds(a.lower + b.lower, a.upper + b.upper)


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
        bounds.append(propagate(node.op, *(bounds[i] for i in node.inputs)))
    return bounds


def as_bounds(box: Box, network: Network) -> Bounds:
    """A region's box as bounds of the network's input, with a batch dimension: (batch x input shape)."""
    shape = (-1, *network.input_shape)
    return Bounds(box.lower.reshape(shape), box.upper.reshape(shape))
