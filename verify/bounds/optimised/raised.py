"""Rows bounded with lines of their own, raised by gradient ascent: those of a specification, or of a layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor

from assay.verify.bounds.backward import differences, rows
from assay.verify.bounds.backward.affine import Part
from assay.verify.bounds.backward.rows import RowRules, over_ball
from assay.verify.bounds.backward.shares import sums_to_one
from assay.verify.bounds.backward.walk import propagate_backwards
from assay.verify.bounds.layers import meet
from assay.verify.bounds.opposites import partners
from assay.verify.bounds.optimised.kinks import Kinks
from assay.verify.bounds.optimised.multipliers import Constraints
from assay.verify.bounds.optimised.narrow import narrowed
from assay.verify.bounds.optimised.slopes import (
    FEWER,
    PATIENCE,
    Ascent,
    Climb,
    Functions,
    Moving,
    in_other_precision,
    still_rising,
    taken,
)
from assay.verify.bounds.relaxations.lines import Lines
from assay.verify.bounds.relaxed import Relaxed, fits_float32, middle_and_radius
from assay.verify.bounds.rounding import Rounding
from assay.verify.core.budget import Expired
from assay.verify.core.network import Node
from assay.verify.core.region import LpBall
from assay.verify.core.roundings import terms
from assay.verify.core.verifier import Bounds
from assay.verify.support.floats import length

MOST = 512  # rows at a time
GRAINS = 255  # that slopes are told in, so that a byte holds one
TABLES = 16  # numbers that are kept for each neuron of a row while its lines are raised
# Products of all steps of a layer's rows from which on these are raised in a few large steps: over convolutions that
# takes a third of the time of twenty, and the bounds of what comes after gain all but some hundredths of as much.
DEAR, HURRIED = 1 << 32, Ascent(steps=5, rate=0.6, decay=0.7)


@dataclass(frozen=True, eq=False)
class Owned:
    """The regions of the samples that rows belong to: centre and radius of the box (rows x inputs), and the ball if
    it is one; of a polytope the box itself (rows x inputs) and the constraints between inputs."""

    centre: Tensor
    radius: Tensor
    ball: LpBall | None
    polytope: tuple[Bounds, Constraints] | None = None

    @classmethod
    def of(cls, relaxed: Relaxed, sample: Tensor) -> Owned:
        """Of the samples that rows belong to, by number (rows)."""
        box = Bounds(*(t.flatten(1) for t in (relaxed.bounds[0].lower, relaxed.bounds[0].upper)))
        ball = None if relaxed.ball is None else of_samples(relaxed.ball, sample)
        centre, radius = (t.index_select(0, sample) for t in middle_and_radius(box))
        constraints = relaxed.constraints
        return cls(centre, radius, ball, None if constraints is None else (taken(box, sample), constraints))

    def take(self, rows: Tensor) -> Owned:
        """Those of the rows at the positions ``rows`` (kept rows)."""
        centre, radius = self.centre.index_select(0, rows), self.radius.index_select(0, rows)
        ball = None if self.ball is None else of_samples(self.ball, rows)
        polytope = None if self.polytope is None else (taken(self.polytope[0], rows), self.polytope[1])
        return Owned(centre, radius, ball, polytope)

    def minimum(self, functions: Functions) -> Tensor:
        """See :class:`assay.verify.bounds.optimised.slopes.Region`."""
        coef = functions.coef
        lowest: Tensor = torch.linalg.vecdot(coef, self.centre) - torch.linalg.vecdot(coef.abs(), self.radius)
        if self.ball is not None:
            lowest = torch.maximum(lowest, over_ball(coef[:, None], self.ball))
        if self.polytope is not None:
            box, constraints = self.polytope
            tied = constraints.least(coef, box.lower, box.upper)
            lowest = torch.where(tied > lowest, tied, lowest)
        return functions.constant + lowest

    def minimiser(self, functions: Functions) -> Tensor:
        """See :class:`assay.verify.bounds.optimised.slopes.Region`."""
        coef = functions.coef
        if self.polytope is not None:
            box, constraints = self.polytope
            coef = constraints.weighed(coef, box.lower, box.upper)[0].to(coef)
        corner = torch.addcmul(self.centre, coef.sign(), self.radius, value=-1)
        if self.ball is None:
            return corner
        nearer = over_ball(coef[:, None], self.ball) > torch.linalg.vecdot(coef, corner)
        return torch.where(nearer[:, None], _on_ball(coef, self.ball), corner)


def _on_ball(coef: Tensor, ball: LpBall) -> Tensor:
    """Where linear functions (rows x inputs) are least over an l1 or l2 ball each."""
    centre = ball.centre.flatten(1).to(coef)
    eps = torch.as_tensor(ball.eps, dtype=torch.float64).to(coef).reshape(-1, 1)
    if ball.p == 2:
        return centre - eps * coef / length(coef, 2, keepdim=True).clamp(min=torch.finfo(coef.dtype).tiny)
    steepest = coef.abs().argmax(1, keepdim=True)
    return centre.scatter_add(1, steepest, -eps * coef.gather(1, steepest).sign())


def lower_rows(relaxed: Relaxed, objective: Tensor, ascent: Ascent) -> Tensor:
    """Lower bounds of ``objective @ output``, each row with lines of its own: objective (samples x rows x outputs),
    result (samples x rows). None is below that of :func:`assay.verify.bounds.backward.rows.lower_rows`, which is what
    there is when the time is over before the lines are raised."""
    samples, count, outputs = objective.shape
    plain = rows.lower_rows(relaxed, objective, linear=True)
    sample = torch.arange(samples, device=plain.device).repeat_interleave(count)
    coef = objective.reshape(-1, outputs).to(plain)
    last = len(relaxed.network.nodes) - 1
    try:
        better = Raising.of(relaxed, last).lower(coef, sample, ascent).view(samples, count)
    except Expired:
        return plain
    return torch.where(better > plain, better, plain)  # NaN is no better


# Hears of a node's bounds: its position, the features (features), and the slopes of each activation's lower lines, by
# position, of the rows of the lower bounds of all and then of the upper ones (rows x features).
Note = Callable[[int, Tensor, dict[int, Tensor]], None]


def tighten(
    relaxed: Relaxed, position: int, known: Bounds, wanted: Tensor, ascent: Ascent, note: Note | None = None
) -> Bounds:
    """``known``, of the node at ``position`` (samples x shape), met with bounds by raised lines of the neurons that are
    ``wanted``. For a ``note``, of one sample, slopes are rounded to shares of 255. Where that is dear there are fewer
    steps than those of the ``ascent``, and of differences that are far more than what they are of there are none."""
    size = relaxed.network.nodes[position].size
    sample, feature = wanted.flatten(1).nonzero(as_tuple=True)
    if not (len(sample) and relaxed.lines) or differences.many(relaxed.network, position, sample, feature):
        return known
    here = replace(relaxed, bounds=[*relaxed.bounds, known])
    lowest, layer = [], Raising.of(here, position)
    ascent = _hurried(relaxed.network.nodes[: position + 1], 2 * len(sample), ascent)
    slopes: list[dict[int, Tensor]] | None = None if note is None else []
    other = partners(relaxed.network, position, sample, feature) if note is None else None
    sides = known.lower.new_tensor([1.0, -1.0] if other is None else [1.0])
    for part in chunks(here, len(sides) * len(sample), len(sides)):
        who, what = sample[part], feature[part]
        one = known.lower.new_zeros(len(who), len(sides), size)
        one[torch.arange(len(who), device=who.device), :, what] = sides
        rows_of = who.repeat_interleave(len(sides))
        lowest.append(layer.lower(one.flatten(0, 1), rows_of, ascent, slopes).view(-1, len(sides)))
    if note is not None and slopes:
        joined = {i: torch.cat([part[i] for part in slopes]) for i in slopes[0]}
        note(position, feature, {i: torch.cat([t[0::2], t[1::2]]) for i, t in joined.items()})
    lower, upper = known.lower.flatten(1), known.upper.flatten(1)
    # What overflowed adds nothing to what is known.
    least = torch.cat(lowest).nan_to_num(nan=-inf, posinf=-inf, neginf=-inf)
    below, above = least.T if other is None else (least[:, 0], least[other, 0])
    met = meet(lower[sample, feature], upper[sample, feature], below, -above)
    index = (sample, feature)
    return Bounds(*(t.index_put(index, new).view_as(known.lower) for t, new in zip((lower, upper), met, strict=True)))


def _hurried(nodes: Sequence[Node], rows: int, ascent: Ascent) -> Ascent:
    """How so many rows of the last of the nodes are raised."""
    products = rows * sum(terms(node.op) * node.size for node in nodes)
    return HURRIED if ascent.steps > HURRIED.steps and ascent.steps * products > DEAR else ascent


@dataclass(frozen=True, eq=False)
class Raising:
    """What is worked out once for all rows of the node at ``position``, up to which the network must be relaxed: the
    ``whole``, it without inactive neurons, and what lines are drafted on: the same in float32, or as ``kinks``."""

    whole: Relaxed
    relaxed: Relaxed
    draft: Relaxed | Kinks
    position: int

    @classmethod
    def of(cls, relaxed: Relaxed, position: int) -> Raising:
        """Work it out."""
        narrow = narrowed(relaxed, position)
        draft: Relaxed | Kinks | None = Kinks.of(narrow, position)
        if draft is None:
            draft = in_float32(narrow) if fits_float32(narrow.network) else narrow
        return cls(relaxed, narrow, draft, position)

    def lower(
        self, coef: Tensor, sample: Tensor, ascent: Ascent, slopes: list[dict[int, Tensor]] | None = None
    ) -> Tensor:
        """Lower bounds of rows, coef (rows x features), which belong to samples (rows): (rows).

        Lines are raised in float32; what counts is the bound by the last ones in the precision of the network. Those
        of which the ``slopes`` are asked, which are appended by block, are rounded to shares of 255.
        """
        if not len(coef):
            return coef.new_zeros(0)
        blocks = chunks(self.relaxed, len(coef), 1)
        return torch.cat([self._block(coef[block], sample[block], ascent, slopes) for block in blocks])

    def _block(self, coef: Tensor, sample: Tensor, ascent: Ascent, slopes: list[dict[int, Tensor]] | None) -> Tensor:
        here, draft = OwnRows.of(self.relaxed, {self.position: coef}, sample), self.draft
        if isinstance(draft, Kinks):
            found = draft.raised(coef, sample, ascent)
        else:
            found = climbed(OwnRows.of(draft, {self.position: coef}, sample), ascent)
        lines = dict(here.lines)
        for i, moved in found.items():
            shares = 0 if slopes is None else GRAINS
            lines[i] = in_other_precision(self.relaxed.network, moved, lines[i], here.operands[i], i, shares)
        if slopes is not None:
            slopes.append({i: self._widened(i, line.slope) for i, line in lines.items()})
        return here.region.minimum(here.charged(lines, self.relaxed.rounding, sample))

    def _widened(self, position: int, slope: Tensor) -> Tensor:
        """Slopes of the features that are left of an activation as those of all: (rows x features)."""
        upper = self.whole.operand(position).upper
        if slope.shape[1] == upper.shape[1]:
            return slope
        kept = (~(upper <= 0).all(0)).nonzero().flatten()  # see :func:`narrowed`
        return slope.new_zeros(len(slope), upper.shape[1]).index_copy(1, kept, slope)


def climbed(owners: OwnRows, ascent: Ascent) -> dict[int, Moving]:
    """Lines of rows that were raised, by position; each row's are left where it hardly rises any more."""
    climb = owners.climb(ascent)
    ends = {i: replace(layer, parameters=deepcopy(layer.parameters)) for i, layer in climb.free.items()}
    rows = torch.arange(len(owners), device=owners.region.centre.device)
    going = torch.ones_like(rows, dtype=torch.bool)
    first = last = owners.region.centre.new_full((len(rows),), -inf)
    for step in range(1, ascent.steps + 1):
        functions = climb.functions()
        if (step - 1) % PATIENCE == 0:
            bound = climb.region.minimum(functions)
            if step == 1:
                first = bound
            stopped = going & ~still_rising(first, last, bound)
            climb.leave(ends, stopped.nonzero().flatten(), rows)
            going, last = going & ~stopped, bound
            left = going.nonzero().flatten()
            if not len(left):
                return ends
            if len(left) <= FEWER * len(going):
                owners, rows, first, last = owners.take(left), rows[left], first[left], last[left]
                climb, functions = climb.take(left, owners.backward, owners.region), functions.take(left)
                going = going[left]
        climb.move(functions, step)
    climb.leave(ends, going.nonzero().flatten(), rows)
    return ends


