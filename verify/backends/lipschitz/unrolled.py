"""The 2-norm of a convolution as the sparse matrix that it is: exact at the edges, where the Fourier bound is loose.

With the values ordered place by place, its Gram matrix has all entries near the diagonal, so that c^2 I minus it is
factorised in a time that grows with the image's area only.
"""

from __future__ import annotations

from math import inf, isfinite, prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from assay.verify.backends.lipschitz.outward import plus, times, total
from assay.verify.backends.lipschitz.spectral import STEPS, cholesky_bound, confirmed
from assay.verify.bounds.backward.matrix import Sparse, matrix
from assay.verify.core.ops import Conv2d
from assay.verify.support.floats import TINY, gamma

MOST_ENTRIES = 20_000_000
MOST_WORK = 6e9  # multiplications of the factorisation
DENSE = 400  # up to this size a full matrix is factorised


def unrolled_bound(op: Conv2d, shape: tuple[int, ...], guess: float) -> float | None:
    """At least the 2-norm of a convolution of one group on inputs of ``shape``; None where it would take too long."""
    axes = list(zip(shape[1:], op.padding, op.dilation, op.weight.shape[2:], op.stride, strict=True))
    out = (op.weight.shape[0], *((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in axes))
    reach = [d * (k - 1) for _, _, d, k, _ in axes]
    overlap = [r // s for r, (*_, s) in zip(reach, axes, strict=True)]  # of the inputs that outputs see
    side, size = (overlap, out) if prod(out) <= prod(shape) else (reach, shape)
    far, near = (0, 1) if size[2] <= size[1] else (1, 0)
    width = (side[far] * size[1 + near] + side[near] + 1) * size[0]
    too_long = prod(size) > DENSE and prod(size) * float(width) ** 2 > MOST_WORK
    if too_long or op.weight.numel() * prod(out[1:]) > MOST_ENTRIES:
        return None
    entries = matrix(op, shape)
    assert isinstance(entries, Sparse)
    return _bound(entries, shape, out, guess)


def _bound(entries: Sparse, shape: tuple[int, ...], out: tuple[int, ...], guess: float) -> float:
    from scipy.sparse import csr_array

    values = entries.values.numpy()
    into, outof = _by_place(entries.inputs, shape), _by_place(entries.outputs, out)
    unrolled = csr_array((values, (outof, into)), shape=(prod(out), prod(shape)))
    short = unrolled if prod(out) <= prod(shape) else unrolled.T.tocsr()
    square = (short @ short.T).tocoo()
    size = abs(short)
    ones = (torch.from_numpy(size.sum(axis)) for axis in (0, 1))
    most = [float(total(t[None], 0).amax()) * (1 + 2 * gamma(short.shape[1] + 2)) for t in ones]
    error = plus(times(2 * gamma(short.shape[1] + 4), times(*most)), short.shape[1] * TINY)
    if square.shape[0] <= DENSE:
        return cholesky_bound(torch.from_numpy(square.toarray()), error, guess)
    return _banded(square, int(abs(square.row - square.col).max(initial=0)), error, guess)


def _banded(square: Any, width: int, error: float, guess: float) -> float:
    """:func:`spectral.cholesky_bound` of a matrix with entries near the diagonal only."""
    from scipy.linalg import LinAlgError, cholesky_banded

    size, lower = square.shape[0], square.row >= square.col
    band = np.zeros((width + 1, size))
    band[(square.row - square.col)[lower], square.col[lower]] = -square.data[lower]
    if not (isfinite(guess) and guess > 0 and np.isfinite(band).all()):
        return inf
    for step in STEPS:
        c = guess * (1 + step)
        shifted = band.copy()
        shifted[0] += c * c
        trace = float(shifted[0].sum())
        try:
            cholesky_banded(shifted, overwrite_ab=True, lower=True, check_finite=False)
        except LinAlgError:
            continue
        return confirmed(c, trace * (1 + 2 * gamma(size)), width + 1, error)
    return inf


def _by_place(index: Tensor, shape: tuple[int, ...]) -> Any:
    """Numbers of values, channel by channel, as numbers of the same values, place by place, the short side first."""
    channels, height, width = shape
    channel, place = index // (height * width), index % (height * width)
    row, column = place // width, place % width
    place = row * width + column if width <= height else column * height + row
    return (place * channels + channel).numpy()
