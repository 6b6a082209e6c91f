"""Euclidean lengths through affine operations: bounds of a small error that magnitudes of weights, one layer after the
other, would make as large as the values themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, isnan, nextafter, pi

import torch
from torch import Tensor

from assay.verify.bounds.memo import per_op, remember
from assay.verify.core.ops import Conv2d, Linear, Op
from assay.verify.support.floats import gamma

SQUARINGS = 3  # of a matrix, after which its largest singular value is known to a few percent
FEW = 32  # more roundings than what is done beside a product takes
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


def stretch(op: Op, shape: tuple[int, ...]) -> Stretch | None:
    """Of a dense layer, or a convolution that reads all channels, of an operand of this ``shape``; None of others."""
    return remember(_stretches(op), shape, lambda: _stretch(op, shape))


@per_op
def _stretches(op: Op) -> dict[tuple[int, ...], Stretch | None]:
    return {}


def _stretch(op: Op, shape: tuple[int, ...]) -> Stretch | None:
    if isinstance(op, Linear):
        return Stretch(_rows(op.weight), _largest(op.weight.double()[None]))
    if not isinstance(op, Conv2d) or op.groups > 1:
        return None
    whole = max(_largest(matrices) for matrices in _by_waves(op, shape))
    return Stretch(_rows(op.weight.flatten(1))[:, None, None], whole)


def _by_waves(op: Conv2d, shape: tuple[int, ...]) -> Iterator[Tensor]:
    """A convolution of images of this ``shape`` is part of one on a torus, where they have their margins about them.
    That takes each wave to a wave, channel by channel (Sedghi, Gupta and Long 2019, arXiv:1805.10408): by these
    matrices (waves x outputs x inputs), without those of which others are the complex conjugates."""
    axes = zip(shape[1:], op.weight.shape[2:], op.stride, op.padding, op.dilation, strict=True)
    vertical, horizontal = (_waves(*axis) for axis in axes)
    weight = op.weight.to(torch.complex128)
    for wave in vertical[: len(vertical) // 2 + 1]:
        rows = torch.einsum("ocyx,yv->ocvx", weight, wave)
        yield torch.einsum("ocvx,kxh->kocvh", rows, horizontal).flatten(2)


def _waves(size: int, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    """Of an axis of a torus, the waves at the kernel's elements, each as one of those of the places between two steps,
    which are inputs of their own: (waves x kernel x stride)."""
    reach = torch.arange(kernel, dtype=torch.float64) * dilation
    outputs = (size + 2 * padding - (kernel - 1) * dilation - 1) // stride + 1
    count = max(outputs, -(-(size + padding) // stride))  # no margin meets the image, and no two outputs are one
    angle = torch.arange(count, dtype=torch.float64)[:, None] * reach * (2 * pi / (count * stride))
    place = torch.nn.functional.one_hot(reach.long() % stride, stride)
    return torch.polar(torch.ones_like(angle), angle)[:, :, None] * place


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


def _largest(matrices: Tensor) -> float:
    """At least the largest singular value of any of some matrices (n x rows x columns), and few percent more at most: a
    root of the length of a high power, whose products are made in float32 and charged for that."""
    if not matrices.numel():
        return 0.0
    scale = matrices.abs().amax((1, 2), keepdim=True)
    square = (matrices / torch.where(scale > 0, scale, 1.0)).to(torch.complex64)
    if square.shape[1] > square.shape[2]:
        square = square.mH
    lost = 4 * gamma(square.shape[2] + FEW, 2.0**-24)
    sizes = []
    for number in range(SQUARINGS + 2):
        if number:
            square = square @ square.mH
        sizes.append(torch.linalg.vector_norm(square, dim=(1, 2), dtype=torch.complex128).to(torch.float64))
        square = square / torch.where(sizes[-1] > 0, sizes[-1], 1.0).to(torch.float32)[:, None, None]
    known = torch.ones_like(sizes[-1])  # of the power, as it is divided by its size
    for size in reversed(sizes[1:]):
        known = (known * size + lost).sqrt().clamp(max=1)
    largest = float((scale.flatten() * sizes[0] * known).amax()) * (1 + lost)
    return inf if isnan(largest) else nextafter(largest, inf) if largest > 0 else 0.0
