"""Values that are lines of values before them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from assay.verify.core.network import Node
from assay.verify.core.ops import Scale


@dataclass(frozen=True)
class Line:
    """``factor * x + shift`` of the value x at ``root``."""

    root: int
    factor: float
    shift: float


def line(nodes: Sequence[Node], position: int) -> Line:
    """A value as a line of the first value before it that is no uniform scaling."""
    factor, shift = 1.0, 0.0
    while isinstance(op := nodes[position].op, Scale) and all(_same(part) for part in (op.factor, op.shift)):
        slope, step = float(op.factor.flatten()[0]), float(op.shift.flatten()[0])
        factor, shift = factor * slope, factor * step + shift
        (position,) = nodes[position].inputs
    return Line(position, factor, shift)


def _same(part: Tensor) -> bool:
    return bool((part == part.flatten()[0]).all())
