"""Slopes and split multipliers raised by gradient ascent.

The derivative of a row's bound by a slope is the coefficient times the operand's value where the corner at which the
row is least leads on its lines, that by a multiplier the operand's value itself: a gradient costs one pass forward. An
open neuron has a slope that moves, one that is split a multiplier: one number each, ``x``. What a step finds is put
where the one before put it: fresh memory would take as long as the arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from assay.verify.backends.bab.neurons.multipliers import (
    Given,
    Kinks,
    Multipliers,
    Units,
    Walk,
    backward,
    forward,
    lead,
)
from assay.verify.backends.bab.neurons.tables import Tables
from assay.verify.bounds.optimised.slopes import DECAY, SPREAD

TINY = 1e-30  # a gradient's square at least
MOST = 6e4  # the largest multiplier, which float16 can hold


@dataclass(frozen=True)
class Climbing:
    """How rows are raised: ``steps``; the sizes of the first ones, of a slope and of a multiplier; and how much smaller
    each is than the one before."""

    steps: int
    slope: float = 0.1
    multiplier: float = 0.5
    decay: float = 0.98


def climb(
    tables: Tables,
    kinks: Kinks,
    own: Multipliers,
    how: Climbing,
    unit: Tensor | None,
    free: Tensor | None = None,
    units: Units | None = None,
) -> Walk:
    """Raise ``own``, in place; the last walk.

    ``unit``: the size of the splits' multipliers (unstable x rows), that of the coefficients at first where it is
    None; ``free``: that of the weights of the unsafe rows, 0 where they stay (unsafe rows x rows); None where all do.
    Without ``units`` the weights are those of a mean.
    """
    if how.steps and unit is None:
        unit = typical(tables, backward(tables, kinks, own, units))
    if how.steps and unit is not None:
        ascend(tables, kinks, own, how, unit, free, units)
    return backward(tables, kinks, own, units)


def ascend(
    tables: Tables,
    kinks: Kinks,
    own: Multipliers,
    how: Climbing,
    unit: Tensor,
    free: Tensor | None = None,
    units: Units | None = None,
) -> None:
    """The same without the last walk: what the last step came to is not looked at. ``unit``: (unstable x rows)."""
    split = kinks.sign.abs()
    x = torch.addcmul(own.alpha * kinks.open, own.beta, split)
    most = torch.add(kinks.open, split, alpha=MOST)
    least = torch.zeros_like(x) if tables.left is None else tables.left * kinks.open
    size = torch.add(how.slope * kinks.open, split * unit, alpha=how.multiplier)
    beyond, behind = kinks.fixed - kinks.slope, kinks.sign.neg()
    rest, added, pull = torch.empty_like(x), torch.empty_like(x), torch.empty_like(x)
    given = Given(tables, kinks, rest, added)
    inner, outer = Moments.at_rest(x), Moments.at_rest(own.weight)
    for step in range(1, how.steps + 1):
        torch.addcmul(beyond, x, kinks.open, out=rest)
        torch.mul(behind, x, out=added)
        room = lead(given, own.weight, units)
        y = forward(tables, room, output=free is not None)
        rate = how.decay ** (step - 1) * (1 - SPREAD**step) ** 0.5 / (1 - DECAY**step)
        if free is not None and y is not None:
            own.weight.addcmul_(outer.toward(y.mul_(free)), free, value=how.slope * rate).clamp_(min=0)
            if units is None:
                own.weight.div_(own.weight.sum(0).clamp(min=torch.finfo(tables.dtype).tiny))
        torch.addcmul(behind, room.positive, kinks.open, out=pull).mul_(room.operand)
        x.addcmul_(inner.toward(pull), size, value=rate)
        torch.clamp(x, least, most, out=x)
    torch.addcmul(kinks.fixed, x, kinks.open, out=own.alpha)
    torch.mul(x, split, out=own.beta)


def typical(tables: Tables, walk: Walk) -> Tensor:
    """The mean size of coefficients at the unstable neurons of each layer: (unstable x 1)."""
    parts = [part.abs() for part in tables.split(walk.seen)]
    means = [part.mean().nan_to_num(nan=0.0).expand(len(part), 1) for part in parts]
    return torch.cat(means) if means else walk.seen.new_zeros(0, 1)


@dataclass(frozen=True, eq=False)
class Moments:
    """The running means of a gradient and of its square (Kingma and Ba 2015, arXiv:1412.6980)."""

    mean: Tensor
    square: Tensor

    @classmethod
    def at_rest(cls, moved: Tensor) -> Moments:
        """Of a tensor that has not been moved: two of its shape."""
        return cls(torch.zeros_like(moved), torch.full_like(moved, TINY))

    def toward(self, gradient: Tensor) -> Tensor:
        """The step to take, of the shape of the gradient, which is overwritten by it."""
        self.mean.lerp_(gradient, 1 - DECAY)
        self.square.mul_(SPREAD).addcmul_(gradient, gradient, value=1 - SPREAD)
        return torch.div(self.mean, torch.sqrt(self.square, out=gradient), out=gradient)
