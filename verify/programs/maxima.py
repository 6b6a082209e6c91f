"""Lines above max(z, 0), and the largest of several values in programs: between lines, by binaries, or one ReLU after
the other."""

from __future__ import annotations

import numpy as np

from assay.verify.programs.program import Draft, Index, Vector


def chord_above(low: Vector, high: Vector) -> tuple[Vector, Vector]:
    """Slope and intercept of a line above ``max(z, 0)`` over [low, high], low < 0 < high (neurons), in the reals.

    A line of any slope s in [0, 1] does with the intercept max(-s low, (1 - s) high), here rounded up.
    """
    slope = np.clip(high / (high - low), 0.0, 1.0)
    return slope, np.nextafter(np.maximum(-slope * low, np.nextafter(1 - slope, 1.0) * high), np.inf)


def contested(low: Vector, high: Vector) -> Vector:
    """Which operands (features x operands) can be the largest: always the one with the largest lower bound."""
    best = low.max(1, keepdims=True)
    chosen = np.zeros(low.shape, dtype=bool)
    np.put_along_axis(chosen, low.argmax(1, keepdims=True), True, axis=1)
    result: Vector = (high > best) | chosen
    return result


def largest(draft: Draft, exact: bool, z: Index, low: Vector, high: Vector) -> Index:
    """Columns of the largest of several columns z (features x operands), -1 where an operand does not matter; between
    lines where that need not be ``exact``."""
    here = z >= 0
    best, most = np.where(here, low, -np.inf).max(1), np.where(here, high, -np.inf).max(1)
    a = draft.columns(best, most)
    feature, operand = np.nonzero(here)
    each, one, free = np.arange(len(feature)), np.ones(len(feature)), np.full(len(feature), np.inf)
    at, least, highest = z[feature, operand], low[feature, operand], high[feature, operand]
    above = draft.rows([(each, a[feature], one), (each, at, -one)], np.zeros(len(feature)), free)
    if not exact:
        # max z <= m + sum of max(z - m, 0), m the largest lower bound; each term lies below its chord.
        m = best[feature]
        slope, intercept = _chord_over(least - m, highest - m)
        total = best + np.bincount(feature, intercept - slope * m, len(a))
        total += 1e-12 * (np.abs(best) + np.bincount(feature, intercept + np.abs(slope * m), len(a)))
        own = (np.arange(len(a)), a, np.ones(len(a)))
        chords = draft.rows([own, (feature, at, -slope)], np.full(len(a), -np.inf), total)
        floor = np.full(len(a), -1)
        floor[feature[least == m]] = above[least == m]
        draft.rest(floor, chords)
        return a
    switch = draft.columns(np.zeros(len(feature)), one, integer=True)
    gap = np.nextafter(most[feature] - least, np.inf)  # a <= z + gap (1 - switch)
    draft.rows([(each, a[feature], one), (each, at, -one), (each, switch, gap)], -free, gap)
    draft.rows([(feature, switch, one)], np.ones(len(a)), np.ones(len(a)))
    return a


def _chord_over(low: Vector, high: Vector) -> tuple[Vector, Vector]:
    """:func:`chord_above` for any interval."""
    slope, intercept = np.zeros(len(low)), np.zeros(len(low))
    crossing = (low < 0) & (high > 0)
    slope[crossing], intercept[crossing] = chord_above(low[crossing], high[crossing])
    slope[low >= 0] = 1.0
    return slope, intercept
