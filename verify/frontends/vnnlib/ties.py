"""Comparisons between inputs as what they are: the constraints of a polytope."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from assay.verify.core.region import Box, Polytope
from assay.verify.core.spec import Polyhedron
from assay.verify.frontends.vnnlib.formula import Row
from assay.verify.frontends.vnnlib.rounding import tie


def tied(box: Box, rows: Sequence[Row]) -> Box | Polytope:
    """The points of a flat box that satisfy ``rows``, of inputs alone, around the true set, with the limits of its
    members; the box itself where there are none.

    Raises :class:`InputError` for numbers beyond the range of float64, and where they are tied within infinite bounds.
    """
    if not rows:
        return box
    ends = torch.maximum(box.lower.abs(), box.upper.abs())
    reach = [Fraction(end) for end in torch.where(ends.isfinite(), ends, 0.0).tolist()]
    ties = list(dict.fromkeys(tie(row, reach) for row in rows))
    A = torch.zeros(len(ties), len(reach), dtype=torch.float64)
    for row, one in zip(A, ties, strict=True):
        row[list(one.positions)] = torch.tensor(one.coefficients, dtype=torch.float64)
    b, strict = _columns([(one.limit, one.strict) for one in ties])
    inner = Polyhedron(A, *_columns([(one.inner, not one.closed) for one in ties]))
    same = torch.equal(b, inner.b) and torch.equal(strict, inner.strict)
    return Polytope(box, A, b, strict, None if same else inner)


def _columns(rows: Sequence[tuple[float, bool]]) -> tuple[Tensor, Tensor]:
    limits, strict = zip(*rows, strict=True)
    return torch.tensor(limits, dtype=torch.float64), torch.tensor(strict, dtype=torch.bool)
