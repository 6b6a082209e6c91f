"""Halves of the region where few inputs vary, each with raised bounds of its own. A neuron's phase says little where
thousands depend on sixteen inputs; half of one input settles a quarter of all neurons. What the whole left undecided is
cut down to what can matter in a half, so that each costs less than what it is a half of.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field, replace
from math import inf

import torch
from torch import Tensor

from assay.verify.backends.bab.account import Account
from assay.verify.backends.bab.neurons.climbing import Climbing, climb
from assay.verify.backends.bab.neurons.compact import Compact
from assay.verify.backends.bab.neurons.exact_leaves import Look
from assay.verify.backends.bab.neurons.multipliers import Kinks, Multipliers, Units, Walk, backward
from assay.verify.backends.bab.neurons.raising import Raising
from assay.verify.backends.bab.neurons.tables import Tables
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.bounds.verdicts import decided
from assay.verify.core.budget import Budget
from assay.verify.core.problem import Problem
from assay.verify.programs.expressions import as_array
from assay.verify.support.kept import Kept

FEW = 32  # inputs that vary, at most
DEAR = 1 << 30  # products of one row of every unstable neuron, from which on neurons' phases are worth less than boxes
LINES = Climbing(steps=20, slope=0.2, decay=0.9)
BRIEF = Climbing(steps=3, slope=0.6, decay=0.7)  # of neurons' bounds where these are dear: a box may be halved again
MOST = 1000  # boxes; then neurons' phases have the rest, which come to an end where no box is small enough
COSTLY = 64  # neurons of a layer that are asked which inputs move them


def worth(compact: Compact) -> bool:
    """Whether a network is halved by boxes before it is by its neurons' phases."""
    entries = sum(m.nnz for layer in compact.layers for m in layer.operand.matrices.values())
    return 0 < len(compact.varied) <= FEW and 2 * compact.unstable * entries > DEAR


@dataclass(frozen=True, eq=False)
class Part:
    """A box: the network over it, which of the disjuncts may be met there, how many times it was halved, and what
    raising its bounds has come to, if that is begun."""

    compact: Compact
    open: tuple[int, ...]
    depth: int
    raising: Raising | None = None


@dataclass(eq=False)
class Boxes:
    """The boxes of a problem ``relaxed`` over its region, of which these ``parts`` are left. ``lower``: a bound of each
    disjunct's least margin in all that is closed; ``account``: of that. It is kept for whoever asks again with more
    time."""

    problem: Problem
    relaxed: Relaxed
    parts: list[Part]
    disjuncts: tuple[int, ...]
    account: Account = field(init=False)
    lower: dict[int, float] = field(init=False)
    bounded: int = 0

    def __post_init__(self) -> None:
        self.account = Account(len(self.disjuncts))
        self.lower = dict.fromkeys(self.disjuncts, inf)

    @classmethod
    def of(cls, problem: Problem, relaxed: Relaxed, compact: Compact, disjuncts: tuple[int, ...]) -> Boxes:
        """Those that are kept of a problem and tell of these disjuncts, or the region alone."""
        kept = BOXES.of.get(problem)
        if kept is None or not set(disjuncts) <= set(kept.disjuncts):
            own = copy(problem)  # what is kept of a problem must not be what keeps it
            kept = BOXES.of[problem] = cls(own, relaxed, [Part(compact, disjuncts, 0)], disjuncts)
        return kept

    def run(self, budget: Budget, look: Look) -> Tensor | None:
        """Until all are closed, there were too many, the time is over, or a counterexample is found: it is returned."""
        while self.parts and self.bounded < MOST and not budget.expired:
            witness = self._one(self.parts[-1], budget, look)
            if witness is not None:
                return witness
        return None

    def _one(self, part: Part, budget: Budget, look: Look) -> Tensor | None:
        """Bound the last box, close what is proved there, and put the halves of the rest in its place, where it stays
        if the time was not enough for it, or an error breaks this off."""
        compact = part.compact
        if part.depth:  # the region itself is there to tell which input to begin with
            raising = part.raising or Raising(compact, self.relaxed, hurried=BRIEF)
            raising.run(budget)
            if not raising.complete:
                self.parts[-1] = replace(part, raising=raising)
                return None
            compact = raising.rest
        self.bounded += 1
        spec = self.problem.spec
        rows = torch.isin(spec.disjunct, torch.tensor(part.open)).nonzero().flatten()
        output = compact.output.weighed(as_array(spec.A[rows]), as_array(spec.b[rows]))
        single, double = (Tables(compact, output, dtype) for dtype in (torch.float32, torch.float64))
        walk = _rows(single, double)
        bound = walk.bound.nan_to_num(nan=-inf, posinf=-inf, neginf=-inf)
        # A disjunct is met only where all of its rows are.
        least = {d: bound[spec.disjunct[rows] == d].max() for d in part.open}
        closed = [d for d, low in least.items() if bool(decided(low))]
        open_, witness, halves = tuple(d for d in part.open if d not in closed), None, list[Part]()
        if open_:
            met = torch.isin(spec.disjunct[rows], torch.tensor(open_)) & ~(bound > 0)
            witness = look(compact.point(walk.at_input[:, met].sign().neg_()))
            number = int(_gain(double, walk, torch.where(met, -bound, 0.0)).argmax())
            halves = [Part(half, open_, part.depth + 1) for half in compact.halves(number)]
        self.parts[-1:] = halves
        for d in closed:
            self.lower[d] = min(self.lower[d], float(least[d]))
        if closed:
            tree = torch.tensor([self.disjuncts.index(d) for d in closed])
            self.account.close(torch.full_like(tree, part.depth), tree)
        return witness


