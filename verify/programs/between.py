"""Activations that are curves, products or steps as rows of a linear program: values between several lines."""

from __future__ import annotations

import numpy as np
import torch

from assay.verify.bounds import rigorous
from assay.verify.bounds.relaxations.cuts import cuts
from assay.verify.core.ops import Op
from assay.verify.core.verifier import Bounds
from assay.verify.programs.expressions import as_array
from assay.verify.programs.program import Draft, Index, Vector

ROUND = 2.0**-50  # more than what adding up a line's numbers may lose of their magnitudes


def interval(op: Op, low: Vector, high: Vector, operands: int) -> tuple[Vector, Vector]:
    """Bounds of the values of ``op`` over those of its operands (features * operands): (features) each."""
    value = rigorous.step(op, _bounds(op, low, high, operands))
    return as_array(value.lower.flatten()), as_array(value.upper.flatten())


def between(draft: Draft, op: Op, z: Index, low: Vector, high: Vector, operands: int, value: Index) -> None:
    """Rows that hold the columns ``value`` (features) of ``op`` between its lines over its operands, the columns ``z``
    within [low, high] (features * operands, those of a feature side by side)."""
    bounds = _bounds(op, low, high, operands)
    size = np.maximum(np.abs(low), np.abs(high)).reshape(-1, operands)
    each, at = np.arange(len(value)), np.repeat(np.arange(len(value)), operands)
    free, one = np.full(len(value), np.inf), np.ones(len(value))
    for lines in cuts(op, bounds):
        assert lines.intercept is not None
        slope, gap = (as_array(t).reshape(-1, operands) for t in (lines.slope, lines.slope_gap))
        base, rise = as_array(lines.intercept).flatten(), as_array(lines.intercept_gap).flatten()
        lost = ROUND * (((np.abs(slope) + np.abs(gap)) * size).sum(1) + np.abs(base) + np.abs(rise))
        own = (each, value, one)
        draft.rows([own, (at, z, -slope.flatten())], base, free)
        draft.rows([own, (at, z, -(slope + gap).flatten())], -free, base + rise + lost)


def _bounds(op: Op, low: Vector, high: Vector, operands: int) -> Bounds:
    shape = (1, -1, operands) if op.several else (1, -1)
    return Bounds(*(torch.from_numpy(np.ascontiguousarray(side)).reshape(shape) for side in (low, high)))
