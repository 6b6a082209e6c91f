"""Euclidean lengths through affine operations: bounds of a small error that magnitudes of weights, one layer after the
other, would make as large as the values themselves."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, exp, gcd, inf, log, prod

import torch
from torch import Tensor

from assay.verify.bounds.memo import per_op
from assay.verify.core.ops import Conv2d, Linear, Op

SQUARINGS = 5  # of a matrix, after which its largest singular value is known to a few percent
SLACK = 1 + 2.0**-20  # more than all sums here lose, which are made in float64


@dataclass(frozen=True, eq=False)
class Stretch:
    """Of an error of length 1 in what an operation reads: how large it is at most in each element of the value (to be
    broadcast to its shape), and how long in all of it."""

    each: Tensor
    whole: float


def length(values: Tensor) -> float:
    """At least the Euclidean length of all of a tensor."""
    return float(_norms(values.double().flatten()[None]))


@per_op
def stretch(op: Op) -> Stretch | None:
    """Of a dense layer, or a convolution that reads all channels; None of others."""
    if isinstance(op, Linear):
        return Stretch(_rows(op.weight), _largest(op.weight))
    if not isinstance(op, Conv2d) or op.groups > 1:
        return None
    # A convolution is a matrix times all windows, which hold each element so many times.
    axes = zip(op.weight.shape[2:], op.stride, op.dilation, strict=True)
    times = prod(ceil(k * gcd(s, d) / s) for k, s, d in axes)
    matrix = op.weight.flatten(1)
    return Stretch(_rows(matrix)[:, None, None], _largest(matrix) * times**0.5 * SLACK)


def _rows(matrix: Tensor) -> Tensor:
    """The rows' lengths, in the matrix's own precision: (rows)."""
    rows = (_norms(matrix.double()) * SLACK).to(matrix)
    return torch.where(rows == 0, rows, torch.nextafter(rows, torch.full_like(rows, inf)))


def _norms(rows: Tensor) -> Tensor:
    """At least the lengths of rows in float64, whose squares may be too small for it: (rows)."""
    scale = _scale(rows.abs().amax(1) if rows.shape[1] else rows.new_zeros(len(rows)))
    norms = torch.linalg.vector_norm(rows / scale[:, None], dim=1) * SLACK * scale
    return torch.where(norms == 0, norms, torch.nextafter(norms, torch.full_like(norms, inf)))


def _scale(largest: Tensor) -> Tensor:
    """By what numbers are divided of which this is the largest magnitude."""
    return torch.where((largest > 0) & (largest < inf), largest, 1.0)


def _largest(matrix: Tensor) -> float:
    """At least the largest singular value, and few percent more at most: a root of the size of a high power."""
    if not matrix.numel():
        return 0.0
    scale = _scale(matrix.double().abs().amax())
    matrix = matrix.double() / scale  # squares of squares would be too small
    square = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
    root = 0.0  # the logarithm of the largest eigenvalue
    for number in range(SQUARINGS + 1):
        size = float(torch.linalg.matrix_norm(square))
        if not 0 < size < inf:
            return size
        root += log(size) / 2**number
        square = square / size
        square = square @ square
    return exp(root / 2) * SLACK * float(scale)
