"""Piecewise constant functions in integer programs: closed graphs, the closure of each piece with its value.

Where a function jumps both of its values are allowed, and for a sign all three: what holds of the closed graph holds of
the function, and the least value over the one is the infimum over the other.
"""

from __future__ import annotations

import numpy as np

from assay.verify.core.ops import Step
from assay.verify.programs.program import Draft, Index, Vector

# How far the operand lies from the value at most, below and above it.
REACH = {"floor": (0.0, 1.0), "ceil": (-1.0, 0.0), "round": (-0.5, 0.5)}
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
