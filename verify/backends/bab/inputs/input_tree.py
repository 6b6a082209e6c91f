"""Boxes of inputs as the domains of a search: how they are bounded, shrunk and halved.

A pair is a box with a disjunct of the unsafe set that the box may still meet; each pair is closed on its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor

from assay.verify.backends.bab.domains import join
from assay.verify.backends.bab.inputs.forms import clip, weigh
from assay.verify.backends.bab.inputs.input_record import InputRecord
from assay.verify.backends.bab.inputs.prepared import Prepared
from assay.verify.backends.bab.inputs.relaxed import Relaxed, blocks, bound_layers, raise_rows, rows_of
from assay.verify.backends.bab.search import Bounded
from assay.verify.backends.bab.unsafe import Unsafe
from assay.verify.backends.bab.witness import probe
from assay.verify.bounds.optimised.multipliers import Constraints
from assay.verify.bounds.optimised.slopes import Ascent, Functions
from assay.verify.bounds.rounding import FEW, STEPS
from assay.verify.bounds.verdicts import decided
from assay.verify.core.budget import Budget
from assay.verify.core.network import Network
from assay.verify.core.problem import Problem
from assay.verify.core.region.halfspaces import tightened
from assay.verify.core.verifier import Bounds
from assay.verify.support.floats import down, gamma

WEIGHINGS = 12  # steps in search of the best weights of a disjunct's rows
SAMPLES = 1024
BEYOND = 0.5
TABLES = 24  # numbers that are kept for each neuron of a box while it is bounded
STEEPER = 4  # than planes between the bounds of the operands are those about products, at most
NOTHING = torch.finfo(torch.float64).max  # the least margin of a box without points
FAIRNESS = 1e-3  # of the best gain, promised to an input as wide as at the root: each is halved in the end


@dataclass(frozen=True, eq=False)
class Boxes:
    """``lower``, ``upper`` (boxes x inputs); the disjuncts still ``open`` (boxes x disjuncts); the known ``signs`` of
    the ReLUs' operands (boxes x features); ``gain``: what halving each input promises (boxes x inputs); ``node``: the
    number of each in the record (boxes)."""

    lower: Tensor
    upper: Tensor
    open: Tensor
    signs: Tensor
    gain: Tensor
    node: Tensor


@dataclass(frozen=True, eq=False)
class Pairs:
    """Boxes with open disjuncts, by position; the part of the box in which the disjunct may be met, ``lower`` and
    ``upper`` (pairs x inputs); ``bound`` (pairs): of the largest row of the disjunct from below; ``forms``: linear
    functions below rows or mixtures of them (pairs x forms); ``weights``: of the best mixture (pairs x rows)."""

    box: Tensor
    disjunct: Tensor
    lower: Tensor
    upper: Tensor
    bound: Tensor
    forms: Functions
    weights: Tensor

    def take(self, index: Tensor) -> Pairs:
        """The pairs at ``index`` (kept pairs), numbers."""
        columns = (self.box, self.disjunct, self.lower, self.upper, self.bound, self.weights)
        box, disjunct, lower, upper, bound, weights = (t.index_select(0, index) for t in columns)
        return Pairs(box, disjunct, lower, upper, bound, self.forms.take(index), weights)

    def sift(self, lowest: Tensor) -> Pairs:
        """Those pairs that are still open; the bounds of the others go into ``lowest`` (boxes)."""
        safe = decided(self.bound)
        closed = safe.nonzero().flatten()
        if not len(closed):
            return self
        lowest.scatter_reduce_(0, self.box[closed], self.bound[closed], "amin")
        return self.take((~safe).nonzero().flatten())


class InputTree:
    """The boxes within a problem's region, over which ``network``, which is the same function, is bounded."""

    def __init__(self, problem: Problem, network: Network, ascent: Ascent, record: InputRecord | None = None) -> None:
        self.problem, self.ascent, self.record = problem, ascent, record
        self.randomness = torch.Generator().manual_seed(0)
        box = problem.region.box()
        self.prepared = Prepared.of(network, Bounds(box.lower[None], box.upper[None]))
        self.unsafe = Unsafe.of(problem.spec)
        self.lower, self.upper = box.lower.reshape(1, -1), box.upper.reshape(1, -1)
        self.constraints = Constraints.of(problem.region, self.lower.device)
        # What rounding may take of each row, weighed with the others of a disjunct or alone: (rows).
        count, (A, b) = FEW + self.unsafe.members.shape[1], (self.unsafe.A.abs(), self.unsafe.b.abs())
        steps = STEPS * len(self.prepared.network.nodes)
        # Planes about products together are a few times as steep as those about each (``WORTH``).
        count *= STEEPER if self.prepared.factors else 1
        self.slack = A @ self.prepared.error[-1] * (count / FEW) + 2 * gamma(count + steps) * b

    def affordable(self, budget: Budget) -> int:
        """How many boxes at a time fit into a quarter of the memory."""
        neurons, varied = sum(node.size for node in self.prepared.network.nodes), len(self.prepared.varied)
        operands = sum(factors.index.numel() for factors in self.prepared.factors.values())
        return max(1, budget.memory // 4 // (8 * ((TABLES + varied) * neurons + 2 * (TABLES + varied) * operands)))

    def root(self) -> Boxes:
        """The region's box, with everything open."""
        signs = torch.zeros(1, sum(self.prepared.relus.values()), dtype=torch.int8)
        open_ = torch.ones(1, len(self.unsafe.members), dtype=torch.bool)
        return Boxes(self.lower, self.upper, open_, signs, self.upper - self.lower, torch.zeros(1, dtype=torch.int64))

    def bound(self, boxes: Boxes, budget: Budget) -> Bounded[Boxes]:
        """Bounds of all layers, of the open disjuncts' rows, and of each disjunct's best mixture of rows with slopes
        raised. Boxes shrink to where something may be unsafe, and likely points are tried as counterexamples."""
        boxes, gone = self._kept(boxes)
        lowest = torch.full((len(gone),), inf, dtype=torch.float64).masked_fill(gone, NOTHING)
        if bool(gone.all()):
            return Bounded(lowest, lowest, boxes, inf, None)
        # Who checks a leaf knows nothing of the boxes that it came from.
        signs = boxes.signs if self.record is None else torch.zeros_like(boxes.signs)
        relaxed, signs = bound_layers(self.prepared, boxes.lower, boxes.upper, signs, budget)
        pairs = self._pairs(relaxed, boxes, budget).sift(lowest)
        pairs, loss, bent = self._raised(relaxed, pairs, boxes.node, budget)
        gain = self._gain(relaxed, pairs, loss, bent)
        pairs, cleared = pairs.sift(lowest), inf
        if self.record is None:  # a tree is written of halves alone: clipping spares few boxes
            pairs, cleared = _clipped(pairs)
        pairs = pairs.sift(lowest)
        cleared = min(cleared, float(lowest.min()))
        known = torch.where(pairs.bound.isfinite(), pairs.bound, -inf)  # an infinite bound is an overflow, no bound
        lowest.scatter_reduce_(0, pairs.box, known, "amin")
        seen, witness = self._probed(pairs, len(lowest)) if len(pairs.box) else (lowest, None)
        return Bounded(lowest, seen, self._left(boxes, pairs, signs, gain), cleared, witness)

    def _kept(self, boxes: Boxes) -> tuple[Boxes, Tensor]:
        """The boxes as far as constraints between inputs leave them, and which of them have no point (boxes), so that
        no disjunct of theirs is open."""
        if self.constraints is None:
            return boxes, torch.zeros(len(boxes.lower), dtype=torch.bool)
        lower, upper = tightened(self.constraints.A, self.constraints.b, boxes.lower, boxes.upper)
        kept = (lower <= upper).all(1, keepdim=True)
        lower, upper = torch.where(kept, lower, boxes.lower), torch.where(kept, upper, boxes.upper)
        return replace(boxes, lower=lower, upper=upper, open=boxes.open & kept), ~kept[:, 0]

    def _tied(self, forms: Functions, lower: Tensor, upper: Tensor) -> Tensor:
        """The least values of functions (...) over boxes (... x inputs) within the constraints; -inf if there are
        none."""
        if self.constraints is None:
            return torch.full_like(forms.constant, -inf)
        return down(forms.constant + self.constraints.least(forms.coef, lower, upper))

    def _pairs(self, relaxed: Relaxed, boxes: Boxes, budget: Budget) -> Pairs:
        """All pairs, each row of the specification bounded once a box."""
        unsafe = self.unsafe
        where, row = unsafe.needed(boxes.open)
        below = rows_of(relaxed, unsafe.A[row], -unsafe.b[row] - self.slack[row], where, budget)
        number = torch.zeros(len(boxes.open), len(unsafe.b), dtype=torch.int64)
        number[where, row] = torch.arange(len(row))
        box, disjunct = boxes.open.nonzero(as_tuple=True)
        forms = below.take(number[box[:, None], unsafe.members[disjunct]])
        lower, upper = boxes.lower[box], boxes.upper[box]
        bound, weights = weigh(forms, lower, upper, WEIGHINGS)
        if self.record is not None:  # what takes several rows is written with slopes, which are raised for it
            bound = forms.minimum(lower[:, None], upper[:, None]).amax(1)
        bound = torch.fmax(bound, self._tied(forms, lower[:, None], upper[:, None]).amax(1))
        return Pairs(box, disjunct, lower, upper, bound, forms, weights)

    def _raised(
        self, relaxed: Relaxed, pairs: Pairs, node: Tensor, budget: Budget
    ) -> tuple[Pairs, dict[int, Tensor], Tensor]:
        """The pairs with the bounds of their mixtures raised, and the mixtures' forms before the others; for each
        activation, by position, what its relaxation may cost the pairs that stay open (boxes x features), and what all
        products together may along each input (boxes x varied inputs)."""
        members = self.unsafe.members[pairs.disjunct]
        objective = torch.einsum("pr,pro->po", pairs.weights, self.unsafe.A[members])
        constant = -torch.linalg.vecdot(pairs.weights, self.unsafe.b[members] + self.slack[members])
        loss = {i: torch.zeros_like(lines.intercept_gap) for i, lines in relaxed.lines.items()}
        bent = relaxed.lower.new_zeros(len(relaxed.lower), len(self.prepared.varied))
        bound, coef, offset = pairs.bound.clone(), pairs.lower.clone(), pairs.bound.clone()
        for block in blocks(len(pairs.box), self.prepared.heaviest, budget):
            box = pairs.box[block]
            here = relaxed.take(box)
            slopes: dict[int, Tensor] | None = None if self.record is None else {}
            raised, lost_at, bent_at = raise_rows(here, objective[block], constant[block], self.ascent, slopes)
            if self.record is not None and slopes is not None:
                done = decided(raised.bound).nonzero().flatten()
                mine = torch.arange(len(pairs.box))[block][done]
                slopes = {i: t[done] for i, t in slopes.items()}
                self.record.closed(node[box[done]], pairs.disjunct[mine], slopes, pairs.weights[mine])
            bound[block] = torch.fmax(bound[block], raised.bound)
            coef[block], offset[block] = raised.function.coef, raised.function.constant
            open_ = ~decided(bound[block])
            if bent_at is not None:
                bent.index_add_(0, box, bent_at * open_[:, None])
            for position, lost in lost_at.items():
                loss[position].index_add_(0, box, lost * open_[:, None])
        bound = torch.fmax(bound, self._tied(Functions(coef, offset), pairs.lower, pairs.upper))
        forms = Functions(
            torch.cat([coef[:, None], pairs.forms.coef], 1), torch.cat([offset[:, None], pairs.forms.constant], 1)
        )
        return replace(pairs, bound=bound, forms=forms), loss, bent

    def _gain(self, relaxed: Relaxed, pairs: Pairs, loss: dict[int, Tensor], bent: Tensor) -> Tensor:
        """What halving each input promises: its share of the width of the neurons whose relaxations cost most, and what
        is not convex along it, or without products of the width of the mixtures themselves: (boxes x inputs). With
        products, where they lose most is known, and the mixtures are steep elsewhere."""
        varied, whole = self.prepared.varied, relaxed.upper - relaxed.lower
        width = whole[:, varied]
        gain = bent.clone()
        if relaxed.curvature is None:
            gain.index_add_(0, pairs.box, pairs.forms.coef[:, 0, varied].abs() * width[pairs.box])
        for position, lost in loss.items():
            node = self.prepared.network.nodes[position]
            reach = relaxed.reach.get(node.inputs[0])
            if reach is None:  # nothing there was worth a bound of its own, or it is the input itself
                continue
            operands = self.prepared.network.nodes[node.inputs[0]].size // node.size
            share = reach.width / reach.width.sum(1, keepdim=True).clamp(min=torch.finfo(width.dtype).tiny)
            gain.index_add_(0, reach.box, share * lost[reach.box, reach.feature // operands][:, None])
        return torch.zeros_like(whole).index_copy_(1, varied, gain.nan_to_num(nan=0.0, posinf=0.0))

    def _left(self, boxes: Boxes, pairs: Pairs, signs: Tensor, gain: Tensor) -> Boxes:
        """The boxes around what is left of their pairs."""
        index = pairs.box[:, None].expand_as(pairs.lower)
        lower = boxes.lower.scatter_reduce(0, index, pairs.lower, "amin", include_self=False)
        upper = boxes.upper.scatter_reduce(0, index, pairs.upper, "amax", include_self=False)
        open_ = boxes.open  # each leaf of a tree that is written proves all disjuncts
        if self.record is None:
            open_ = torch.zeros_like(boxes.open).index_put((pairs.box, pairs.disjunct), torch.tensor(True))
        tiny = torch.finfo(gain.dtype).tiny
        gain = gain * ((upper - lower) / (boxes.upper - boxes.lower).clamp(min=tiny))
        gain = gain / gain.amax(1, keepdim=True).clamp(min=tiny)
        fair = (upper - lower) / (self.upper - self.lower).clamp(min=tiny)
        return Boxes(lower, upper, open_, signs, gain + FAIRNESS * fair, boxes.node)

    def _probed(self, pairs: Pairs, boxes: int) -> tuple[Tensor, Tensor | None]:
        """The least margin seen in each box, tried in the middle of each pair and where its mixture is least."""
        mixture = Functions(pairs.forms.coef[:, 0], pairs.forms.constant[:, 0])
        guesses = torch.cat([mixture.corner(pairs.lower, pairs.upper), pairs.lower / 2 + pairs.upper / 2])
        which = torch.arange(max(SAMPLES, len(pairs.box))) % max(1, len(pairs.box))
        share = torch.rand(len(which), guesses.shape[1], dtype=torch.float64, generator=self.randomness)
        beyond = 2 * BEYOND * torch.rand(len(which), 1, dtype=torch.float64, generator=self.randomness)
        share = ((1 + 2 * beyond) * share - beyond).clamp(0, 1)
        chance = torch.lerp(pairs.lower[which], pairs.upper[which], share)
        which = torch.cat([torch.arange(len(pairs.box)).repeat(2), which])
        margin, witness = probe(self.problem, torch.cat([guesses, chance]), pairs.lower[which], pairs.upper[which])
        seen = torch.full((boxes,), inf, dtype=torch.float64)
        return seen.scatter_reduce(0, pairs.box[which], margin.nan_to_num(nan=inf), "amin"), witness

    def divisible(self, boxes: Boxes) -> Tensor:
        """Which boxes have an input with a float64 number between its bounds: (boxes)."""
        return _inside(boxes).any(1)

    def halve(self, boxes: Boxes) -> Boxes:
        """Along the input that promises most; its halves are thought to promise half as much."""
        axis = boxes.gain.masked_fill(~_inside(boxes), -inf).argmax(1, keepdim=True)
        cut = _middle(boxes).gather(1, axis)
        gain = boxes.gain.scatter(1, axis, boxes.gain.gather(1, axis) / 2)
        first = second = boxes.node
        if self.record is not None:
            first, second = self.record.halved(boxes.node, axis[:, 0]).chunk(2)
        left = replace(boxes, upper=boxes.upper.scatter(1, axis, cut), gain=gain, node=first)
        right = replace(boxes, lower=boxes.lower.scatter(1, axis, cut), gain=gain, node=second)
        return join([left, right])


def _middle(boxes: Boxes) -> Tensor:
    return boxes.lower / 2 + boxes.upper / 2


def _inside(boxes: Boxes) -> Tensor:
    middle = _middle(boxes)
    return (boxes.lower < middle) & (middle < boxes.upper)


def _clipped(pairs: Pairs) -> tuple[Pairs, float]:
    """The pairs shrunk to where no form is clearly positive, and the margin in what was cut off."""
    clipped = clip(pairs.forms, pairs.lower, pairs.upper, pairs.bound)
    cut = clipped.empty | (clipped.lower > pairs.lower).any(1) | (clipped.upper < pairs.upper).any(1)
    cleared = clipped.clearance[cut].tolist()
    kept = ~clipped.empty[:, None]
    shrunk = replace(
        pairs,
        lower=torch.where(kept, clipped.lower, pairs.lower),
        upper=torch.where(kept, clipped.upper, pairs.upper),
        bound=torch.where(clipped.empty, clipped.clearance, pairs.bound),
    )
    return shrunk, min(cleared, default=inf)
