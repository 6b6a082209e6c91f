"""A region for each of several inputs, as the region of all of them side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

import torch
from torch import Tensor

from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.network import Network
from assay.verify.core.region.ball import LpBall
from assay.verify.core.region.box import Box
from assay.verify.core.region.polytope import Polytope
from assay.verify.core.region.protocol import Region
from assay.verify.core.spec import Polyhedron


def side_by_side(network: Network, regions: Mapping[str, Region]) -> Box | Polytope:
    """The points each of whose parts lies in the region of the input of that name: boxes, linf balls and polytopes of
    one sample.

    Raises :class:`InputError` for other names and shapes than the network's, :class:`UnsupportedError` for l1 and l2
    balls.
    """
    names = [port.name for port in network.inputs]
    if sorted(regions) != sorted(names):
        raise InputError(f"expected a region for each of the inputs {names}, got {list(regions)}")
    parts = [_flat(regions[port.name], port.shape, port.name) for port in network.inputs]
    boxes = [part.within if isinstance(part, Polytope) else part for part in parts]
    within = _joined(boxes)
    if not any(isinstance(part, Polytope) for part in parts):
        return within.map(lambda bound: bound.reshape(network.input_shape))
    rows, inner = [], []
    begin, size = 0, network.nodes[0].size
    for part, box in zip(parts, boxes, strict=True):
        end = begin + box.lower.numel()
        if isinstance(part, Polytope):
            rows.append(_widened(part.rows, begin, size))
            inner.append(_widened(part.inner or part.rows, begin, size))
        begin = end
    outer, members = _stacked(rows), _stacked(inner)
    exact = all(not isinstance(part, Polytope) or part.inner is None for part in parts)
    polytope = Polytope(within, outer.A, outer.b, outer.strict, None if exact else members)
    return polytope.map(lambda bound: bound.reshape(network.input_shape))


def _flat(region: Region, shape: Sequence[int], name: str) -> Box | Polytope:
    if tuple(region.shape) != tuple(shape):
        raise InputError(f"expected a region of shape {tuple(shape)} for the input {name!r}, got {region.shape}")
    if isinstance(region, LpBall):
        if region.p != inf:
            raise UnsupportedError(f"the region of {name!r} is a ball in l{region.p:g}, which is no box of its own")
        region = region.bounds
    if not isinstance(region, Box | Polytope):
        raise UnsupportedError(f"the region of {name!r} is neither a box, nor an linf ball or a polytope")
    return region.map(torch.flatten)


def _joined(boxes: Sequence[Box]) -> Box:
    def ends(side: str, of: Sequence[Box]) -> Tensor:
        return torch.cat([getattr(box, side) for box in of])

    inner = None
    if any(box.inner is not None for box in boxes):
        own = [box.inner or box for box in boxes]
        inner = Box(ends("lower", own), ends("upper", own))
    return Box(ends("lower", boxes), ends("upper", boxes), inner)


def _widened(rows: Polyhedron, begin: int, size: int) -> Polyhedron:
    A = torch.zeros(len(rows.b), size, dtype=torch.float64)
    A[:, begin : begin + rows.A.shape[1]] = rows.A
    return Polyhedron(A, rows.b, rows.strict)


def _stacked(parts: Sequence[Polyhedron]) -> Polyhedron:
    return Polyhedron(*(torch.cat([getattr(part, name) for part in parts]) for name in ("A", "b", "strict")))
