"""Neurons of a layer taken no further back than it takes to know them: rows stop at a layer below whose bounds settle
them, and only the others go on to the input.

A waist is a node that all paths from a neuron to the input lead through. What is left of a row there, over the bounds
that are known of that node, is a bound of the neuron like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from assay.verify.bounds.backward.columns import down_to, lower_bound, over_box
from assay.verify.bounds.backward.forms import AnyForm, Units, chosen
from assay.verify.bounds.backward.group import Group
from assay.verify.bounds.relaxations.relax import relaxes, undecided_by_any
from assay.verify.core.network import Node
from assay.verify.core.ops import LeakyRelu, Op, Relu, Step
from assay.verify.core.verifier import Bounds

SETTLED = (LeakyRelu, Relu, Step)  # activations that no bounds make more exact from some bounds on
KEPT = 0.8  # of the neurons at most go on without the others
DEAR = 100  # products further down for each feature of a waist, at least, where rows are looked at


@dataclass(frozen=True, eq=False)
class Sides:
    """Neurons of one node, each to be bounded on one side, in the order of their samples: ``sample`` and ``feature``,
    ``above``: whether it is from above, ``known``: what is known of them, and ``lost``: what rounding may take of
    a row until activations are met; (rows) each."""

    sample: Tensor
    feature: Tensor
    above: Tensor
    known: Bounds
    lost: Tensor

    def take(self, rows: Tensor | slice) -> Sides:
        """Those at the positions ``rows`` (kept rows)."""
        known = Bounds(self.known.lower[rows], self.known.upper[rows])
        return Sides(self.sample[rows], self.feature[rows], self.above[rows], known, self.lost[rows])

    def with_bounds(self, least: Tensor) -> Bounds:
        """``known`` met with lower bounds (rows) of the values, or of their opposites where bounded from above."""
        lower, upper = self.known.lower, self.known.upper
        return Bounds(
            torch.where(self.above, lower, torch.maximum(lower, least)),
            torch.where(self.above, torch.minimum(upper, -least), upper),
        )


def lowest(group: Group, position: int, sides: Sides, readers: Sequence[Op]) -> Tensor:
    """Lower bounds of neurons of the node at ``position``, up to which the group must be relaxed, or of their opposites
    where they are bounded from above: (rows).

    With ``readers``, the activations that read the node, rows stop where these are settled. Raises :class:`Expired`
    when the time is over.
    """
    form: AnyForm = Units(sides.feature, torch.where(sides.above, -1.0, 1.0).to(sides.lost))
    owners, here = group.owners(sides.sample), position
    total, best = -sides.lost, torch.full_like(sides.lost, -inf)
    kept, going = torch.arange(len(best), device=best.device), torch.ones_like(sides.above)
    for stop in stops(group, position) if readers and may_settle(readers) else []:
        form, total = down_to(group, here, form, owners, total, stop)
        here = stop
        least = total + over_box(group, stop, form, owners)
        # What settled rows that went on as company would find further down is not looked at: no row depends on others.
        best[kept] = torch.where(going & least.isfinite(), torch.maximum(best[kept], least), best[kept])
        settled = torch.ones_like(going)
        settled[unsettled(readers, sides.with_bounds(best[kept]))] = False
        going = going & ~settled
        left = going.nonzero().flatten()
        if not len(left):
            return best
        if len(left) <= KEPT * len(kept):
            kept, going, sides = kept[left], going[left], sides.take(left)
            form, total, owners = chosen(form, left), total[left], group.owners(sides.sample)
    least = lower_bound(group, here, form, owners, total)
    best[kept] = torch.where(going, torch.maximum(best[kept], least), best[kept])
    return best


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
    return [w for w in waists(group.nodes, position) if below[w] >= DEAR * group.network.nodes[w].size]


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
