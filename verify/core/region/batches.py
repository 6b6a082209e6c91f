"""Regions of one sample each and the region of their batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from assay.verify.core.errors import InputError
from assay.verify.core.network import content_hash
from assay.verify.core.region.ball import Domain, LpBall
from assay.verify.core.region.box import Box
from assay.verify.core.region.intersection import Intersection
from assay.verify.core.region.polytope import Polytope
from assay.verify.core.region.protocol import Region
from assay.verify.core.region.sparse import Sparse


def kind(region: Region) -> tuple[object, ...]:
    """What regions must have in common to make one batch: their type, a ball's norm and domain, a polytope's rows,
    which pixels may change."""
    if isinstance(region, LpBall):
        return LpBall, float(region.p), region.domain and _hash(region.domain)
    if isinstance(region, Intersection):
        return Intersection, *map(kind, region.balls)
    if isinstance(region, Sparse):
        return Sparse, region.support, _hash(region.domain)
    if isinstance(region, Polytope):
        return Polytope, content_hash(region.rows, region.members)
    return (type(region),)


def declared(region: Region) -> Box:
    """The box of a region as it was declared, before what no float32 holds is widened for proofs."""
    if isinstance(region, Polytope):
        return region.within
    if isinstance(region, LpBall | Intersection):
        return region.bounds
    return region if isinstance(region, Box) else region.box()


def plain(region: Region, shape: tuple[int, ...]) -> Region:
    """The region, for samples of a shape; as the box that it is where it is a ball with an eps for each feature."""
    if isinstance(region, LpBall) and region.radius.dim():
        features = region.radius.shape[-len(shape) :] if shape else ()
        if len(region.shape) == len(shape) or any(n != 1 for n in features):
            return region.bounds
    return region


def stack(regions: Sequence[Region]) -> Region:
    """Regions of one sample each, all of one :func:`kind`, as one region of a batch."""
    if len({kind(region) for region in regions}) != 1:
        raise InputError("only boxes, balls of one norm and one domain, or polytopes with the same rows make a batch")
    if balls := [r for r in regions if isinstance(r, LpBall)]:
        radii = [b.radius for b in balls]
        if any(radius.dim() for radius in radii):  # one a feature
            radii = [b.radius.expand_as(b.centre) for b in balls]
        eps = torch.stack(radii)
        return LpBall(torch.stack([b.centre for b in balls]), eps, balls[0].p, balls[0].domain)
    if polytopes := [r for r in regions if isinstance(r, Polytope)]:
        within, interior = _stacked([p.within for p in polytopes]), torch.stack([p.centre for p in polytopes])
        return replace(polytopes[0], within=within, interior=interior)
    if several := [r for r in regions if isinstance(r, Intersection)]:
        balls_by_norm = [stack(balls) for balls in zip(*(r.balls for r in several), strict=True)]
        return Intersection(tuple(ball for ball in balls_by_norm if isinstance(ball, LpBall)))
    if sparse := [r for r in regions if isinstance(r, Sparse)]:
        return replace(sparse[0], centre=torch.stack([r.centre for r in sparse]))
    return _stacked([r if isinstance(r, Box) else r.box() for r in regions])


def _stacked(boxes: Sequence[Box]) -> Box:
    inner = None
    if any(b.inner is not None for b in boxes):
        inner = _stacked([b if b.inner is None else b.inner for b in boxes])
    return Box(torch.stack([b.lower for b in boxes]), torch.stack([b.upper for b in boxes]), inner)


def take(region: Region, index: Tensor | slice) -> Region:
    """The samples at ``index`` (numbers, or a slice) of a region of a batch, as a region of a batch."""
    if isinstance(region, LpBall):
        return _ball(region, index)
    if isinstance(region, Intersection):
        return Intersection(tuple(_ball(ball, index) for ball in region.balls))
    if isinstance(region, Sparse):
        return Sparse(region.centre[index], region.support, _domain(region.domain, region.centre, index))
    if isinstance(region, Polytope):
        return region.take(index)
    box = region.box() if not isinstance(region, Box) else region
    return box.map(lambda bound: bound[index])


def _ball(region: LpBall, index: Tensor | slice) -> LpBall:
    eps = torch.as_tensor(region.eps, dtype=torch.float64)
    domain = None if region.domain is None else _domain(region.domain, region.centre, index)
    return LpBall(region.centre[index], eps[index] if eps.dim() else eps, region.p, domain)


def _domain(domain: Domain, centre: Tensor, index: Tensor | slice) -> Domain:
    """The domain of the samples at ``index``, where each has its own."""
    low, high = (torch.as_tensor(bound, dtype=torch.float64) for bound in domain)
    if low.dim() == centre.dim() or high.dim() == centre.dim():
        return low.expand_as(centre)[index], high.expand_as(centre)[index]
    return domain


def _hash(domain: Domain) -> str:
    return content_hash(*(torch.as_tensor(side, dtype=torch.float64) for side in domain))
