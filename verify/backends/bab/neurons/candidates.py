"""Where a node is split: neurons whose relaxations cost much are tried, both ways (strong branching: Applegate et al.
1995, "Finding cuts in the TSP").

A node stands for some hundred domains and the tightening of its neurons, beside which a few rows more are nothing: what
an estimate takes for the best one is seldom that.
"""

from __future__ import annotations

import torch
from torch import Tensor

from assay.verify.backends.bab.neurons.climbing import Climbing, climb
from assay.verify.backends.bab.neurons.multipliers import Kinks, Multipliers
from assay.verify.backends.bab.neurons.nodes import Nodes
from assay.verify.backends.bab.neurons.tables import Tables

LEAST = 1e-3  # of what a row is short of zero: a half that gains less counts as if it gained so much


def best(tables: Tables, nodes: Nodes, cost: Tensor, most: int, how: Climbing) -> Tensor:
    """The neurons at which to split nodes, by number (nodes): of the ``most`` of the largest ``cost`` (unstable x
    nodes), of those that cost anything, the one whose halves, with their rows raised as ``how`` says, gain most in the
    product of what each takes off what its row is short of zero."""
    worth, at = cost.topk(max(1, min(most, len(cost))), 0)
    if len(at) == 1:
        return at[0]
    whole = _bounds(tables, nodes, how)
    halves = nodes.take(torch.arange(len(nodes)).repeat(len(at))).split(at.flatten())
    short = whole.clamp(max=0).neg()
    gain = short - _bounds(tables, halves, how).clamp(max=0).neg().view(2, *at.shape)
    value = gain.nan_to_num(nan=0.0).maximum(LEAST * short).prod(0)
    return at.gather(0, value.masked_fill(worth <= 0, -1.0).argmax(0)[None])[0]


def _bounds(tables: Tables, nodes: Nodes, how: Climbing) -> Tensor:
    """Lower bounds of the nodes' rows, raised (nodes)."""
    bounds = []
    for some in torch.split(torch.arange(len(nodes)), max(1, tables.near)):
        part = nodes.take(some)
        kinks = Kinks.of(tables, part.lower, part.upper, part.phase, torch.arange(len(some)))
        own = Multipliers(part.alpha * kinks.open + kinks.fixed, part.beta.clone(), part.weight)
        bounds.append(climb(tables, kinks, own, how, None).bound)
    return torch.cat(bounds)
