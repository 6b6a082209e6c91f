"""Numbers rounded in a direction."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor


def round_up(value: Tensor, dtype: torch.dtype) -> Tensor:
    """The smallest number of ``dtype`` that is at least ``value`` (float64, any shape), element by element."""
    if value.dtype == dtype:
        return value
    cast = value.to(dtype)
    below = cast.double() < value
    if value.device.type == "cpu" and not bool(below.any()):
        return cast
    return torch.where(below, torch.nextafter(cast, torch.full_like(cast, inf)), cast)


def round_down(value: Tensor, dtype: torch.dtype) -> Tensor:
    """The largest number of ``dtype`` that is at most ``value`` (float64, any shape), element by element."""
    return -round_up(-value, dtype)


def directed_sum(a: Tensor, b: Tensor, up: bool) -> Tensor:
    """a + b (float64, shapes that broadcast) rounded up or down; exact sums stay as they are (TwoSum, Knuth)."""
    total = a + b
    back = total - a
    error = (a - (total - back)) + (b - back)
    direction = torch.full_like(total, inf if up else -inf)
    return torch.where(error > 0 if up else error < 0, torch.nextafter(total, direction), total)
