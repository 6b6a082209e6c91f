"""Several lines about an activation, for methods that can use all of them at once."""

from __future__ import annotations

from functools import singledispatch

import torch

from assay.verify.bounds.relaxations import normalised, products, tangents
from assay.verify.bounds.relaxations.lines import Lines
from assay.verify.bounds.relaxations.relax import relax
from assay.verify.bounds.relaxations.softmax import SoftmaxPlanes
from assay.verify.core.ops import InverseSumExp, Normalised, Op, Product, Smooth
from assay.verify.core.verifier import Bounds


@singledispatch
def cuts(op: Op, z: Bounds) -> list[Lines]:
    """Lines about ``op`` over ``z`` (features [x operands]), all of which hold."""
    return [relax(op, z)]


@cuts.register
def _(op: Smooth, z: Bounds) -> list[Lines]:
    """Tangents in the middle and as far out as they touch."""
    below, above = (tangents.tangents(op.of, sign, z.lower, z.upper) for sign in (1, -1))
    touching = zip(*((side.best, side.first, side.last) for side in (below, above)), strict=True)
    return [tangents.between(below.line(low), above.line(high)) for low, high in touching]


@cuts.register
def _(op: Product, z: Bounds) -> list[Lines]:
    """The four planes of McCormick, two below and two above: the convex hull."""
    none = torch.zeros_like(z.lower[..., 0])
    return [products.planes_about(z, turn, turn) for turn in (none, none + 1)]


@cuts.register
def _(op: InverseSumExp, z: Bounds) -> list[Lines]:
    """Planes that touch in the middle, and half way to either end."""
    planes = SoftmaxPlanes.over(z)
    at, middle = planes.touching
    ends = ((planes.low, z.upper), (planes.high, z.lower))
    return [planes.lines(at, middle), *(planes.lines((at + sum_) / 2, (middle + point) / 2) for sum_, point in ends)]


@cuts.register
def _(op: Normalised, z: Bounds) -> list[Lines]:
    """The planes that are highest, or lowest, in the middle, and the flat ones."""
    sides = normalised.sides(z, op.count)
    flat = (side.touching(torch.zeros_like(side.z.lower)) for side in sides)
    return [relax(op, z), normalised.planes_about(*flat)]