@dataclass(frozen=True, eq=False)
class OwnRows:
    """Rows, each with lines of its own: the coefficients that they begin with, by position (rows x features), and what
    belongs to them of a relaxed network: the lines of activations and the bounds of their operands, by position (rows x
    features [x operands]); and their regions."""

    relaxed: Relaxed
    start: Mapping[int, Tensor]
    lines: dict[int, Lines]
    operands: dict[int, Bounds]
    region: Owned

    @classmethod
    def of(cls, relaxed: Relaxed, start: Mapping[int, Tensor], sample: Tensor) -> OwnRows:
        """Rows that belong to samples (rows), in the precision of the network."""
        lines = {i: lines.take(sample) for i, lines in relaxed.lines.items()}
        operands = {i: taken(relaxed.operand(i), sample) for i in relaxed.lines}
        region = Owned.of(relaxed, sample)
        start = {i: coef.to(region.centre) for i, coef in start.items()}
        return cls(relaxed, start, lines, operands, region)

    def __len__(self) -> int:
        return len(self.region.centre)

    def take(self, rows: Tensor) -> OwnRows:
        """The rows at the positions ``rows`` (kept rows), with no more than what their way down asks for."""
        region = self.region.take(rows)
        start = {i: coef.index_select(0, rows) for i, coef in self.start.items()}
        nodes = self.relaxed.network.nodes
        operands = {i: taken(z, rows) for i, z in self.operands.items() if sums_to_one(nodes[i])}
        return replace(self, start=start, lines={}, operands=operands, region=region)

    def climb(self, ascent: Ascent) -> Climb:
        """The rows with these lines, to be raised."""
        return Climb(self.relaxed.network, self.backward, self.region, self.lines, self.operands, ascent)

    def backward(self, lines: Mapping[int, Lines], seen: dict[int, Tensor]) -> Functions:
        """See :data:`assay.verify.bounds.optimised.slopes.Backward`."""
        nodes, operand = self.relaxed.network.nodes, self.operands.__getitem__
        return self._down(RowRules(nodes, lines.__getitem__, self.relaxed.budget, seen, operand))

    def charged(self, lines: Mapping[int, Lines], rounding: Rounding | None, sample: Tensor) -> Functions:
        """The same functions less what ``rounding`` takes of each row, of the samples that rows belong to (rows); None
        takes nothing.

        Rows are charged where they meet activations, and where they begin: what coefficients came to there is known,
        which over many layers is far less than what they could.
        """
        if rounding is None:
            return self.backward(lines, {})
        nodes = self.relaxed.network.nodes
        own = rounding.of_rows(sample, {*self.start, *(nodes[i].inputs[0] for i in lines)})

        def apart(position: int) -> Lines:
            return lines[position].apart(own.at(position, lines[position], self.operands[position]))

        functions = self._down(RowRules(nodes, apart, self.relaxed.budget, operand=self.operands.__getitem__))
        # Rows of an activation are charged when they go through it.
        dust = own.precision.dust
        begun = (rows.charge(c, own.lost[i].flatten(1), dust) for i, c in self.start.items() if i not in lines)
        return Functions(functions.coef, functions.constant - sum(begun, dust))

    def _down(self, rules: RowRules) -> Functions:
        nodes, nothing = self.relaxed.network.nodes, self.region.centre.new_zeros(len(self))
        resting, total = propagate_backwards(nodes, rules, {i: Part(c) for i, c in self.start.items()}, nothing)
        size = nodes[0].size
        return Functions(resting[0].dense(size) if 0 in resting else nothing.new_zeros(len(self), size), total)


