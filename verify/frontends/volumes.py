"""Convolutions of volumes as convolutions of planes.

The layers of depth that a place reads are channels, and places lie below each other, with their padding; rows of the
result in which two of them met are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.verify.core.ops import Conv2d
from assay.verify.frontends.composed import Emit, Value, picked, within


@dataclass(frozen=True)
class Windows:
    """Of the three axes of a volume each: ``size`` and ``dilation`` of the kernel, ``stride``, how much lies ``before``
    the volume, and how many ``places`` there are."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    places: tuple[int, ...]

    def arranged(self, x: Tensor, outside: float) -> Tensor:
        """A volume (1 x channels x depth x height x width) as a plane (1 x channels * kernel depth x places * rows x
        columns), ``outside`` where there is nothing."""
        rows, columns = self._rows * self.stride[1], self._reach(2, self.places[2])
        within(x.shape[1] * self.size[0] * self.places[0] * rows * columns, "the values that a convolution reads")
        lengths = (self._reach(0, self.places[0]), rows, columns)
        ends = [(b, n - b - s) for n, b, s in zip(lengths, self.before, x.shape[2:], strict=True)]
        whole = F.pad(x, [n for pair in reversed(ends) for n in pair], value=outside)
        layer = torch.arange(self.places[0])[:, None] * self.stride[0] + torch.arange(self.size[0]) * self.dilation[0]
        slabs = whole[0][:, layer]  # channels x places x kernel depth x rows x columns
        return slabs.transpose(1, 2).reshape(1, x.shape[1] * self.size[0], -1, columns)

    def applied(self, emit: Emit, x: Value, weight: Tensor, bias: Tensor, groups: int) -> Value:
        """The convolution of what was :meth:`arranged`, with a weight (outputs x inputs / groups x kernel) and a bias
        (outputs): (outputs x places)."""
        op = Conv2d(weight.flatten(1, 2), bias, self.stride[1:], (0, 0), self.dilation[1:], groups)  # type: ignore[arg-type]
        below = self.places[0] * self._rows - (self._reach(1, 1) - 1) // self.stride[1]
        shape = (len(weight), below, self.places[2])
        y = emit(op, x, shape=shape)
        row = torch.arange(self.places[0])[:, None] * self._rows + torch.arange(self.places[1])
        index = torch.arange(prod(shape)).view(shape)[:, row]
        return picked(emit, y, index, (len(weight), *self.places))

    @property
    def _rows(self) -> int:
        """How many rows of the result the places of one depth take up, those in which two depths meet among them."""
        return -(-self._reach(1, self.places[1]) // self.stride[1])

    def _reach(self, axis: int, places: int) -> int:
        """How many cells of an axis so many places read, with those between them."""
        return (places - 1) * self.stride[axis] + (self.size[axis] - 1) * self.dilation[axis] + 1


def shares(channels: int, size: Sequence[int], by: float) -> Tensor:
    """The weight of a sum over each channel's windows, divided ``by`` a number: (channels x 1 x size)."""
    return torch.full((channels, 1, *size), 1 / by, dtype=torch.float64)
