"""Bounds of neurons over the whole box by branch and bound, layer by layer: a small tree of its own for each bound.

What exact programs for single neurons do for the layers of a network (Tjeng et al. 2019, arXiv:1711.07356; Singh et al.
2019, "Boosting robustness certification of neural networks") is done here by splits of the neurons before it, bounded
by slopes and multipliers, for all bounds of a layer at once. As each layer widens what the one before it leaves open,
what is taken off early is taken off many times over at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import numpy as np
import torch
from torch import Tensor

from assay.verify.backends.bab.neurons.climbing import Climbing, climb, typical
from assay.verify.backends.bab.neurons.compact import Compact, narrow
from assay.verify.backends.bab.neurons.multipliers import Kinks, Multipliers, Walk, backward
from assay.verify.backends.bab.neurons.phases import branching, rounded
from assay.verify.backends.bab.neurons.tables import Tables
from assay.verify.core.budget import Budget

FIRST = Climbing(steps=20, slope=0.2, multiplier=0.5, decay=0.9)  # of a tree's root
TOGETHER = 256  # trees that grow together, or fewer, so that they take a part of the memory
BYTES, PART = 32, 4  # that a neuron of a leaf takes, copies included; one part in so many
FEWEST, MORE = 2, 4  # leaves of the first pass, and times as many in each one after it
EARLY = 1.5  # the power of what a layer has less to do than another one that its trees are larger by
GAIN, VAIN = 0.95, 2  # of what rows were short of zero a pass leaves at most, or it was in vain; so many end it
WORST = 4  # one in so many leaves of a tree, those with the worst bounds, may be split at once
CHECKED = 1024  # leaves that are proved together


@dataclass(frozen=True, eq=False)
class Leaves:
    """The leaves of some trees, one tree after the other: the ``phase`` of each (neurons x leaves), the ``row`` whose
    it is (leaves), and what is raised there, ``own``."""

    phase: Tensor
    row: Tensor
    own: Multipliers


# Hears of bounds that are proved: the lower bounds of all unstable neurons by then (unstable), the numbers of those
# that leaves speak of; of each bound, twice the number of its neuron, and one more where it is an upper one, and what
# it is, its sign turned there (rows); and of the leaves, rounded to be written.
Note = Callable[[Tensor, Tensor, Tensor, Tensor, Leaves], None]


@dataclass(frozen=True)
class Refining:
    """``leaves``: of a tree in the layer that has most to do, ``most``: in others; ``how`` these are raised."""

    leaves: int
    most: int
    how: Climbing


@dataclass(eq=False)
class Passes:
    """What passes over the layers, with larger and larger trees, have come to: bounds ``lower`` and ``upper`` (unstable
    each) from those at the ``root``; of how many ``leaves`` the next one is, 0 where none is worth its time; what rows
    were ``short`` of zero after the last one that paid, and how many were in ``vain`` since; the seconds that the last
    one ``took``; and ``heard``, what proves the bounds, where a ``proof`` is asked for. It is kept for whoever asks
    again with more time."""

    root: tuple[Tensor, Tensor]
    lower: Tensor
    upper: Tensor
    proof: bool
    leaves: int = FEWEST
    short: float = inf
    vain: int = 0
    took: float = 0.0
    heard: list[Any] = field(default_factory=list)

    @classmethod
    def begun(cls, compact: Compact, proof: bool) -> Passes:
        """Before the first one."""
        root = compact.bounds()
        return cls(root, *root, proof)

    def serves(self, compact: Compact, proof: bool) -> bool:
        """Whether it is of the same root, and has what is asked for."""
        same = all(mine.equal(theirs) for mine, theirs in zip(self.root, compact.bounds(), strict=True))
        return same and self.proof == proof

    def note(self, short: float, most: int, took: float) -> None:
        """A pass is over that took so many seconds, after which rows are so far ``short`` of zero; the next one is of
        more leaves, of so many at ``most``. Below a certain size trees in late layers may prove nothing that those
        before have not."""
        self.short, self.vain = (short, 0) if short <= GAIN * self.short else (self.short, self.vain + 1)
        self.leaves, self.took = MORE * self.leaves if self.vain < VAIN and self.leaves < most else 0, took

    def worth(self, seconds: float) -> bool:
        """Whether there is to be another pass in so many seconds: after one in vain only if there is time for all of
        it."""
        return self.leaves > 0 and (not self.vain or MORE * self.took <= seconds)


@dataclass(frozen=True, eq=False)
class Layer:
    """What trees of a layer are of: its ``number``, the neurons of it that are ``wanted`` (wanted), the bounds
    ``lower`` and ``upper`` of the unstable ones before it (unstable each), and how the trees grow. Their rows are twice
    the positions of wanted ones, and one more for upper bounds."""

    number: int
    wanted: Tensor
    lower: Tensor
    upper: Tensor
    refining: Refining

    def parts(self, memory: float) -> Sequence[Tensor]:
        """All rows, those together that so many bytes are enough for."""
        live = int(((self.lower < 0) & (self.upper > 0)).sum())
        most = memory // (PART * BYTES * max(1, live) * max(1, self.refining.leaves))
        return torch.split(torch.arange(2 * len(self.wanted)), int(max(1, min(TOGETHER, most))))


@dataclass(frozen=True, eq=False)
class Grown:
    """Trees of some ``rows`` of a layer: the ``bounds`` that they prove (rows), the numbers of the neurons that the
    leaves speak of, ``index``, and these ``leaves``, where they are asked for."""

    rows: Tensor
    bounds: Tensor
    index: Tensor
    leaves: Leaves | None


# Has the trees of parts of a layer's rows grow until the time is over: those that have, in any order.
Grow = Callable[[Compact, Layer, Sequence[Tensor], Budget], Iterator[Grown]]


def grown(compact: Compact, layer: Layer, parts: Sequence[Tensor], budget: Budget) -> Iterator[Grown]:
    """See :data:`Grow`: here, one part after the other."""
    cut, index = compact.before(layer.number, layer.wanted, layer.lower, layer.upper)
    trees = _Trees(cut, layer.lower[index], layer.upper[index], layer.refining)
    for rows in parts:
        if budget.expired:
            return
        leaves = trees.grown(rows, budget)
        yield Grown(rows, trees.proved(leaves, len(rows)), index, leaves)


def refine(
    compact: Compact,
    lower: Tensor,
    upper: Tensor,
    refining: Refining,
    budget: Budget,
    note: Note | None = None,
    grow: Grow = grown,
) -> tuple[Tensor, Tensor]:
    """Tighter bounds of the unstable neurons' operands, ``lower`` and ``upper`` (unstable each), float64.

    When the time is over the rest stays as it is.
    """
    lower, upper = lower.clone(), upper.clone()
    sizes = _sizes(compact, (lower < 0) & (upper > 0), refining)
    for number, (layer, begin) in enumerate(zip(compact.layers, compact.starts, strict=False)):
        here = slice(begin, begin + layer.unstable)
        wanted = ((lower[here] < 0) & (upper[here] > 0)).nonzero().flatten()
        if set(layer.operand.matrices) <= {0} or not len(wanted):
            continue  # over the box alone these are exact
        trees = Layer(number, wanted, lower[:begin], upper[:begin], replace(refining, leaves=sizes[number]))
        for done in grow(compact, trees, trees.parts(budget.memory), budget):
            at, opposite = begin + wanted[done.rows // 2], done.rows % 2 == 1
            if note is not None:
                assert done.leaves is not None
                note(lower, done.index, 2 * at + done.rows % 2, done.bounds, done.leaves)
            narrow(lower, upper, at, ~opposite, done.bounds)
    return lower, upper


def price(compact: Compact, lower: Tensor, upper: Tensor, refining: Refining) -> float:
    """How many domains of the whole network take as long as such a pass, about."""
    entries = np.cumsum([sum(m.nnz for m in layer.operand.matrices.values()) for layer in compact.layers])
    live = (lower < 0) & (upper > 0)
    root = (FIRST.steps + 1) / (refining.how.steps + 1)
    total = 0.0
    for layer, begin, leaves, before in zip(
        compact.layers, compact.starts, _sizes(compact, live, refining), entries, strict=False
    ):
        if not set(layer.operand.matrices) <= {0}:
            rows = 2 * int(live[begin : begin + layer.unstable].sum())
            total += rows * (root + 2 * (leaves - 1)) * float(before / max(1, entries[-1]))
    return total


def _sizes(compact: Compact, live: Tensor, refining: Refining) -> list[int]:
    """How many leaves a tree has of each layer: the fewer, the more it has of the ``live`` neurons (unstable) and of
    features before them."""
    features = np.cumsum([len(compact.varied), *(len(layer.features) for layer in compact.layers)])
    costs = [
        max(1, int(live[begin : begin + layer.unstable].sum())) * int(before)
        for layer, begin, before in zip(compact.layers, compact.starts, features, strict=False)
    ]
    dearest = max(costs, default=1)
    return [min(refining.most, int(refining.leaves * (dearest / max(1, cost)) ** EARLY)) for cost in costs]


@dataclass(eq=False)
class _Trees:
    """Trees of the rows of the output of a ``compact`` network, and then of their opposites, in turn, over bounds
    ``lower`` and ``upper`` (unstable each)."""

    compact: Compact
    lower: Tensor
    upper: Tensor
    refining: Refining

    def __post_init__(self) -> None:
        self.lower, self.upper = self.lower[:, None], self.upper[:, None]
        self.single, self.double = (
            Tables(self.compact, self.compact.output, dtype) for dtype in (torch.float32, torch.float64)
        )

    def grown(self, rows: Tensor, budget: Budget) -> Leaves:
        """Each leaf that keeps a bound below zero is split, the worst first; the leaves at the end. Where the time is
        over the trees are as large as they are."""
        count, most, size = len(rows), max(1, self.refining.leaves), len(self.lower)
        weight = torch.zeros(len(self.compact.output.bias), count)
        weight[rows // 2, torch.arange(count)] = 1.0 - 2.0 * (rows % 2)
        phase = torch.zeros(size, most, count, dtype=torch.int8)
        alpha, beta = torch.zeros(size, most, count), torch.zeros(size, most, count)
        bound, neuron = torch.full((most, count), inf), torch.full((most, count), -1)
        used = torch.zeros(most, count, dtype=torch.bool)
        alpha[:, 0] = (self.upper > -self.lower).float()
        own = Multipliers(alpha[:, 0].clone(), beta[:, 0].clone(), weight)
        walk, neuron[0] = self._raised(phase[:, 0].contiguous(), own, FIRST, None)
        unit = typical(self.single, walk)
        alpha[:, 0], bound[0], used[0] = own.alpha, walk.bound.nan_to_num(nan=-inf), True
        new = 1
        while new < most:
            # Where trees are few several leaves of each are split at once, which takes no longer than one of each.
            growing = int(((bound[:new] < 0) & (neuron[:new] >= 0)).any(0).sum())
            at_once = min(max(1, new // WORST), most - new, max(1, TOGETHER // max(1, growing)))
            worst, leaf = bound[:new].topk(at_once, 0, largest=False)
            rank, row = ((worst < 0) & (neuron.gather(0, leaf) >= 0)).nonzero(as_tuple=True)
            if not len(row) or budget.expired:
                break
            leaf, whole, fresh = leaf[rank, row], worst[rank, row].repeat(2), new + rank
            at = neuron[leaf, row]
            halves = [part[:, leaf, row].repeat(1, 2) for part in (phase, alpha, beta)]
            first, second = torch.arange(len(row)), torch.arange(len(row), 2 * len(row))
            halves[0][at, first], halves[0][at, second] = -1, 1
            halves[2][at, first], halves[2][at, second] = 0.0, 0.0
            own = Multipliers(halves[1].clone(), halves[2].clone(), weight[:, row.repeat(2)])
            walk, following = self._raised(halves[0], own, self.refining.how, unit)
            # What proved the whole proves its halves, slopes at the split among it: another one might not.
            better = walk.bound > whole
            kept = [torch.where(better, raised, old) for old, raised in ((halves[1], own.alpha), (halves[2], own.beta))]
            value = torch.where(better, walk.bound, whole)
            used[fresh, row] = True
            for into, part in zip((phase, alpha, beta), (halves[0], *kept), strict=True):
                into[:, leaf, row], into[:, fresh, row] = part[:, first], part[:, second]
            for column, found in ((bound, value), (neuron, following)):
                column[leaf, row], column[fresh, row] = found[first], found[second]
            new += at_once
        row, leaf = used.T.nonzero(as_tuple=True)
        own = Multipliers(alpha[:, leaf, row], beta[:, leaf, row], weight[:, row])
        return Leaves(phase[:, leaf, row], row, rounded(own))

    def _raised(self, phase: Tensor, own: Multipliers, how: Climbing, unit: Tensor | None) -> tuple[Walk, Tensor]:
        """Domains with these phases (unstable x domains), ``own`` raised in place, and where to split each next, -1
        where every neuron is split."""
        alone = torch.zeros(phase.shape[1], dtype=torch.int64)
        kinks = Kinks.of(self.single, self.lower, self.upper, phase, alone)
        own.alpha.mul_(kinks.open).add_(kinks.fixed)
        own.beta.mul_(kinks.sign.abs())
        walk = climb(self.single, kinks, own, how, None if unit is None else unit.expand(-1, phase.shape[1]))
        return walk, branching(self.lower, self.upper, phase, alone, own, kinks, walk)

    def proved(self, leaves: Leaves, rows: int) -> Tensor:
        """The least bound of the leaves of each tree (rows), float64, every rounding charged."""
        bound = torch.full((rows,), inf, dtype=torch.float64)
        for part in torch.split(torch.arange(len(leaves.row)), CHECKED):
            phase, row = leaves.phase[:, part], leaves.row[part]
            own = leaves.own.take(part)
            kinks = Kinks.of(self.double, self.lower, self.upper, phase, torch.zeros_like(row))
            found = backward(self.double, kinks, own, charged=True).bound
            bound.scatter_reduce_(0, row, found.nan_to_num(nan=-inf, posinf=-inf, neginf=-inf), "amin")
        return bound
