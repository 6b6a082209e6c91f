"""Rows of values that sum up to one, less what their coefficients have in common: ``a @ y = (a - c) @ y + c``, c any
number, where y is a softmax. Between lines that are drawn about each of its values alone, that is nearer to them."""

from __future__ import annotations

import torch
from torch import Tensor

from assay.verify.bounds.relaxations.lines import Lines
from assay.verify.core.network import Node
from assay.verify.core.ops import InverseSumExp
from assay.verify.core.verifier import Bounds
from assay.verify.support.floats import gamma


def sums_to_one(node: Node) -> bool:
    """Whether the node's values along its last axis always sum up to one."""
    return isinstance(node.op, InverseSumExp) and node.op.whole


def between(lines: Lines, operand: Bounds) -> Bounds:
    """Between what the two planes have each value in the middle of the operands: (domains x features)."""
    middle = torch.lerp(operand.lower, operand.upper, 0.5)
    low = torch.linalg.vecdot(lines.slope, middle)
    low = low if lines.intercept is None else low + lines.intercept
    return Bounds(low, low + lines.intercept_gap + torch.linalg.vecdot(lines.slope_gap, middle))


def without_common(rows: Tensor, values: Bounds, count: int, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (domains x rows x features) of values of which ``count`` in a line sum up to one, less the numbers that
    leave them the highest where the ``values`` (domains x features) are as bad as they may be; what these come to,
    (domains x rows), and at most how much rounding takes of it until ``steps`` sums are made of it: (domains x rows).

    Such a number is the multiplier of the sum in the linear program over these values, whose optimum sorting finds.
    """
    parts = _lines(rows, count)
    low, high = (_lines(side.nan_to_num(0.0, 0.0, 0.0), count) for side in (values.lower, values.upper))
    width = (high - low).clamp(min=0)
    left = (high.sum(-1) - 1)[:, None, :, None]  # from the largest values so much is taken, the greatest rows first
    ordered, order = parts.sort(-1, descending=True)
    behind = width[:, None].expand_as(parts).gather(-1, order).cumsum(-1)
    place = (behind < left).sum(-1, keepdim=True).clamp(max=count - 1)
    common = ordered.gather(-1, place)
    rest = (parts - common).flatten(-2)
    unit = torch.finfo(rows.dtype).eps
    size = common.abs().sum((-1, -2))
    n = steps + parts.shape[-2] + 4
    error = unit * rest.abs().sum(-1) * (1 + gamma(rows.shape[-1] + 4, unit)) + 4 * gamma(n, unit) * size
    return rest, common.sum((-1, -2)), error


def _lines(values: Tensor, count: int) -> Tensor:
    """(... x features) to (... x lines x count)."""
    return values.reshape(*values.shape[:-1], -1, count)
