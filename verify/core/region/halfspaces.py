"""What linear constraints ``A x <= b`` leave of a box, by intervals."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from assay.verify.support.floats import TINY, down, gamma, up


def tightened(A: Tensor, b: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """The boxes that are left when each input goes as far as each constraint lets it with all others at their best,
    rounded outward: A (rows x inputs), b (rows), finite lower and upper (boxes x inputs), and as results.

    Where nothing is left of a box, its bounds cross.
    """
    A, b = A.to(lower), b.to(lower)
    terms = torch.minimum(A * lower[:, None], A * upper[:, None])  # the least of each, (boxes x rows x inputs)
    size = torch.maximum((A * lower[:, None]).abs(), (A * upper[:, None]).abs())
    count = A.shape[1] + 4
    error = 2 * gamma(count) * (size.sum(2) + b.abs()) + count * TINY
    # What the others leave for each: a_j x_j <= b - sum of the others' least.
    limit = ((b - terms.sum(2) + error)[..., None] + terms) / A
    slack = 4 * gamma(2) * limit.abs()
    above = torch.where(A > 0, up(limit + slack), inf).amin(1)
    below = torch.where(A < 0, down(limit - slack), -inf).amax(1)
    # NaN is what a coefficient of 0 left, or an overflow: no bound.
    return torch.fmax(lower, below), torch.fmin(upper, above)
