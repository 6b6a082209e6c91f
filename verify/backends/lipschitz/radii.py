"""From values at a centre and Lipschitz constants to margins and certified radii."""

from __future__ import annotations

from math import inf, sqrt

import torch
from torch import Tensor

from assay.verify.backends.lipschitz.outward import frobenius, times, total, up
from assay.verify.core.spec import Spec
from assay.verify.core.verifier import Bounds
from assay.verify.support.floats import TINY, down, gamma


def row_values(spec: Spec, output: Bounds) -> Tensor:
    """Lower bounds of ``A y - b`` for outputs in an interval (1 x outputs): (rows), float64."""
    low, high = output.lower.flatten(), output.upper.flatten()
    terms = torch.cat([spec.A.clamp(min=0) * low, spec.A.clamp(max=0) * high, -spec.b[:, None]], 1)
    terms = torch.where(torch.cat([spec.A, spec.A, spec.A.new_ones(len(spec.b), 1)], 1) == 0, 0.0, terms)
    count = terms.shape[1]
    return down(terms.sum(1) - 2 * gamma(count + 2) * terms.abs().sum(1) - count * TINY)


def margin(spec: Spec, values: Tensor, strays: Tensor) -> float:
    """A lower bound of the margin, if rows stray by ``strays`` (rows) from ``values`` (rows) at the centre; or NaN."""
    return spec.margin(down(values - strays)).item()


def radius(spec: Spec, values: Tensor, slopes: Tensor) -> float:
    """Every point closer to the centre than this is safe: the pairwise bound min over disjuncts of max over rows of
    values / slopes (Hein and Andriushchenko 2017, arXiv:1705.08475), both (rows); 0 where the centre itself is not."""
    ratio = torch.where(values > 0, down(values / slopes), 0.0).nan_to_num(nan=0.0)
    return max(spec.margin(ratio).item(), 0.0)


def radius_from_constant(values: Tensor, constant: float) -> float:
    """``margin / (sqrt 2 L)`` in l2 from differences to the other logits (rows) and the constant of all logits
    together (Tsuzuku, Sato, Sugiyama 2018, arXiv:1802.04034); never above :func:`radius` on the same bounds."""
    least = values.amin().item()
    divisor = times(up(sqrt(2)), constant)
    if not (least > 0 and divisor < inf):
        return 0.0
    return inf if divisor == 0 else least / divisor * (1 - 2.0**-50)


def dual_norm(rows: Tensor, p: float) -> Tensor:
    """At least the norm dual to l_p of each row: (rows x n) to (rows)."""
    size = rows.abs()
    if p == inf:
        return total(size, 1)
    if p == 1:
        return size.amax(1)
    return torch.tensor([frobenius(row) for row in size], dtype=torch.float64)