BOXES = Kept[Problem, Boxes]()


def _start(tables: Tables, rows: int) -> tuple[Kinks, Multipliers]:
    """Lines before they are raised, of rows that begin nowhere yet."""
    lower, upper = (t[:, None] for t in tables.compact.bounds())
    phase, owner = torch.zeros(len(lower), rows, dtype=torch.int8), torch.zeros(rows, dtype=torch.int64)
    kinks = Kinks.of(tables, lower, upper, phase, owner)
    alpha = (upper > -lower).to(tables.dtype).repeat(1, rows)
    if tables.left is not None:
        alpha = tables.left + (1 - tables.left) * alpha
    weight = torch.zeros(len(tables.output.bias), rows, dtype=tables.dtype)
    return kinks, Multipliers(alpha, torch.zeros_like(alpha), weight)


def _rows(single: Tables, double: Tables) -> Walk:
    """The output's rows on lines that are raised, every rounding charged."""
    rows = len(single.output.bias)
    kinks, own = _start(single, rows)
    own.weight.fill_diagonal_(1.0)
    climb(single, kinks, own, LINES, torch.zeros(len(own.alpha), rows))
    return backward(double, _start(double, rows)[0], own.to(torch.float64), charged=True)


def _gain(tables: Tables, walk: Walk, short: Tensor) -> Tensor:
    """What halving each varied input promises (varied inputs): its share of the rows themselves, weighed by what they
    are ``short`` of zero (rows), and of the neurons whose relaxations cost them most."""
    weight = short / short.sum().clamp(min=torch.finfo(short.dtype).tiny)
    gain = walk.at_input.abs() @ weight
    cost = -(walk.seen * walk.room.height) @ weight
    for number, (here, first) in enumerate(zip(tables.unstable, tables.compact.starts, strict=False), start=1):
        dear, feature = cost[first : first + here].topk(min(COSTLY, here))
        if len(feature):
            moved = _inputs(tables, number, feature)
            gain += moved / moved.sum(0).clamp(min=torch.finfo(gain.dtype).tiny) @ dear
    return gain.nan_to_num(nan=0.0, posinf=0.0)


def _inputs(tables: Tables, layer: int, feature: Tensor) -> Tensor:
    """By how much each input moves features of a layer: (varied inputs x features)."""
    kinks, own = _start(tables, len(feature))
    units = Units(layer, feature, torch.ones(len(feature), dtype=tables.dtype))
    return backward(tables, kinks, own, units).at_input.abs()