def in_float32(relaxed: Relaxed) -> Relaxed:
    """The same in float32, for what proves nothing."""
    bounds = [Bounds(b.lower.float(), b.upper.float()) for b in relaxed.bounds]
    network = relaxed.network.to(torch.float32, bounds[0].lower.device)
    return replace(Relaxed.over(network, bounds), region=relaxed.region, budget=relaxed.budget)


def of_samples(ball: LpBall, sample: Tensor) -> LpBall:
    """A batch of the balls of the samples at the positions ``sample`` (rows), one a row."""
    eps = torch.as_tensor(ball.eps)
    return LpBall(ball.centre[sample], eps[sample] if eps.dim() else ball.eps, ball.p, ball.domain)


def chunks(relaxed: Relaxed, count: int, least: int, besides: int = 0) -> Iterator[slice]:
    """Slices of ``count`` rows over ``least``, as many as memory allows; ``besides``: numbers that a row needs beside
    those of the neurons."""
    each = TABLES * sum(node.size for node in relaxed.network.nodes[: len(relaxed.bounds)]) + besides
    affordable = relaxed.budget.memory // (each * relaxed.bounds[0].lower.element_size())
    most = max(1, min(MOST, affordable) // least)
    return (slice(begin, begin + most) for begin in range(0, count // least, most))
