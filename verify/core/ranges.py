"""What a curve does to an interval: the range of its values, and of its slopes, over it.

Both are taken at the ends and at the few points where values, or slopes, turn: up to the rounding of the curve's own
function and derivative they are exact. Outside of where a curve is defined they are NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import torch
from torch import Tensor

from assay.verify.core.curves import Curve, Function

Range = tuple[Tensor, Tensor]

FAR, STEEP = 1e8, 1e3  # a derivative that is as large so far out has no bound; others have their limits there


def values(f: Curve, low: Tensor, high: Tensor) -> Range:
    """The least and the largest value over ``[low, high]`` (any shape, theirs)."""
    return _extremes(f, f.function, f.turns, low, high)


def slopes(f: Curve, low: Tensor, high: Tensor) -> Range:
    """The least and the largest derivative over ``[low, high]`` (any shape, theirs)."""
    return _extremes(f, f.derivative, f.breaks, low, high)


def slopes_everywhere(f: Curve) -> tuple[float, float]:
    """The least and the largest derivative of all, a little outward; infinite where there is no bound."""
    if f.poles or f.domain != (-inf, inf):
        return -inf, inf
    ends = torch.tensor([-FAR, FAR], dtype=torch.float64, device="cpu")
    least, most = (float(side) for side in slopes(f, ends[0], ends[1]))
    if not max(-least, most) < STEEP:
        return -inf, inf
    return least - 1e-12 * (least != 0), most + 1e-12 * (most not in (0, 1))


def clipped(f: Curve, values: Range) -> Range:
    """Bounds of values (any shape), no further out than any value of the curve lies."""
    low, high = (torch.clamp(side, *f.image) for side in values)
    return low, high


def defined(f: Curve, low: Tensor, high: Tensor) -> Tensor:
    """Whether the curve is defined on all of ``[low, high]``: of their shape."""
    inside = (low >= f.domain[0]) & (high <= f.domain[1])
    for pole in f.poles:
        inside = inside & ((low > pole) | (high < pole))
    return inside


def meets(f: Curve, point: float, low: Tensor, high: Tensor) -> Tensor:
    """Whether ``[low, high]`` holds the point, or another one a number of periods from it: of their shape."""
    if not f.period:
        return (low <= point) & (point <= high)
    near = 8 * torch.finfo(low.dtype).eps * (low.abs() + high.abs() + f.period)
    first = point + f.period * ((low - near - point) / f.period).ceil()
    return first <= high + near


def _extremes(f: Curve, function: Function, points: Sequence[float], low: Tensor, high: Tensor) -> Range:
    ends = function(low), function(high)
    least, most = torch.minimum(*ends), torch.maximum(*ends)
    for point in points:
        met, at = meets(f, point, low, high), float(function(torch.tensor(point, dtype=torch.float64, device="cpu")))
        least = torch.where(met, least.clamp(max=at), least)
        most = torch.where(met, most.clamp(min=at), most)
    if f.domain == (-inf, inf) and not f.poles:
        return least, most
    known = defined(f, low, high)
    return torch.where(known, least, torch.nan), torch.where(known, most, torch.nan)
