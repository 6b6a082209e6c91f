"""Neurons of a layer taken no further back than it takes to know them: rows stop at a layer below whose bounds settle
them, and only the others go on to the input.

A waist is a node that all paths from a neuron to the input lead through. What is left of a row there, over the bounds
that are known of that node, is a bound of the neuron like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import torch
from torch import Tensor

from assay.verify.bounds.columns import down_to, lower_bound, over_box
from assay.verify.bounds.forms import AnyForm, Units, chosen
from assay.verify.bounds.group import Group
from assay.verify.bounds.relax import relaxes, undecided_by_any
from assay.verify.core.network import Node
from assay.verify.core.ops import LeakyRelu, Op, Relu, Step
from assay.verify.core.verifier import Bounds

SETTLED = (LeakyRelu, Relu, Step)  # activations that no bounds make more exact from some bounds on
KEPT = 0.8  # of the neurons at most go on without the others
DEAR = 100  # products further down for each feature of a waist, at least, where rows are looked at


def side_bounds(
    group: Group,
    position: int,
    neurons: tuple[Tensor, Tensor],
    above: Tensor,
    known: Bounds,
    error: Tensor,
    readers: Sequence[Op],
) -> Bounds:
    """``known`` (neurons) with one side each met with linear bounds: of some neurons of the node at ``position``, up to
    which the group must be relaxed.

    ``neurons``: their samples and features, ``above``: whether it is the upper bound that is asked for, ``error``: what
    rounding may take of a row of theirs, (neurons) each; ``readers`` are the activations that read the node. Raises
    :class:`Expired` when the time is over.
    """
    sample, feature = neurons
    lower, upper = known.lower.clone(), known.upper.clone()
    kept = torch.arange(len(error), device=error.device)

    def meet(least: Tensor) -> None:
        below, turned = least - error[kept], above[kept]
        lower[kept] = torch.where(turned, lower[kept], torch.maximum(lower[kept], below))
        upper[kept] = torch.where(turned, torch.minimum(upper[kept], -below), upper[kept])

    form: AnyForm = Units(feature, torch.where(above, -1.0, 1.0).to(error))
    owners, here = group.owners(sample), position
    total = owners.zeros()
    for stop in stops(group, position) if may_settle(readers) else []:
        form, total = down_to(group, here, form, owners, total, stop)
        here = stop
        least = total + over_box(group, stop, form, owners)
        meet(torch.where(least.isfinite(), least, -inf))
        left = unsettled(readers, Bounds(lower[kept], upper[kept]))
        if not len(left):
            return Bounds(lower, upper)
        if len(left) <= KEPT * len(kept):
            kept, form, total = kept[left], chosen(form, left), total[left]
            owners = group.owners(sample[kept])
    meet(lower_bound(group, here, form, owners, total))
    return Bounds(lower, upper)


def may_settle(readers: Sequence[Op]) -> bool:
    """Whether the activations may be known exactly from a neuron's own bounds, when these are tight enough."""
    return all(isinstance(op, SETTLED) for op in readers)


def unsettled(readers: Sequence[Op], bounds: Bounds) -> Tensor:
    """Which neurons, by number, tighter bounds than these (neurons) would still do something for: (unsettled)."""
    if may_settle(readers):
        return undecided_by_any(readers, bounds).nonzero().flatten()
    return torch.arange(len(bounds.lower), device=bounds.lower.device)


def stops(group: Group, position: int) -> list[int]:
    """Waists below the node at ``position`` at which rows are looked at: where it costs little beside going on."""
    below = group.products
    return [w for w in waists(group.network.nodes, position) if below[w] >= DEAR * group.network.nodes[w].size]


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
