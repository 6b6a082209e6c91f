"""The transpose of a convolution: what takes coefficients of its value back to its operand."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.verify.bounds.memo import per_op
from assay.verify.core.ops import Conv2d, Op

MANY = 8  # inputs of a convolution from which on its transpose is better made by a convolution
# In float32 where images are so wide; and with channels last, copies included, where outputs are so many and rows of
# the image fill no whole registers.
WIDE, DEEP, REGISTERS = 8, 64, 32


def transpose(op: Conv2d, coef: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Coefficients of the value of ``op`` (rows x outputs x height x width) as those of its operand, which has
    ``shape``: (rows x shape)."""
    if coef.dtype == torch.float32 and _interleaves(op):
        return _interleaved(op, coef, shape)
    if _is_mirrored(op, coef):
        (top, left), (height, width) = op.padding, op.weight.shape[2:]
        weight = _mirrored(op)
        if coef.dtype == torch.float32 and _is_deep(op, coef):
            coef, weight = coef.contiguous(memory_format=torch.channels_last), _channels_last(op)
        return F.conv2d(coef, weight, padding=(height - 1 - top, width - 1 - left))
    spans = zip(shape[1:], coef.shape[2:], op.stride, op.padding, op.dilation, op.weight.shape[2:], strict=True)
    # Rows and columns that the convolution left over, its stride being no divisor, have coefficient 0.
    rest = [n - ((m - 1) * s - 2 * p + d * (k - 1) + 1) for n, m, s, p, d, k in spans]
    return F.conv_transpose2d(coef, op.weight, None, op.stride, op.padding, rest, op.groups, op.dilation)


def transpose_columns(op: Conv2d, coef: Tensor) -> Tensor:
    """As :func:`transpose` of a plain convolution, with rows last: (outputs x height x width x rows) to (inputs x ...).
    One product for each element of the kernel, of the coefficients moved by its place."""
    taps, (top, left) = _taps(op), op.padding
    vertical, horizontal = taps.shape[0] - 1 - top, taps.shape[1] - 1 - left
    padded = F.pad(coef, (0, 0, horizontal, horizontal, vertical, vertical))
    height, width = padded.shape[1] - taps.shape[0] + 1, padded.shape[2] - taps.shape[1] + 1
    made = coef.new_zeros(taps.shape[2], height * width * coef.shape[3])
    for y, row in enumerate(taps):
        for x, tap in enumerate(row):
            made.addmm_(tap, padded[:, y : y + height, x : x + width].reshape(len(coef), -1))
    return made.view(-1, height, width, coef.shape[3])


def is_plain(op: Conv2d) -> bool:
    """Whether the transpose is a convolution."""
    plain = op.stride == op.dilation == (1, 1) and op.groups == 1
    return plain and all(p < k for p, k in zip(op.padding, op.weight.shape[2:], strict=True))


def _is_mirrored(op: Conv2d, coef: Tensor) -> bool:
    """Whether that takes less, in float64 by 1.2 to 3 times, in float32 by up to 1.7, since inputs are not few."""
    large = coef.dtype == torch.float64 or coef.shape[3] >= WIDE
    return large and is_plain(op) and op.weight.shape[1] >= MANY


def _is_deep(op: Conv2d, coef: Tensor) -> bool:
    """Whether channels go last, which takes less by 1.2 to 1.5 times."""
    return len(op.weight) >= DEEP and op.weight[0, 0].numel() > 1 and coef.shape[3] % REGISTERS > 0


@per_op
def _taps(op: Op) -> Tensor:
    """The kernel of the transpose, element by element: (height x width x inputs x outputs)."""
    return _mirrored(op).permute(2, 3, 0, 1).contiguous()


@per_op
def _mirrored(op: Op) -> Tensor:
    """The kernel of the transpose: (inputs x outputs x height x width)."""
    assert isinstance(op, Conv2d)
    return op.weight.flip(2, 3).transpose(0, 1).contiguous()


@per_op
def _channels_last(op: Op) -> Tensor:
    """The same with channels last in memory."""
    return _mirrored(op).contiguous(memory_format=torch.channels_last)


def _interleaves(op: Conv2d) -> bool:
    """Whether each element of the operand is read by equally many of the kernel's, which is none of one for most."""
    kernel, (vertical, horizontal) = op.weight.shape[2:], op.stride
    even = kernel[0] % vertical == 0 and kernel[1] % horizontal == 0
    return even and vertical == horizontal > 1 and op.groups == 1 and op.dilation == (1, 1)


def _interleaved(op: Conv2d, coef: Tensor, shape: tuple[int, ...]) -> Tensor:
    """By a convolution that makes the operand's elements of each place between strides as channels of their own (Shi et
    al. 2016, arXiv:1609.07009), which are then interleaved: in float32 2 to 5 times faster than the library's
    transposed convolution, and the same products in its sums."""
    step, weight = op.stride[0], _phases(op)
    made = F.conv2d(coef, weight, padding=(weight.shape[2] - 1, weight.shape[3] - 1))
    made = made.view(len(coef), shape[0], step, step, *made.shape[2:])
    # Element i of the operand is number (i + padding) // step of place (i + padding) % step.
    ends = [-(-(n + p) // step) for n, p in zip(shape[1:], op.padding, strict=True)]
    made = F.pad(made, (0, max(0, ends[1] - made.shape[5]), 0, max(0, ends[0] - made.shape[4])))
    full = coef.new_empty(len(coef), *shape)
    for y in range(step):
        for x in range(step):
            part = full[:, :, y::step, x::step]
            (top, row), (left, column) = (divmod(n + p, step) for n, p in zip((y, x), op.padding, strict=True))
            part.copy_(made[:, :, row, column, top : top + part.shape[2], left : left + part.shape[3]])
    return full


@per_op
def _phases(op: Op) -> Tensor:
    """The kernel's elements that meet an element of the operand, for each place of that between strides: (inputs *
    places x outputs x height x width of these)."""
    assert isinstance(op, Conv2d)
    outputs, inputs, height, width = op.weight.shape
    step, other = op.stride
    parts = op.weight.reshape(outputs, inputs, height // step, step, width // other, other)
    return parts.permute(1, 3, 5, 0, 2, 4).reshape(-1, outputs, height // step, width // other).flip(2, 3)
