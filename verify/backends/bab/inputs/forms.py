"""Linear functions of the input that lie below rows of a specification, and what they say about a box.

A box is given by ``lower`` and ``upper``; x runs over it. Everything is batched; the last axis of coefficients counts
the inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from assay.verify.bounds.optimised.slopes import Functions

# How far a threshold is moved for rounding, as a share of the magnitudes that are added up.
SLACK = 1e-13
# Of the distance that a bound is short of zero, so much is asked for before a part of a box is given up as safe.
CLEARANCE = 1e-6


def weigh(forms: Functions, lower: Tensor, upper: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
    """Weights that make the minimum of a weighted sum of forms large: it bounds the largest of them from below.

    ``forms``: (problems x forms); ``lower``, ``upper``: (problems x inputs). Result: the best minimum (problems) and
    its weights (problems x forms), at least 0 with sum 1. The minimum is concave in the weights; multiplicative
    subgradient steps are taken.
    """
    lowest = forms.minimum(lower[:, None], upper[:, None])
    best, chosen = lowest.max(1)
    weights = torch.zeros_like(lowest).scatter_(1, chosen[:, None], 1.0)
    if lowest.shape[1] == 1:
        return best, weights
    if lowest.shape[1] == 2:
        return _between(forms, lower, upper)
    trial = (2 * weights + 1) / (2 + lowest.shape[1])
    for step in range(rounds):
        corner = mix(forms, trial).corner(lower, upper)
        values = forms.constant + torch.linalg.vecdot(forms.coef, corner[:, None])
        reached = (trial * values).sum(1)
        better = reached > best
        best = torch.maximum(best, reached)
        weights = torch.where(better[:, None], trial, weights)
        slope = values - values.mean(1, keepdim=True)
        slope = slope / slope.abs().amax(1, keepdim=True).clamp(min=torch.finfo(slope.dtype).tiny)
        trial = trial * (2 / (step + 1) ** 0.5 * slope).exp()
        trial = trial / trial.sum(1, keepdim=True)
    return best, weights


def _between(forms: Functions, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Of two forms exactly: the best weights are those of one alone, or make a coefficient of the mixture zero."""
    first, second = forms.coef.unbind(1)
    turn = -second / (first - second)
    ends = turn.new_tensor([0.0, 1.0]).expand(len(turn), 2)
    share = torch.cat([ends, turn.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).clamp(0, 1)], 1)
    weights = torch.stack([share, 1 - share], 2)  # problems x candidates x 2
    mixed = Functions(weights @ forms.coef, (weights * forms.constant[:, None]).sum(2))
    best, chosen = mixed.minimum(lower[:, None], upper[:, None]).nan_to_num(nan=-torch.inf).max(1)
    return best, weights.gather(1, chosen[:, None, None].expand(-1, 1, 2))[:, 0]


def mix(forms: Functions, weights: Tensor) -> Functions:
    """Weighted sums: forms (problems x forms), weights (problems x forms), result (problems)."""
    return Functions((weights[:, :, None] * forms.coef).sum(1), (weights * forms.constant).sum(1))


@dataclass(frozen=True, eq=False)
class Clipped:
    """What is left of boxes: ``lower``, ``upper`` (boxes x inputs); in all of what was cut off some form is at least
    ``clearance`` > 0 (boxes). Where nothing is left, ``empty`` (boxes)."""

    lower: Tensor
    upper: Tensor
    clearance: Tensor
    empty: Tensor


def clip(forms: Functions, lower: Tensor, upper: Tensor, bound: Tensor) -> Clipped:
    """The smallest boxes around the points at which no form is clearly positive: forms (boxes x forms).

    ``bound`` (boxes), negative, sets the scale of what is clear. Each coordinate is solved for with the others at
    their best (bound propagation over linear rows).
    """
    low, high = lower[:, None], upper[:, None]
    terms = torch.minimum(forms.coef * low, forms.coef * high)
    size = forms.constant.abs() + torch.linalg.vecdot(forms.coef.abs(), torch.maximum(low.abs(), high.abs()))
    clearance = (CLEARANCE * bound.abs()[:, None] + SLACK * size).amin(1)
    threshold = clearance[:, None] + 2 * SLACK * size
    total = forms.constant + terms.sum(2)
    room = (threshold - total)[:, :, None]
    # The coordinate may go as far from where its term is least as the room allows.
    step = room / forms.coef.abs()
    free = ~(step < torch.inf)  # a coefficient of 0, or NaN, forbids nothing
    step = step.masked_fill(free, torch.inf)
    up = torch.where(forms.coef > 0, low + step, torch.inf).amin(1)
    down = torch.where(forms.coef < 0, high - step, -torch.inf).amax(1)
    new_lower, new_upper = torch.maximum(lower, down), torch.minimum(upper, up)
    empty = (total > threshold).any(1) | (new_lower > new_upper).any(1)
    return Clipped(new_lower, new_upper, clearance, empty)
