"""The set of inputs that a statement speaks of: a box, a norm ball clipped to the input domain, several at once, a
polytope, or the centre with few pixels changed.

Bounds are float64. A region's proof side (``box``) is rounded outward, its witness side (``allowed``) inward to
the values that the model's dtype can represent, so that a point is never called a member when it is not one and a
proof never misses one. Methods that take points take a batch: x is (batch x shape), while the region is of one
sample (shape; it then serves the whole batch) or of a batch (batch x shape).
"""

from __future__ import annotations

from assay.verify.core.region.around import around
from assay.verify.core.region.ball import Domain, LpBall
from assay.verify.core.region.batches import declared, kind, plain, stack, take
from assay.verify.core.region.box import Box
from assay.verify.core.region.intersection import Intersection
from assay.verify.core.region.parts import side_by_side
from assay.verify.core.region.polytope import Polytope
from assay.verify.core.region.projections import onto_l1, onto_l2
from assay.verify.core.region.protocol import Region, check_region
from assay.verify.core.region.sparse import FewPixels, Sparse, Window

__all__ = [
    "Box",
    "Domain",
    "FewPixels",
    "Intersection",
    "LpBall",
    "Polytope",
    "Region",
    "Sparse",
    "Window",
    "around",
    "check_region",
    "declared",
    "kind",
    "onto_l1",
    "onto_l2",
    "plain",
    "side_by_side",
    "stack",
    "take",
]
