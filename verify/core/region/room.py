"""How much room linear constraints leave in a box, by a linear program of scipy's (HiGHS).

Nothing that comes of it is taken for granted: points are tested, and what multipliers prove is worked out in fractions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

ZERO = Fraction(0)
PIVOTS = 20_000  # more are not made


@dataclass(frozen=True)
class Room:
    """``point`` (inputs): where ``A x + s w <= b`` holds with the largest s, or with s = 1; ``duals`` (rows):
    multipliers of the constraints, which prove that there is no larger one."""

    point: tuple[float, ...]
    duals: tuple[Fraction, ...]


def room(A: Tensor, b: Tensor, lower: Tensor, upper: Tensor, weights: Tensor) -> Room | None:
    """The room that ``A x <= b`` leaves in the box ``lower <= x <= upper``, measured by positive ``weights`` w (rows).

    A: (rows x inputs), all finite, lower <= upper, at least one row. None where it would take too long.
    """
    from scipy.optimize import linprog

    size = A.shape[1]
    cost = [*[0.0] * size, -1.0]
    bounds = [*zip(lower.tolist(), upper.tolist(), strict=True), (None, 1.0)]
    rows = torch.cat([A, weights[:, None]], 1)
    answer = linprog(cost, rows.numpy(), b.numpy(), bounds=bounds, options={"maxiter": PIVOTS})
    if answer.status != 0:
        return None
    return Room(tuple(answer.x[:size].tolist()), tuple(Fraction(max(-dual, 0.0)) for dual in answer.ineqlin.marginals))


def excludes(
    duals: Sequence[Fraction],
    A: Sequence[Sequence[float]],
    b: Sequence[float],
    strict: Sequence[bool],
    lower: Sequence[float],
    upper: Sequence[float],
) -> bool:
    """Whether multipliers prove that no x of the box satisfies ``A x <= b``, or ``<`` in ``strict`` rows (Farkas 1902):
    the sum of ``A x - b`` that they weigh is above 0 all over the box, or at least 0 where a strict row takes part."""
    if any(y < 0 for y in duals):
        return False
    least = -sum((y * Fraction(s) for y, s in zip(duals, b, strict=True)), ZERO)
    for j, (low, high) in enumerate(zip(lower, upper, strict=True)):
        q = sum((y * Fraction(row[j]) for y, row in zip(duals, A, strict=True) if y), ZERO)
        least += min(q * Fraction(low), q * Fraction(high)) if q else ZERO
    return least > 0 or (least == 0 and any(y > 0 and s for y, s in zip(duals, strict, strict=True)))
