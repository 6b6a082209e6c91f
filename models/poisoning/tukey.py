"""Tukey's depth and median (Tukey 1975), exact: the small reference that robust means are held against.

The depth of a point is the least number of points in a closed half-space with it at the edge. Where no d points and
the query lie in one hyperplane, half-spaces through d - 1 points tilted clear of them are enough.
"""

from __future__ import annotations

from itertools import combinations
from math import comb

import torch
from torch import Tensor

from assay.verify.core.errors import InputError

LARGEST = 200_000  # hyperplanes that are tried for one query
CLOSE = 1e-9


def tukey_depth(points: Tensor, queries: Tensor) -> Tensor:
    """The depth of each query (m x values) among points (n x values) in general position: (m), int64.

    Points that coincide with the query count always. Exact, and with a cost of n^values: for one to three values and
    few points. Raises :class:`InputError` where that is too much.
    """
    x, q = points.double(), queries.double()
    n, size = x.shape
    subsets = torch.tensor(list(combinations(range(n), size - 1)), dtype=torch.int64)
    subsets = subsets.view(comb(n, size - 1), size - 1)
    if size > 3 or len(subsets) > LARGEST:
        raise InputError(f"Tukey's depth is for up to three values and few points, got {n} points of {size} values")
    depths = []
    for query in q:
        step = x - query
        same = step.abs().amax(1) <= CLOSE
        normals = _normals(step, subsets)
        normals = normals[normals.abs().amax(1) > CLOSE]
        side = step @ normals.T
        far = CLOSE * step.norm(dim=1, keepdim=True) * normals.norm(dim=1)
        above = ((side > far) & ~same[:, None]).sum(0)
        below = ((side < -far) & ~same[:, None]).sum(0)
        least = int(torch.minimum(above, below).min()) if len(normals) else 0
        depths.append(least + int(same.sum()))
    return torch.tensor(depths)


def tukey_median(points: Tensor) -> Tensor:
    """The mean of the deepest points (n x values) among themselves: (values), float64."""
    depth = tukey_depth(points, points)
    deepest: Tensor = points.double()[depth == depth.max()].mean(0)
    return deepest


def _normals(step: Tensor, subsets: Tensor) -> Tensor:
    """Normals of the hyperplanes through the query and each subset: (subsets x values)."""
    if step.shape[1] == 1:
        return torch.ones(1, 1, dtype=step.dtype)
    if step.shape[1] == 2:
        along = step[subsets[:, 0]]
        return torch.stack([-along[:, 1], along[:, 0]], 1)
    normals: Tensor = torch.linalg.cross(step[subsets[:, 0]], step[subsets[:, 1]])
    return normals
