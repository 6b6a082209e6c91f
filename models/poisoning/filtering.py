"""Robust mean and covariance by filtering: points that stretch the data where a normal law would not are taken out.

After Diakonikolas et al. 2017 ("Being robust (in high dimensions) can be practical", arXiv:1703.00893): while some
direction of the whitened data, or of their squares, has more variance than a normal law leaves it, the points that are
farthest out along it go.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log, sqrt

import torch
from torch import Tensor

from assay.verify.core.errors import InputError

# What a direction's variance may exceed the normal law's by before points go, beside what chance explains.
SLACK = 0.1
RIDGE = 1e-9  # of the largest eigenvalue, added to covariances that are inverted


@dataclass(frozen=True, eq=False)
class Robust:
    """``mean`` (values), ``covariance`` (values x values), and which points were ``kept`` for them: (n), bool."""

    mean: Tensor
    covariance: Tensor
    kept: Tensor

    def whiten(self, points: Tensor) -> Tensor:
        """Points (n x values) in the units of the covariance: (n x values)."""
        return (points.double() - self.mean) @ inverse_root(self.covariance)


def robust_mean(points: Tensor, share: float, variance: float | None = None) -> Robust:
    """Mean of points (n x values) of which at most ``share`` are foreign and the others have a covariance of at most
    ``variance`` in every direction; the median of the kept points' variances where it is not known."""
    x, most = _checked(points, share)
    kept = torch.ones(len(x), dtype=torch.bool)
    while True:
        mean, covariance = moments(x[kept])
        values, vectors = torch.linalg.eigh(covariance)
        bound = float(values.median()) if variance is None else variance
        left = most - int((~kept).sum())
        if left <= 0 or float(values[-1]) <= bound * _normal_limit(int(kept.sum()), x.shape[1]):
            return Robust(mean, covariance, kept)
        kept = _without_the_farthest(kept, ((x - mean) @ vectors[:, -1]).square(), left, most)


def robust_moments(points: Tensor, share: float) -> Robust:
    """Mean and covariance of points (n x values) of which at most ``share`` are foreign and the others normal.

    The squares of whitened normal values have variance 2 along every direction of matrices: where more is left, the
    points that are farthest out along that direction go. The covariance is scaled up by nothing: what is cut off of
    clean tails stays off, a few parts in a hundred at most.
    """
    x, most = _checked(points, share)
    kept = torch.ones(len(x), dtype=torch.bool)
    while True:
        mean, covariance = moments(x[kept])
        white = (x - mean) @ inverse_root(covariance)
        squares = _upper(white)
        centred = squares - squares[kept].mean(0)
        direction = torch.linalg.svd(centred[kept], full_matrices=False).Vh[0]
        along = (centred @ direction).square()
        left = most - int((~kept).sum())
        limit = 2 * _normal_limit(int(kept.sum()), squares.shape[1])
        if left <= 0 or float(along[kept].mean()) <= limit:
            return Robust(mean, covariance, kept)
        kept = _without_the_farthest(kept, along, left, most)


def moments(points: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of points (n x values): (values), (values x values)."""
    mean = points.mean(0)
    centred = points - mean
    return mean, centred.T @ centred / len(points)


def inverse_root(covariance: Tensor) -> Tensor:
    """The inverse of the symmetric root, of a covariance that is made regular: (values x values)."""
    values, vectors = torch.linalg.eigh(covariance)
    floor = RIDGE * float(values[-1].clamp(min=torch.finfo(values.dtype).tiny))
    root: Tensor = vectors * values.clamp(min=floor).rsqrt() @ vectors.T
    return root


def _normal_limit(n: int, size: int) -> float:
    """How far above 1 chance alone takes the largest variance of n normal points in ``size`` directions, and slack."""
    return (1 + sqrt(size / n)) ** 2 + SLACK + sqrt(2 * log(max(n, 2)) / n)


def _without_the_farthest(kept: Tensor, along: Tensor, left: int, most: int) -> Tensor:
    """``kept`` less a tenth of what may go, those farthest out: all (n)."""
    count = min(left, max(1, ceil(most / 10)))
    worst = along.masked_fill(~kept, -1).topk(count).indices
    fewer = kept.clone()
    fewer[worst] = False
    return fewer


def _upper(white: Tensor) -> Tensor:
    """Products of pairs of values (n x values), each pair once, at unit scale: squares over sqrt 2 would be doubled."""
    rows, columns = torch.triu_indices(white.shape[1], white.shape[1])
    scale = torch.where(rows == columns, 1.0, sqrt(2))
    return white[:, rows] * white[:, columns] * scale


def _checked(points: Tensor, share: float) -> tuple[Tensor, int]:
    """The points in float64, and how many may go: half as many again as are feared."""
    if points.dim() != 2 or len(points) < 2 or not bool(points.isfinite().all()):
        raise InputError(f"expected finite points (n x values), at least two, got shape {tuple(points.shape)}")
    if not 0 <= share < 0.5:
        raise InputError(f"the share of foreign points must be at least 0 and below 1/2, got {share}")
    return points.double(), int(1.5 * share * len(points))
