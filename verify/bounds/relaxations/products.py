"""Planes about a product of two numbers over a box (McCormick 1976): two below it, two above, and all between these."""

from __future__ import annotations

import torch
from torch import Tensor

from assay.verify.bounds.relaxations.lines import Lines
from assay.verify.core.verifier import Bounds

ALIKE = 1 - 1e-6  # numbers of a ratio between this and 1 are the same
ROUND = 8  # units in the last place that a plane's constant may err by


def planes_about(z: Bounds, below: Tensor, above: Tensor) -> Lines:
    """Planes about the product of the two numbers of ``z`` (... x 2). ``below``, ``above`` (...): how far, from 0 to 1,
    the lower plane is turned from the one that touches at both upper ends to the one at both lower ends, and the upper
    plane from (upper, lower) to (lower, upper)."""
    (low_x, low_y), (high_x, high_y) = z.lower.unbind(-1), z.upper.unbind(-1)
    lower = torch.stack([torch.lerp(high_y, low_y, below), torch.lerp(high_x, low_x, below)], -1)
    upper = torch.stack([torch.lerp(low_y, high_y, above), torch.lerp(high_x, low_x, above)], -1)
    under = torch.lerp(-high_x * high_y, -low_x * low_y, below)
    over = torch.lerp(-high_x * low_y, -low_x * high_y, above)
    # What rounding made of slopes and constants comes to less than this anywhere in the box.
    kind = torch.finfo(low_x.dtype)
    size = torch.maximum(low_x.abs(), high_x.abs()) * torch.maximum(low_y.abs(), high_y.abs())
    slack = (ROUND * 3 * kind.eps) * size + kind.tiny
    intercept = under - slack
    return Lines(lower, upper - lower, over + slack - intercept, intercept)


def flattest(z: Bounds) -> tuple[Tensor, Tensor]:
    """Turns of the planes that change less over the box, 0 or 1, and half way where both do as much: in the middle of
    the box all planes are as good."""
    (low_x, low_y), (high_x, high_y) = z.lower.abs().unbind(-1), z.upper.abs().unbind(-1)
    width_x, width_y = (z.upper - z.lower).unbind(-1)
    below = low_y * width_x + low_x * width_y, high_y * width_x + high_x * width_y
    above = high_y * width_x + low_x * width_y, low_y * width_x + high_x * width_y
    return _lesser(*below), _lesser(*above)


def _lesser(one: Tensor, other: Tensor) -> Tensor:
    """1 where the first is less, 0 where the second is, 1/2 where rounding would decide."""
    return (((one < ALIKE * other).to(one) - (other < ALIKE * one).to(one)) + 1) / 2
