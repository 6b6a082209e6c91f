"""Piecewise constant functions in programs: closed graphs, the closure of each piece with its value.

Where a function jumps both of its values are allowed, and for a sign all three: what holds of the closed graph holds of
the function, and the least value over the one is the infimum over the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from assay.verify.core.ops import Step
from assay.verify.programs.program import Draft, Index, Vector

# How far the operand lies from the value at most, below and above it.
REACH = {"floor": (0.0, 1.0), "ceil": (-1.0, 0.0), "round": (-0.5, 0.5)}
# Where the first step up of an operand lies, seen from its value before.
JUMP = {"floor": 1.0, "ceil": 0.0, "round": 0.5}
MOST = 10_000  # steps up of all operands of an operation, where each has columns of its own
WIDEST = 0.25  # part of a piece that an inset takes from either side, at most


def pieces(draft: Draft, op: Step, z: Index, low: Vector, high: Vector, value: Index, inset: float) -> None:
    """Rows that tie integer columns ``value`` to their operands, the columns ``z`` within [low, high]: (features) each.

    ``inset``: how far within its piece each operand is held, as a part of its interval.
    """
    each, one, free = np.arange(len(z)), np.ones(len(z)), np.full(len(z), np.inf)
    within = inset * (high - low)
    if op.kind != "sign":
        least, most = REACH[op.kind]
        within = np.minimum(within, WIDEST)
        draft.rows([(each, z, one), (each, value, -one)], least + within, most - within)
        return
    positive, negative = (draft.columns(np.zeros(len(z)), one, integer=True) for _ in range(2))
    nothing = one if inset else np.zeros(len(z))  # where neither is, the operand is 0
    draft.rows([(each, positive, one), (each, negative, one)], nothing, one)
    draft.rows([(each, value, one), (each, positive, -one), (each, negative, one)], 0 * one, 0 * one)
    up, down = np.maximum(high, 0.0), np.minimum(low, 0.0)
    draft.rows([(each, z, one), (each, positive, -up), (each, negative, within)], -free, 0 * one)
    draft.rows([(each, z, one), (each, negative, -down), (each, positive, -within)], 0 * one, free)


@dataclass(frozen=True, eq=False)
class Jumps:
    """Steps up by 1 at points that operands z may pass: each field is (jumps).

    Columns ``a``, 1 where z is above, and ``p``, 1 where it is below; the rows ``over``, z - over a <= at, and
    ``under``, z + under p >= at, of these ``height`` and ``depth``. A split changes bounds alone: p <= 0 is above, a <=
    0 below. They are closed: at the point itself, z is on both sides.
    """

    a: Index
    p: Index
    over: Index
    under: Index
    height: Vector
    depth: Vector

    @classmethod
    def joined(cls, parts: Sequence[Jumps]) -> Jumps:
        """All of several ones, in order."""
        none, zero = np.zeros(0, dtype=np.int64), np.zeros(0)
        start = (none, none, none, none, zero, zero)
        return cls(*map(np.concatenate, zip(start, *(tuple(vars(part).values()) for part in parts), strict=True)))

    def __len__(self) -> int:
        return len(self.a)


def passed(
    draft: Draft,
    op: Step,
    z: Index,
    low: Vector,
    high: Vector,
    value: Index,
    ends: tuple[Vector, Vector],
    inset: float,
) -> Jumps:
    """Columns ``value`` as the least of their values and a jump for each step up to the largest, the ``ends``, of
    operands that are the columns ``z`` within [low, high]: (features) each. ``inset``: see :func:`pieces`.

    Raises :class:`MemoryError` where there are too many.
    """
    first, last = ends
    if not (last - first).sum() <= MOST:
        raise MemoryError(f"more than {MOST} jumps")
    count = (last - first).astype(np.int64)
    feature = np.repeat(np.arange(len(z)), count)
    rank = np.arange(len(feature)) - np.repeat(np.cumsum(count) - count, count)
    at = np.zeros(len(rank)) if op.kind == "sign" else first[feature] + rank + JUMP[op.kind]
    within = np.minimum(inset * (high - low), WIDEST)[feature]
    height, depth = (np.nextafter(side, np.inf) for side in (high[feature] - at, at - low[feature]))
    each, one, free = np.arange(len(at)), np.ones(len(at)), np.full(len(at), np.inf)
    a, p = (draft.columns(np.zeros(len(at)), one) for _ in range(2))
    draft.rows([(each, a, one), (each, p, one)], one, one)
    height, depth = height + within, depth + within
    over = draft.rows([(each, z[feature], one), (each, a, -height)], -free, at - within)
    under = draft.rows([(each, z[feature], one), (each, p, depth)], at + within, free)
    own = (np.arange(len(z)), value, np.ones(len(z)))
    draft.rows([own, (feature, a, -one)], first, first)
    later = np.flatnonzero(rank > 0)
    draft.rows(
        [(np.arange(len(later)), a[later - 1], one[later]), (np.arange(len(later)), a[later], -one[later])],
        np.zeros(len(later)),
        free[later],
    )
    return Jumps(a, p, over, under, height, depth)
