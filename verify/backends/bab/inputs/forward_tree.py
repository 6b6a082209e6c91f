"""Boxes of few inputs of deep networks, bounded forwards, one by one. A neuron that a box leaves undecided costs a pass
down all of a deep network to be bounded by a row of its own; a zonotope takes one pass up for each input and each such
neuron, and those are few where boxes are small."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor

from assay.verify.backends.bab.domains import join
from assay.verify.backends.bab.search import Bounded
from assay.verify.bounds import layers
from assay.verify.bounds.backward.rows import lower_rows
from assay.verify.bounds.optimised.raised import OwnRows
from assay.verify.bounds.relaxations.relax import feeds, relaxes, undecided_by_any
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.bounds.verdicts import decided
from assay.verify.bounds.zonotopes import Zonotopes
from assay.verify.core.budget import Budget
from assay.verify.core.network import Network
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.region.rounding import directed_sum
from assay.verify.core.roundings import terms
from assay.verify.core.verifier import Bounds
from assay.verify.programs.witness import by_disjunct, confirmed

DEAR = 1 << 40  # products of a row for every neuron, from which on boxes are bounded forwards
FAIRNESS = 1e-3  # of the best gain, promised to an input as wide as at the root: each is halved in the end


def dear(network: Network) -> bool:
    """Whether rows for all neurons of a network are too many to be taken down for each box."""
    nodes = network.nodes[1:]
    neurons = sum(node.size for node in nodes if relaxes(node.op))
    return neurons * sum(max(1, terms(node.op)) * node.size for node in nodes) > DEAR


def forwards(network: Network, box: Box, budget: Budget) -> Relaxed:
    """The network over a box (1 x input shape), with bounds of all nodes by intervals, and by a zonotope as far as it
    can be carried. Raises :class:`assay.verify.core.budget.Expired`."""
    relaxed = Relaxed.start(network, box, torch.float64, budget)
    zonotope, readers = Zonotopes.of(relaxed), feeds(network)
    end = 0 if zonotope is None else zonotope.end
    for position in range(1, len(network.nodes)):
        known = relaxed.next()
        if position < end and position in readers and bool(undecided_by_any(readers[position], known).any()):
            assert zonotope is not None
            other = zonotope.bounds(position)
            known = Bounds(*layers.meet(known.lower, known.upper, other.lower, other.upper))
        relaxed.bounds.append(known)
    return relaxed


@dataclass(frozen=True, eq=False)
class Parts:
    """``lower``, ``upper`` (boxes x inputs); the disjuncts still ``open`` (boxes x disjuncts); ``gain``: what halving
    each input promises (boxes x inputs)."""

    lower: Tensor
    upper: Tensor
    open: Tensor
    gain: Tensor

    @property
    def inside(self) -> Tensor:
        """Which inputs have a float64 number between their bounds: (boxes x inputs)."""
        middle = self.lower / 2 + self.upper / 2
        return (self.lower < middle) & (middle < self.upper)


@dataclass(frozen=True, eq=False)
class ForwardTree:
    """The boxes within a problem's region; nothing that could be checked is written down of them."""

    problem: Problem
    record: None = None

    def affordable(self, budget: Budget) -> int:
        """How many boxes at a time."""
        return 1

    def root(self) -> Parts:
        """The region's box, with everything open."""
        box = self.problem.region.box()
        lower, upper = box.lower.reshape(1, -1), box.upper.reshape(1, -1)
        open_ = torch.ones(1, len(self.problem.spec.disjuncts), dtype=torch.bool)
        return Parts(lower, upper, open_, upper - lower)

    def bound(self, parts: Parts, budget: Budget) -> Bounded[Parts]:
        """Of one box. See :class:`assay.verify.backends.bab.search.Tree`."""
        problem, spec, shape = self.problem, self.problem.spec, self.problem.network.input_shape
        box = Box(parts.lower.view(1, *shape), parts.upper.view(1, *shape))
        relaxed = forwards(problem.network, box, budget)
        rows = directed_sum(lower_rows(relaxed, spec.A[None], linear=True)[0], -spec.b, up=False)
        # A disjunct is met only where all of its rows are; one without rows is met everywhere.
        least = rows.new_full((len(spec.disjuncts),), -inf).scatter_reduce(0, spec.disjunct, rows, "amax")
        asked, safe = parts.open[0], decided(least)
        lowest, cleared = (torch.where(some, least, inf).amin() for some in (asked, asked & safe))
        open_ = asked & ~safe
        wanted = open_[spec.disjunct] & ~(rows > 0)
        points, gain = parts.lower / 2 + parts.upper / 2, parts.upper - parts.lower
        if bool(wanted.any()):
            own = OwnRows.of(
                relaxed,
                {len(problem.network.nodes) - 1: spec.A[wanted]},
                torch.zeros(int(wanted.sum()), dtype=torch.int64),
            )
            functions = own.backward(own.lines, {})
            points = torch.cat([points, own.region.minimiser(functions)])
            gain = (functions.coef.abs() * gain).amax(0, keepdim=True).nan_to_num(nan=0.0, posinf=0.0)
        points = points.view(-1, *shape)
        seen = by_disjunct(problem, points).amin()
        left = replace(parts, open=open_[None], gain=gain)
        witness = confirmed(problem, points) if bool(seen <= 0) else None
        return Bounded(lowest[None], seen[None], left, float(cleared), witness)

    def divisible(self, parts: Parts) -> Tensor:
        """Which boxes have an input that can be halved: (boxes)."""
        return parts.inside.any(1)

    def halve(self, parts: Parts) -> Parts:
        """Along the input that promises most; its halves promise half as much."""
        root, tiny = self.root(), torch.finfo(torch.float64).tiny
        share = (parts.upper - parts.lower) / (root.upper - root.lower).clamp(min=tiny)
        gain = parts.gain / parts.gain.amax(1, keepdim=True).clamp(min=tiny) + FAIRNESS * share
        axis = gain.masked_fill(~parts.inside, -inf).argmax(1, keepdim=True)
        middle = (parts.lower / 2 + parts.upper / 2).gather(1, axis)
        gain = parts.gain.scatter(1, axis, parts.gain.gather(1, axis) / 2)
        below = replace(parts, upper=parts.upper.scatter(1, axis, middle), gain=gain)
        return join([below, replace(parts, lower=parts.lower.scatter(1, axis, middle), gain=gain)])
