"""Bounds of neurons under splits, and where the output is unsafe (INVPROP: Kotha et al. 2023, arXiv:2302.01404).

Where ``A y <= b`` holds of the output, an operand z is at least ``z + g @ (A y - b)`` for any g >= 0: a row that begins
at two places, whose slopes and multipliers are raised as those of any other. Drafted in float32, proved in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor

from assay.verify.backends.bab.neurons.climbing import Climbing, climb, typical
from assay.verify.backends.bab.neurons.multipliers import Kinks, Multipliers, Units, backward
from assay.verify.backends.bab.neurons.nodes import Nodes
from assay.verify.backends.bab.neurons.phases import rounded
from assay.verify.backends.bab.neurons.tables import Room, Tables
from assay.verify.core.budget import Budget

TINY = 1e-30
TOGETHER = 1 << 16  # neurons of rows that are raised together
SMALLEST, LARGEST = 32, 1024  # rows at a time
SHARE = 0.2  # of the ratio of two neurons' widths, as the size of a split's multiplier


# Hears of neurons whose bounds are wanted, by number (neurons), at nodes (neurons), and of what proves their lower
# bounds and then their upper ones.
Note = Callable[[Tensor, Tensor, Multipliers], None]


@dataclass(frozen=True, eq=False)
class Reach:
    """What splits cost beside what they cost a row itself: that relaxations make the bounds of later layers worse.

    ``lower``, ``upper``: what one unit of a neuron's bound is worth to its node's row, ``cost``: what each neuron's
    relaxation takes from the bounds that were looked at, in that measure: (unstable x nodes) each.
    """

    lower: Tensor
    upper: Tensor
    cost: Tensor

    @classmethod
    def of(cls, nodes: Nodes, seen: Tensor) -> Reach:
        """By the coefficients ``seen`` at unstable neurons (unstable x nodes), as the upper lines depend on bounds."""
        width = (nodes.upper - nodes.lower).clamp(min=TINY)
        below = seen.clamp(max=0).neg_()
        by_lower, by_upper = (
            (side / width).square().nan_to_num(nan=0.0).float() for side in (nodes.upper, nodes.lower)
        )
        return cls(below * by_lower, below * by_upper, torch.zeros_like(seen))

    def note(self, room: Room, neuron: Tensor, node: Tensor) -> None:
        """Count a walk's rows: those of lower bounds of the neurons at their nodes (rows each), then of upper ones."""
        worth = torch.cat([self.lower[neuron, node], self.upper[neuron, node]])
        self.cost.index_add_(1, node.repeat(2), (room.seen * room.height).mul_(worth), alpha=-1.0)


def tighten(
    single: Tables,
    double: Tables,
    nodes: Nodes,
    chosen: Tensor,
    free: Tensor | None,
    how: Climbing,
    budget: Budget,
    reach: Reach | None = None,
    note: Note | None = None,
) -> tuple[Nodes, Tensor]:
    """The nodes with tighter bounds, layer by layer, and which of them hold no point that is unsafe (nodes).

    ``chosen`` (unstable x nodes): the neurons to look at; ``free`` (unsafe rows x nodes): 1 / the size of what each
    unsafe row of a node's comes to, 0 for those of others; without it nothing is said of the output. When the time is
    over the rest stays as it is. ``reach``: is told what bounds depend on.
    """
    lower, upper = nodes.lower.clone(), nodes.upper.clone()
    empty = torch.zeros(len(nodes), dtype=torch.bool)
    compact = single.compact
    most = max(SMALLEST, min(LARGEST, TOGETHER // max(1, compact.unstable))) // 2
    for k, (layer, begin) in enumerate(zip(compact.layers, compact.starts, strict=False), start=1):
        here = slice(begin, begin + layer.unstable)
        wanted = (lower[here] < 0) & (upper[here] > 0) & (nodes.phase[here] == 0) & chosen[here] & ~empty
        if set(layer.operand.matrices) <= {0} and free is None:
            continue  # over the box alone these are exact
        feature, node = wanted.nonzero(as_tuple=True)
        for what, whose in zip(torch.split(feature, most), torch.split(node, most), strict=True):
            if budget.expired:
                return replace(nodes, lower=lower, upper=upper), empty
            width = (upper - lower)[begin + what, whose]
            sides, own = _both(
                single, double, lower, upper, nodes.phase, k, what, whose, width, free, how, note is not None
            )
            if reach is not None:
                reach.note(single.room(2 * len(what)), begin + what, whose)
            if note is not None:
                note(begin + what, whose, own)
            low = torch.fmax(lower[begin + what, whose], sides[0])
            high = torch.fmin(upper[begin + what, whose], -sides[1])
            crossed = low > high
            empty[whose[crossed]] = True
            lower[begin + what, whose] = torch.where(crossed, lower[begin + what, whose], low)
            upper[begin + what, whose] = torch.where(crossed, upper[begin + what, whose], high)
    return replace(nodes, lower=lower, upper=upper), empty


def _both(
    single: Tables,
    double: Tables,
    lower: Tensor,
    upper: Tensor,
    phase: Tensor,
    layer: int,
    feature: Tensor,
    node: Tensor,
    width: Tensor,
    free: Tensor | None,
    how: Climbing,
    short: bool,
) -> tuple[Tensor, Multipliers]:
    """Lower bounds of these features of a layer and of their opposites, at their nodes (2 x features), and what proves
    them, rounded to be written ``short``."""
    whose = node.repeat(2)
    sign = torch.ones(len(whose))
    sign[len(node) :] = -1.0
    fixed = phase.index_select(1, whose)
    kinks = Kinks.of(single, lower, upper, fixed, whose)
    alpha = ((kinks.slope > 0.5).float() * kinks.open).add_(kinks.fixed)
    rows = len(single.output.bias)
    own = Multipliers(alpha, torch.zeros_like(alpha), torch.zeros(rows, len(whose)))
    scale = None if free is None else (free[:, whose] * width.repeat(2)).float()
    units = Units(layer, feature.repeat(2), sign)
    unit = typical(single, backward(single, kinks, own, units))
    if bool(kinks.sign.any()):
        # Coefficients do not tell of layers that rows do not come from: there one width is measured in another.
        begin = single.compact.starts[layer - 1]
        ratio = (SHARE * width / (upper[begin:] - lower[begin:])[:, node].clamp(min=TINY)).float().repeat(1, 2)
        unit = torch.cat([unit[:begin].expand(-1, len(whose)), torch.maximum(unit[begin:], ratio)])
    climb(single, kinks, own, how, unit, scale, units)
    kinks = Kinks.of(double, lower, upper, fixed, whose)
    own = rounded(own) if short else own.to(torch.float64)
    walk = backward(double, kinks, own, Units(layer, units.feature, sign.double()), charged=True)
    return walk.bound.nan_to_num(nan=-inf, posinf=-inf, neginf=-inf).view(2, -1), own
