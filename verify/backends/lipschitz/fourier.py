"""The 2-norm of a convolution by Fourier transform on a torus large enough that nothing wraps around.

A convolution with zero padding is a part (some inputs, some outputs) of a circular one on N >= n + 2 padding points,
whose norm is the largest of its C_out x C_in frequency responses (Sedghi, Gupta, Long 2019, arXiv:1805.10408). On the
image's own n points it would not be a part of it, and the bound would be false. A stride s makes s * s phases of the
input, which count as channels of a convolution of stride 1.
"""

from __future__ import annotations

from math import ceil, inf, log2, sqrt

import torch
from torch import Tensor

from assay.verify.backends.lipschitz.outward import frobenius, plus, times, up
from assay.verify.backends.lipschitz.spectral import cholesky_bound, gram
from assay.verify.core.ops import Conv2d
from assay.verify.support.floats import UNIT

LARGEST = 30_000_000  # entries of all frequency responses together


def fourier_bound(op: Conv2d, shape: tuple[int, ...]) -> float | None:
    """At least the 2-norm of a convolution of one group on inputs of ``shape``; None where it would take too long."""
    phases, torus = _phases(op), _torus(op, shape)
    if torus[0] * torus[1] * phases.shape[0] * phases.shape[1] > LARGEST:
        return None
    return _largest_response(phases, torus)


def _phases(op: Conv2d) -> Tensor:
    """The kernel of stride 1 on the phases of the input: (out x in * strides x height x width)."""
    out, inputs, *size = op.weight.shape
    reach = [d * (k - 1) + 1 for k, d in zip(size, op.dilation, strict=True)]
    taps = [ceil(r / s) for r, s in zip(reach, op.stride, strict=True)]
    full = op.weight.new_zeros(out, inputs, *(t * s for t, s in zip(taps, op.stride, strict=True)))
    full[:, :, : reach[0] : op.dilation[0], : reach[1] : op.dilation[1]] = op.weight
    split = full.view(out, inputs, taps[0], op.stride[0], taps[1], op.stride[1])
    return split.permute(0, 1, 3, 5, 2, 4).reshape(out, -1, *taps)


def _torus(op: Conv2d, shape: tuple[int, ...]) -> tuple[int, int]:
    """Points on each axis that keep every input apart from the places where others are met."""
    points = []
    for n, k, s, p, d in zip(shape[1:], op.weight.shape[2:], op.stride, op.padding, op.dilation, strict=True):
        outputs = (n + 2 * p - d * (k - 1) - 1) // s + 1
        taps = ceil((d * (k - 1) + 1) / s)
        points.append(max((n - 1 + p) // s + 1, outputs + taps - 1))
    return points[0], points[1]


def _largest_response(kernel: Tensor, torus: tuple[int, int]) -> float:
    response = torch.fft.rfft2(kernel, torus).flatten(2).permute(2, 0, 1)
    # A transform errs by a small multiple of log2 N units of the sum of magnitudes; the multiple here is generous.
    rounding = 64 * UNIT * (8 + log2(torus[0] * torus[1]))
    slack = times(rounding, frobenius(kernel.abs().sum((2, 3))))
    square, error = gram(response)
    if not bool(square.isfinite().all()):
        return inf
    guess = sqrt(max(torch.linalg.eigvalsh(square)[..., -1].amax().item(), 0.0))
    all_of_it = times(frobenius(kernel), up(sqrt(kernel.numel())))
    return min(plus(cholesky_bound(square, error, guess), slack), all_of_it)
