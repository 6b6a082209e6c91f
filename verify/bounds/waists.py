"""Neurons of a layer taken no further back than it takes to know them: rows stop at a layer below whose bounds settle
them, and only the others go on to the input.

A waist is a node that all paths from a neuron to the input lead through. What is left of a row there, over the bounds
that are known of that node, is a bound of the neuron like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import inf
from operator import eq

import torch
from torch import Tensor

from assay.verify.bounds.columns import ColumnRules, lower_bound, over_box
from assay.verify.bounds.forms import AnyForm, Units, chosen
from assay.verify.bounds.group import Group
from assay.verify.bounds.relax import relaxes, undecided_by_any
from assay.verify.bounds.walk import propagate_backwards
from assay.verify.core.network import Node
from assay.verify.core.ops import LeakyRelu, Op, Relu, Step
from assay.verify.core.verifier import Bounds

SETTLED = (LeakyRelu, Relu, Step)  # activations that no bounds make more exact from some bounds on
KEPT = 0.8  # of the neurons at most go on without the others


def layer_bounds(
    group: Group, position: int, sample: Tensor, feature: Tensor, error: Tensor, readers: Sequence[Op]
) -> Bounds:
    """Linear bounds of some neurons of the node at ``position``, up to which the group must be relaxed: each (neurons).

    ``sample`` and ``feature`` (neurons) say which, ``error`` (neurons) is what rounding may take of a row of theirs,
    and ``readers`` are the activations that read the node. Raises :class:`Expired` when the time is over.
    """
    nodes, entrance = group.network.nodes, group.entrance if position >= group.entrance else 0
    lower = torch.full_like(error, -inf)
    upper, kept = lower.neg(), torch.arange(len(error), device=error.device)
    sign = torch.ones_like(error)
    form: AnyForm = Units(torch.cat([feature, feature]), torch.cat([sign, -sign]))
    owners = group.owners(torch.cat([sample, sample]))
    total, here = owners.zeros(), position
    for stop in waists(nodes, position) if all(isinstance(op, SETTLED) for op in readers) else []:
        resting, total = propagate_backwards(
            nodes, ColumnRules(group, owners, entrance), {here: form}, total, partial(eq, stop)
        )
        form, here = resting[stop], stop
        least = total + over_box(group, stop, form, owners)
        least = torch.where(least.isfinite(), least, -inf)
        lower[kept], upper[kept] = low, high = _met(lower[kept], upper[kept], least, error[kept])
        left = undecided_by_any(readers, Bounds(low, high)).nonzero().flatten()
        if not len(left):
            return Bounds(lower, upper)
        if len(left) <= KEPT * len(kept):
            kept = kept[left]
            rows = torch.cat([left, len(low) + left])
            form, total = chosen(form, rows), total[rows]
            owners = group.owners(torch.cat([sample[kept], sample[kept]]))
    least = lower_bound(group, here, form, owners, total)
    lower[kept], upper[kept] = _met(lower[kept], upper[kept], least, error[kept])
    return Bounds(lower, upper)


def _met(lower: Tensor, upper: Tensor, least: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds (neurons) met with those that rows of the neurons, then of their opposites, have: (2 * neurons)."""
    below, above = least.view(2, -1) - error
    return torch.maximum(lower, below), torch.minimum(upper, -above)


def waists(nodes: Sequence[Node], position: int) -> list[int]:
    """Operands of activations that all paths from the node at ``position`` to the input lead through, the first that
    rows come to first. Where these have passed one activation alone, intervals know as much."""
    pending, passed, activation, found = {position}, 0, False, list[int]()
    while pending:
        here = max(pending)
        pending.remove(here)
        if activation and passed > 1 and here > 0 and not pending:
            found.append(here)
        activation = relaxes(nodes[here].op)
        passed += activation
        pending.update(nodes[here].inputs)
    return found
