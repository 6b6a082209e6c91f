"""What a Cholesky factorisation proves of a symmetric matrix: its least eigenvalue, from below."""

from __future__ import annotations

from math import inf, isfinite

import numpy as np

from assay.verify.backends.lipschitz.outward import plus, times, up
from assay.verify.backends.lipschitz.sdp.unrolled import Array
from assay.verify.support.floats import TINY, gamma


def least_eigenvalue(matrix: Array, error: float) -> float:
    """A number not above the least eigenvalue of every symmetric matrix within ``error``, in the 2-norm, of the lower
    triangle of ``matrix`` (n x n); -inf where none was found.

    The computed eigenvalue is a guess. That the matrix, less a little more than it, has a Cholesky factorisation
    proves the bound: a factorisation that runs to its end leaves eigenvalues of at least ``-gamma_(n+1) trace``
    (Rump 2006, Verification of positive definiteness), which is charged, with every other rounding.
    """
    if not np.isfinite(matrix).all():
        return -inf
    size = len(matrix)
    lower = np.tril(matrix)
    symmetric = lower + np.tril(matrix, -1).T
    guess = float(np.linalg.eigvalsh(symmetric)[0])
    scale = float(np.abs(symmetric).sum(1).max()) + TINY
    for step in (1e-14, 1e-13, 1e-12, 1e-11, 1e-10, 1e-9, 1e-7, 1e-5, 1e-3, 1.0):
        shift = guess - step * scale
        shifted = symmetric - shift * np.eye(size)
        try:
            np.linalg.cholesky(shifted)
        except np.linalg.LinAlgError:
            continue
        trace = float(np.abs(np.diag(shifted)).sum()) * (1 + 2 * gamma(size + 2))
        slack = plus(times(4 * gamma(size + 4), trace), size * size * TINY)
        rounding = times(2 * gamma(2), plus(scale, abs(shift)))  # of the difference on the diagonal
        proved = -up(-shift + plus(plus(slack, rounding), error))
        return proved if isfinite(proved) else -inf
    return -inf
