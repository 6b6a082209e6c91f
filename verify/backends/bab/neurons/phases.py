"""Phases of ReLUs as the domains of a search: how they are bounded, proved and halved.

A domain is bounded in float32. What is above zero there is bounded again with its slopes and multipliers in float64,
every rounding charged; that alone closes a leaf.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor

from assay.verify.backends.bab.domains import join, take
from assay.verify.backends.bab.neurons.climbing import MOST, Climbing, climb
from assay.verify.backends.bab.neurons.compact import FEW
from assay.verify.backends.bab.neurons.exact_leaves import Look
from assay.verify.backends.bab.neurons.multipliers import Kinks, Multipliers, Walk, backward
from assay.verify.backends.bab.neurons.tables import Tables
from assay.verify.backends.bab.search import Bounded
from assay.verify.bounds.optimised.raised import GRAINS
from assay.verify.bounds.verdicts import decided
from assay.verify.core.budget import Budget
from assay.verify.support.floats import down, gamma

POINTS = 8  # of a batch that are looked at
AGAIN = 12  # times as many steps for leaves whose every neuron is split


@dataclass(frozen=True, eq=False)
class Phases:
    """``phase`` (domains x unstable neurons), int8: -1 or 1 where a split has fixed it, 0 elsewhere; ``alpha``, slopes,
    and ``beta``, multipliers, of the same shape, and ``weight`` (domains x unsafe rows): float16 all; ``neuron``: where
    to split next, -1 if nowhere, and ``tree``: whose bounds it is under (domains)."""

    phase: Tensor
    alpha: Tensor
    beta: Tensor
    weight: Tensor
    neuron: Tensor
    tree: Tensor


# A leaf whose every neuron is split, by its phases (unstable) and its tree: a proved bound, and a counterexample if
# there is one.
Settle = Callable[[Tensor, int], tuple[float, Tensor | None]]


# Hears of closed leaves, by their phases (unstable x leaves), their trees (leaves), and what proves them.
Closed = Callable[[Tensor, Tensor, Multipliers], None]


@dataclass(eq=False)
class PhaseTree:
    """Trees of splits. ``lower``, ``upper``: of the unstable neurons' operands, float64, ``unit``: the size of their
    multipliers (unstable x trees); ``free``: the unsafe rows that are mixed (unsafe rows x trees); ``enough``: a bound
    in float32 that is worth proving; ``closed``: hears of the leaves, the multipliers of which are then rounded."""

    single: Tables
    double: Tables
    lower: Tensor
    upper: Tensor
    start: Phases
    how: Climbing
    unit: Tensor
    free: Tensor | None
    enough: float
    look: Look
    settle: Settle
    closed: Closed | None = None

    def root(self) -> Phases:
        """See :class:`assay.verify.backends.bab.search.Tree`."""
        return self.start

    def bound(self, domains: Phases, budget: Budget) -> Bounded[Phases]:
        """See :class:`assay.verify.backends.bab.search.Tree`."""
        budget.check()
        # In blocks of about one size.
        blocks = torch.arange(len(domains.tree)).chunk(-(-len(domains.tree) // self.single.near))
        bounds, worst, parts = zip(*(self._bounded(take(domains, block)) for block in blocks), strict=True)
        bound, left, points = torch.cat(bounds), join(parts), torch.cat([points for _, points in worst])
        worst_of_all = torch.cat([value for value, _ in worst]).topk(min(POINTS, len(points)), largest=False).indices
        witness = self.look(points[worst_of_all]) if len(points) else None
        stuck = ((left.neuron < 0) & ~decided(bound)).nonzero().flatten()
        if len(stuck) and witness is None:
            witness = self._again(take(left, stuck), stuck, bound)
        return Bounded(bound, bound.new_zeros(len(bound)), left, witness=witness)

    def _bounded(self, domains: Phases) -> tuple[Tensor, tuple[Tensor, Tensor], Phases]:
        """Bounds of a block of domains (domains), those of its worst ones with the points at which these are least, and
        what is kept of all."""
        phase, tree, own = domains.phase.T.contiguous(), domains.tree, multipliers(domains)
        kinks, walk = self.raised(phase, tree, own, self.how)
        bound = self.proved(phase, tree, own, walk)
        neuron = branching(self.lower, self.upper, phase, tree, own, kinks, walk)
        return bound, self._worst(walk, bound), pooled(domains.phase, own, neuron, tree)

    def raised(self, phase: Tensor, tree: Tensor, own: Multipliers, how: Climbing) -> tuple[Kinks, Walk]:
        """Domains with these phases (unstable x domains) of these trees; ``own``, in float32, is raised in place."""
        kinks = Kinks.of(self.single, self.lower, self.upper, phase, tree)
        own.alpha.mul_(kinks.open).add_(kinks.fixed)
        own.beta.mul_(kinks.sign.abs())
        free = None if self.free is None else self.free.index_select(1, tree)
        return kinks, climb(self.single, kinks, own, how, self.unit.index_select(1, tree), free)

    def proved(self, phase: Tensor, tree: Tensor, own: Multipliers, walk: Walk) -> Tensor:
        """The bounds of a walk (domains), float64: where they are positive they are proved."""
        bound = walk.bound.double().clamp(max=0.0)
        some = (walk.bound > self.enough).nonzero().flatten()
        if len(some):
            here, whose, part = phase[:, some], tree[some], own.take(some)
            part = part if self.closed is None else rounded(part)
            bound[some] = self.charged(here, whose, part)
            shut = decided(bound[some]).nonzero().flatten()
            if self.closed is not None and len(shut):
                self.closed(here[:, shut], whose[shut], part.take(shut))
        return bound

    def charged(self, phase: Tensor, tree: Tensor, own: Multipliers) -> Tensor:
        """Bounds with every rounding charged (domains)."""
        kinks, own = Kinks.of(self.double, self.lower, self.upper, phase, tree), own.to(torch.float64)
        if self.free is None:
            return backward(self.double, kinks, own, charged=True).bound
        # The largest of some rows is at least their mean, whose weights add up to 1 but for rounding.
        own = replace(own, weight=own.weight / own.weight.sum(0))
        bound = backward(self.double, kinks, own, charged=True).bound
        return down(bound - 4 * gamma(len(own.weight) + FEW) * bound.abs())

    def _worst(self, walk: Walk, bound: Tensor) -> tuple[Tensor, Tensor]:
        """The bounds of the worst rows that are not closed, and the corners at which these are least: (points), (points
        x inputs)."""
        open_ = (~decided(bound)).nonzero().flatten()
        values = walk.bound[open_].nan_to_num(nan=-inf)
        values, worst = values.topk(min(POINTS, len(open_)), largest=False)
        return values, self.single.compact.point(walk.at_input[:, open_[worst]].sign().neg_())

    def _again(self, leaves: Phases, stuck: Tensor, bound: Tensor) -> Tensor | None:
        """Leaves whose every neuron is split, ``stuck`` ones of a batch by number, are raised further, and what that
        leaves open is settled exactly."""
        here, whose, part = leaves.phase.T.contiguous(), leaves.tree, multipliers(leaves)
        _, walk = self.raised(here, whose, part, replace(self.how, steps=AGAIN * self.how.steps))
        proved = self.proved(here, whose, part, walk)
        for i in (~decided(proved)).nonzero().flatten().tolist():
            least, witness = self.settle(here[:, i], int(whose[i]))
            if witness is not None:
                return witness
            proved[i] = max(least, proved[i].item())
        bound[stuck] = proved
        return None

    def divisible(self, domains: Phases) -> Tensor:
        """Which domains have a neuron that is not split: (domains)."""
        return domains.neuron >= 0

    def halve(self, domains: Phases) -> Phases:
        """The neuron inactive, then active."""
        return join([split(domains, -1), split(domains, 1)])


def branching(
    lower: Tensor, upper: Tensor, phase: Tensor, tree: Tensor, own: Multipliers, kinks: Kinks, walk: Walk
) -> Tensor:
    """Where upper lines cost domains most; where they cost nothing, where the lower ones may; or any open neuron; -1 if
    there is none: (domains). See :class:`PhaseTree`."""
    if not len(phase):
        return torch.full((phase.shape[1],), -1)
    best, neuron = (walk.seen.clamp(max=0).neg_() * kinks.height).max(0)
    rest = (~(best > 0)).nonzero().flatten()
    if len(rest):
        low, high = (t.float()[:, tree[rest]] for t in (lower, upper))
        alpha, seen = own.alpha[:, rest], walk.seen[:, rest].clamp(min=0)
        gap = torch.maximum(-alpha * low, (1 - alpha) * high) * seen
        open_ = phase[:, rest] == 0
        value, other = torch.where(open_, gap.nan_to_num(nan=0.0), -1.0).max(0)
        neuron[rest] = torch.where(value >= 0, other, -1)
    return neuron


def split(domains: Phases, phase: int) -> Phases:
    """The domains with their next neuron in this phase."""
    at = domains.neuron[:, None]
    return replace(domains, phase=domains.phase.scatter(1, at, phase), beta=domains.beta.scatter(1, at, 0.0))


def multipliers(domains: Phases) -> Multipliers:
    """Those of domains, in float32: (unstable x domains)."""
    alpha, beta, weight = (t.T.float().contiguous() for t in (domains.alpha, domains.beta, domains.weight))
    if len(weight) > 1:
        weight = weight / weight.sum(0).clamp(min=torch.finfo(weight.dtype).tiny)
    return Multipliers(alpha.clamp_(0.0, 1.0), beta.clamp_(min=0.0), weight)


def rounded(own: Multipliers) -> Multipliers:
    """In float64, slopes as shares of 255 and the others as float16 has them: as short as proofs are written."""
    beta, weight = (t.clamp(max=MOST).half().double() for t in (own.beta, own.weight))
    return Multipliers(own.alpha.double().mul_(GRAINS).round_().div_(GRAINS), beta, weight)


def pooled(phase: Tensor, own: Multipliers, neuron: Tensor, tree: Tensor) -> Phases:
    """What is kept of domains: phase (domains x unstable), neuron and tree (domains)."""
    alpha, beta, weight = (t.T.clamp(max=MOST).half() for t in (own.alpha, own.beta, own.weight))
    return Phases(phase, alpha, beta, weight, neuron, tree)
