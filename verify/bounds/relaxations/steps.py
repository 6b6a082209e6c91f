"""Lines about piecewise constant functions: flat at the ends' values, or sloped where the interval is wide."""

from __future__ import annotations

import torch
from torch import Tensor

from assay.verify.bounds.relaxations.lines import Lines
from assay.verify.core.ops import Step, evaluate
from assay.verify.core.verifier import Bounds

# A line x + below lies below the function everywhere, x + above lies above it.
OFFSETS = {"floor": (-1.0, 0.0), "ceil": (0.0, 1.0), "round": (-0.5, 0.5)}
NARROW = 1e-3  # sides of a sign no shorter than this make lines no steeper than 2 / NARROW


def lines_about(op: Step, z: Bounds) -> Lines:
    """Of flat and sloped lines those that are better in the middle of ``z`` (any shape)."""
    least, most = evaluate(op, z.lower), evaluate(op, z.upper)
    middle = z.lower / 2 + z.upper / 2
    none = torch.zeros_like(middle)
    if op.kind == "sign":
        crossing = (z.lower < 0) & (z.upper > 0)
        below = torch.where(crossing & (middle > 0), 2 / z.upper.clamp(min=NARROW), none)
        above = torch.where(crossing & (middle < 0), 2 / (-z.lower).clamp(min=NARROW), none)
        return Lines(below, above - below, most - least, least)
    low, high = OFFSETS[op.kind]
    below, above = (middle + low > least).to(middle), (middle + high < most).to(middle)
    intercept = torch.where(below > 0, low, least)
    return Lines(below, above - below, torch.where(above > 0, high, most) - intercept, intercept)


def steepest(op: Step) -> float:
    """The steepest slope of any line."""
    return 2 / NARROW if op.kind == "sign" else 1.0


def jump(op: Step, z: Bounds, error: Tensor) -> Tensor:
    """How far the function can go within ``error`` of a point of ``z`` (one shape)."""
    whole = evaluate(op, z.upper + error) - evaluate(op, z.lower - error)
    return torch.minimum(whole, 2 + error)
