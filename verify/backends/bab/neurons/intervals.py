"""Intervals of neurons as the domains of a search, for activations of every kind: how they are bounded, proved and
split (GenBaB: Shi et al. 2024, arXiv:2405.21063).

A domain is bounded in float32. What is above zero there is bounded again with its lines and multipliers in float64,
every rounding charged; that alone closes a leaf.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor

from assay.verify.backends.bab.domains import join
from assay.verify.backends.bab.neurons.exact_leaves import Look
from assay.verify.backends.bab.neurons.tied import Raised, Root, Tied, Unsafe
from assay.verify.backends.bab.search import Bounded, Limits, Outcome, search
from assay.verify.bounds import found, layers
from assay.verify.bounds.demand import by_demand
from assay.verify.bounds.optimised.slopes import Ascent
from assay.verify.bounds.relaxations.lines import Lines
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.bounds.sites import Sites, gains
from assay.verify.bounds.verdicts import decided
from assay.verify.core.budget import Budget, Expired
from assay.verify.core.network import Network
from assay.verify.core.region import Region
from assay.verify.core.region.rounding import round_down, round_up
from assay.verify.core.spec import Polyhedron, Spec
from assay.verify.core.verifier import Bounds

ENOUGH = 1e-6
MANY, FEW = 4000, 400  # undecided neurons that are all bounded, and all raised
ROOT = 0.6  # of the time at most is spent on bounds of the root
LINES = Ascent(steps=10, rate=0.2, decay=0.9)  # of each domain's lines
MULTIPLIERS = Ascent(steps=10, rate=0.1, decay=0.9)  # which have two ends to overshoot
COPIES = 24  # of a domain's numbers that live at once
POINTS = 8  # of a batch that are looked at
MOST = 6e4  # the largest share that is kept
NARROW = 1e-6  # of a neuron's interval at the root: what is narrower is not split


def bounded(network: Network, region: Region, spec: Spec, budget: Budget, further: layers.Tighten) -> Relaxed:
    """The network over the region of one sample with bounds of all nodes, as tight as the time allows: of every
    undecided neuron where they are few, or where another method has bounded them, raised by ``further`` if they are
    very few, and else as the specification asks.
    """
    part = replace(budget, seconds=ROOT * max(budget.remaining, 0.0), deadline=None).started()
    relaxed = layers.by_intervals(network, region, torch.float64, budget)
    count = len(Sites.of(relaxed))
    if count <= MANY or found.complete(network, relaxed.bounds[0]):
        try:
            raising = further if count <= FEW else None
            tight = layers.by_linear_bounds(network, region, torch.float64, part, further=raising)
            return replace(tight, budget=budget)
        except Expired:
            part = replace(part, seconds=max(budget.remaining, 0.0) / 2, deadline=None).started()
    return replace(by_demand(network, region, spec.A, spec.b, part), budget=budget)


def searched(relaxed: Relaxed, sets: Sequence[Polyhedron], batch: int, look: Look) -> Outcome:
    """The trees of unsafe sets, searched."""
    tree, budget = IntervalTree.of(relaxed, sets, look), relaxed.budget
    outcome = search(tree, Limits(min(batch, tree.affordable), 0, budget.memory // 4), budget)
    return replace(outcome, stats={**outcome.stats, "sites": tree.sites})


@dataclass(frozen=True, eq=False)
class Intervals:
    """``lower``, ``upper`` of the sites, and which of them are ``split`` (domains x sites); ``share``, their
    multipliers in units, float16; ``weight`` of the unsafe rows (domains x rows); ``which`` unsafe set; ``site`` and
    ``point``: where to split next, site -1 if nowhere (domains)."""

    lower: Tensor
    upper: Tensor
    split: Tensor
    share: Tensor
    weight: Tensor
    which: Tensor
    site: Tensor
    point: Tensor


@dataclass(eq=False)
class IntervalTree:
    """Trees of splits, one for each of the unsafe sets. ``unit``: the size of multipliers (1 x sites); ``lines``,
    ``multipliers``: how these are raised; ``enough``: a bound in float32 that is worth proving."""

    ground: Root
    look: Look
    unit: Tensor
    lines: Ascent = LINES
    multipliers: Ascent = MULTIPLIERS
    enough: float = ENOUGH

    @classmethod
    def of(cls, relaxed: Relaxed, sets: Sequence[Polyhedron], look: Look) -> IntervalTree:
        """``relaxed``: over the region of one sample, in float64, all nodes of it. A multiplier is measured by the mean
        coefficient that arrives at the neurons of its node, at the root."""
        ground = Root.of(relaxed, Unsafe.of(sets))
        tree = cls(ground, look, torch.ones(1, len(ground.sites), dtype=ground.dtype))
        start = tree.root()
        tied = Tied.over(ground, ground.dtype, ground.pushed(start.lower, start.upper), start.which)
        seen: dict[int, Tensor] = {}
        tied.backward(start.weight, torch.zeros_like(start.lower), tied.rows.lines, seen)
        lines = tied.rows.lines
        arriving = ground.sites.gather({i: _steep(lines[i], coef) for i, coef in seen.items()}, lines)
        parts = ground.sites.parts(arriving).values()
        means = [part.mean().nan_to_num(0.0, 0.0).expand(1, part.shape[1]) for part in parts]
        return replace(tree, unit=torch.cat(means, 1) if means else tree.unit)

    @property
    def sites(self) -> int:
        """How many neurons can be split."""
        return len(self.ground.sites)

    @property
    def affordable(self) -> int:
        """How many domains memory allows at a time."""
        each = COPIES * sum(node.size for node in self.ground.relaxed.network.nodes)
        return max(1, self.ground.relaxed.budget.memory // (8 * each))

    def root(self) -> Intervals:
        """See :class:`assay.verify.backends.bab.search.Tree`."""
        ground, sets = self.ground, len(self.ground.unsafe.b)
        lower, upper = (t.repeat(sets, 1) for t in self._at_sites(ground.relaxed.bounds))
        rows = ground.unsafe.b.shape[1]
        weight = torch.full((sets, rows), 1 / rows, dtype=ground.dtype)
        number = torch.arange(sets)
        none = torch.zeros(lower.shape, dtype=torch.bool)
        return Intervals(lower, upper, none, none.half(), weight, number, torch.full_like(number, -1), weight[:, 0])

    def _at_sites(self, bounds: Sequence[Bounds]) -> tuple[Tensor, Tensor]:
        """The bounds of the sites among those of all nodes, rounded outward to the precision that is kept: (domains x
        sites) each."""
        sites, dtype = self.ground.sites, self.ground.dtype
        low, high = (sites.pick({i: getattr(bounds[i], side) for i in sites.index}) for side in ("lower", "upper"))
        return round_down(low, dtype), round_up(high, dtype)

    def bound(self, domains: Intervals, budget: Budget) -> Bounded[Intervals]:
        """See :class:`assay.verify.backends.bab.search.Tree`."""
        budget.check()
        ground = self.ground
        bounds = ground.pushed(domains.lower, domains.upper)
        tied = Tied.over(ground, ground.dtype, bounds, domains.which)
        share, free = domains.share.to(ground.dtype), domains.split.to(ground.dtype)
        raised = Raised(tied, self.unit, free, share, domains.weight.clone(), self.lines, self.multipliers)
        raised.run(self.enough)
        bound = raised.bound.double().clamp(max=0.0)
        some = (raised.bound > self.enough).nonzero().flatten()
        if len(some):
            bound[some] = raised.proved(some, bounds, domains.which)
        low, high = self._at_sites(bounds)
        lower, upper = torch.maximum(domains.lower, low), torch.minimum(domains.upper, high)
        share = raised.share.clamp(-MOST, MOST).nan_to_num(0.0).half()
        here = replace(domains, lower=lower, upper=upper, share=share, weight=raised.weight)
        open_ = ~decided(bound)
        left = self._branched(here, raised, open_)
        seen, witness = self._looked(raised, open_, domains.which)
        return Bounded(bound, seen, left, witness=witness)

    def _branched(self, domains: Intervals, raised: Raised, open_: Tensor) -> Intervals:
        """The domains with the site that promises most, and if none does the widest."""
        rows, seen, sites = raised.tied.rows, raised.climb.seen, self.ground.sites
        some = open_.nonzero().flatten()
        if not len(some) or not self.sites:
            return domains
        network, at_operands, lines = self.ground.draft, {}, {}
        for i, coef in seen.items():
            lines[i] = rows.lines[i].take(some)
            z = Bounds(*(t.index_select(0, some) for t in (rows.operands[i].lower, rows.operands[i].upper)))
            at_operands[i] = gains(network.nodes[i].op, lines[i], z, coef.index_select(0, some))
        lower, upper = domains.lower[some], domains.upper[some]
        gain = sites.gather(at_operands, lines)
        points = sites.points(lower, upper)
        first, last = self._at_sites(self.ground.relaxed.bounds)
        width = (upper - lower) / (last - first)
        inside = (lower < points) & (points < upper) & (width > NARROW)
        gain = gain.nan_to_num(nan=0.0, posinf=0.0).masked_fill(~inside, 0.0)
        gain = torch.where(gain.amax(1, keepdim=True) > 0, gain, width.masked_fill(~inside, 0.0))
        best, site = gain.max(1)
        site = torch.where(best > 0, site, -1)
        point = points.gather(1, site.clamp(min=0)[:, None])[:, 0]
        return replace(
            domains,
            site=domains.site.index_copy(0, some, site),
            point=domains.point.index_copy(0, some, point),
        )

    def _looked(self, raised: Raised, open_: Tensor, which: Tensor) -> tuple[Tensor, Tensor | None]:
        """The margins where the rows of domains are least (domains), and a counterexample near the lowest of them."""
        seen = torch.full((len(open_),), inf, dtype=torch.float64)
        some = open_.nonzero().flatten()
        if not len(some):
            return seen, None
        network, unsafe = self.ground.relaxed.network, self.ground.unsafe
        points = raised.climb.region.minimiser(raised.functions).index_select(0, some).double()
        y = network(points.view(-1, *network.input_shape)).flatten(1)
        margins = ((unsafe.A[which[some]] @ y[..., None])[..., 0] - unsafe.b[which[some]]).amax(1).nan_to_num(nan=inf)
        lowest = margins.topk(min(POINTS, len(some)), largest=False).indices
        return seen.index_copy(0, some, margins), self.look(points[lowest])

    def divisible(self, domains: Intervals) -> Tensor:
        """Which domains have a neuron to split: (domains)."""
        return domains.site >= 0

    def halve(self, domains: Intervals) -> Intervals:
        """Below the point, then above it: both are closed, so that together they are all of it."""
        at, point = domains.site[:, None], domains.point[:, None]
        split = domains.split.scatter(1, at, True)
        below = replace(domains, upper=domains.upper.scatter(1, at, point), split=split)
        above = replace(domains, lower=domains.lower.scatter(1, at, point), split=split)
        return join([below, above])


def _steep(lines: Lines, coef: Tensor) -> Tensor:
    """The magnitudes of coefficients (rows x features) behind activations: (rows x features [x operands])."""
    steep = torch.maximum(lines.slope.abs(), (lines.slope + lines.slope_gap).abs())
    return steep * (coef.abs()[..., None] if steep.dim() > coef.dim() else coef.abs())
