"""Bounds of layers as far as rows ask for them: intervals first, then linear bounds of the neurons that cost the rows
most, round by round.

A network may have tens of thousands of neurons that are undecided, of which a few hundred make what a row lacks.
"""

from __future__ import annotations

import time
from math import inf

import torch
from torch import Tensor

from assay.verify.bounds import layers
from assay.verify.bounds.backward import rows
from assay.verify.bounds.optimised.raised import OwnRows
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.bounds.sites import Sites, costs
from assay.verify.core.budget import Budget, Expired
from assay.verify.core.network import Network
from assay.verify.core.region import Region

AT_ONCE = 256  # neurons that are bounded in a round
WORTH = 0.01  # of what the worst row lacks at least is to be won in a round, or it is the last one


def by_demand(network: Network, region: Region, objective: Tensor, offset: Tensor, budget: Budget) -> Relaxed:
    """The network over the region of one sample, in float64, bounded where it helps ``objective @ output - offset``
    (rows x outputs, rows) to be above 0: until it is, it does not help, or the time is over.

    Raises :class:`Expired` if that is before the intervals are there.
    """
    relaxed = layers.by_intervals(network, region, torch.float64, budget)
    sites, least, lasted = Sites.of(relaxed), -inf, 0.0
    times = torch.zeros(len(sites))
    try:
        while len(sites):
            lower = rows.lower_rows(relaxed, objective[None], linear=True)[0] - offset
            open_ = ~(lower > 0)
            worst = float(lower.nan_to_num(nan=-inf).amin())
            if not bool(open_.any()) or lasted > budget.remaining or worst - least < WORTH * -worst:
                break
            least, begun = worst, time.monotonic()
            cost = demand(relaxed, sites, objective[open_], lower[open_]) * 0.5**times
            chosen = cost.topk(min(AT_ONCE, len(cost))).indices
            times[chosen] += 1
            mask = sites.spread(torch.zeros(1, len(cost)).index_fill(1, chosen, 1.0))
            none = {i: torch.zeros(1, node.size, dtype=torch.bool) for i, node in enumerate(network.nodes)}
            asked = none | {i: part.bool() for i, part in mask.items()}
            relaxed = layers.by_linear_bounds(
                network, region, torch.float64, budget, asked=asked, before=relaxed.bounds
            )
            lasted = time.monotonic() - begun
    except Expired:
        pass  # what is there by then holds
    return relaxed


def demand(relaxed: Relaxed, sites: Sites, objective: Tensor, lower: Tensor) -> Tensor:
    """What the neurons at sites cost rows (rows x outputs) that have these bounds, in shares of what each row lacks:
    (sites)."""
    sample = torch.zeros(len(objective), dtype=torch.int64)
    own = OwnRows.of(relaxed, {len(relaxed.network.nodes) - 1: objective}, sample)
    seen: dict[int, Tensor] = {}
    own.backward(own.lines, seen)
    nodes = relaxed.network.nodes
    paid = {i: costs(nodes[i].op, own.lines[i], own.operands[i], coef) for i, coef in seen.items()}
    each = sites.gather(paid, own.lines).nan_to_num(nan=0.0, posinf=0.0)
    return (each / lower.abs().clamp(min=1e-9).nan_to_num(nan=1.0, posinf=1.0)[:, None]).sum(0)
