"""Rows bounded with lines of their own, raised by gradient ascent: those of a specification, or of a layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor

from assay.verify.bounds import rows
from assay.verify.bounds.affine import Part
from assay.verify.bounds.layers import meet
from assay.verify.bounds.narrow import narrowed
from assay.verify.bounds.relax import Lines
from assay.verify.bounds.relaxed import Relaxed, fits_float32, middle_and_radius
from assay.verify.bounds.rows import RowRules, over_ball
from assay.verify.bounds.slopes import Ascent, Climb, Functions, in_other_precision
from assay.verify.bounds.walk import propagate_backwards
from assay.verify.core.budget import Expired
from assay.verify.core.region import LpBall
from assay.verify.core.verifier import Bounds
from assay.verify.support.floats import length

MOST = 512  # rows at a time
TABLES = 16  # numbers that are kept for each neuron of a row while its lines are raised


@dataclass(frozen=True, eq=False)
class Owned:
    """The regions of the samples that rows belong to: centre and radius of the box (rows x inputs), and the ball if
    it is one."""

    centre: Tensor
    radius: Tensor
    ball: LpBall | None

    def minimum(self, functions: Functions) -> Tensor:
        """See :class:`assay.verify.bounds.slopes.Region`."""
        coef = functions.coef
        lowest: Tensor = torch.linalg.vecdot(coef, self.centre) - torch.linalg.vecdot(coef.abs(), self.radius)
        if self.ball is not None:
            lowest = torch.maximum(lowest, over_ball(coef[:, None], self.ball))
        return functions.constant + lowest

    def minimiser(self, functions: Functions) -> Tensor:
        """See :class:`assay.verify.bounds.slopes.Region`."""
        coef = functions.coef
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
    result (samples x rows). None is below that of :func:`assay.verify.bounds.rows.lower_rows`, which is what there is
    when the time is over before the lines are raised."""
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


def tighten(relaxed: Relaxed, position: int, known: Bounds, wanted: Tensor, ascent: Ascent) -> Bounds:
    """``known``, of the node at ``position`` (samples x shape), met with bounds by raised lines of the neurons that are
    ``wanted``."""
    size = relaxed.network.nodes[position].size
    sample, feature = wanted.flatten(1).nonzero(as_tuple=True)
    if not len(sample):
        return known
    here = replace(relaxed, bounds=[*relaxed.bounds, known])
    lowest, layer = [], Raising.of(here, position)
    for part in _chunks(here, 2 * len(sample), 2):
        who, what = sample[part], feature[part]
        one = known.lower.new_zeros(len(who), 2, size)
        one[torch.arange(len(who)), 0, what] = 1.0
        one[torch.arange(len(who)), 1, what] = -1.0
        lowest.append(layer.lower(one.flatten(0, 1), who.repeat_interleave(2), ascent).view(-1, 2))
    lower, upper = known.lower.flatten(1), known.upper.flatten(1)
    # What overflowed adds nothing to what is known.
    below, above = torch.cat(lowest).nan_to_num(nan=-inf, posinf=-inf, neginf=-inf).T
    met = meet(lower[sample, feature], upper[sample, feature], below, -above)
    index = (sample, feature)
    return Bounds(*(t.index_put(index, new).view_as(known.lower) for t, new in zip((lower, upper), met, strict=True)))


@dataclass(frozen=True, eq=False)
class Raising:
    """What is worked out once for all rows of the node at ``position``, up to which the network must be relaxed: it
    without inactive neurons, the same in float32, and what rounding takes (samples x features)."""

    relaxed: Relaxed
    draft: Relaxed
    position: int
    error: Tensor
    dust: float

    @classmethod
    def of(cls, relaxed: Relaxed, position: int) -> Raising:
        """Work it out."""
        assert relaxed.rounding is not None
        narrow = narrowed(relaxed, position)
        draft = _in_float32(narrow) if fits_float32(narrow.network) else narrow
        error = relaxed.rounding.anyhow(relaxed.bounds)[position].flatten(1)
        return cls(narrow, draft, position, error, relaxed.rounding.precision.dust)

    def lower(self, coef: Tensor, sample: Tensor, ascent: Ascent) -> Tensor:
        """Lower bounds of rows, coef (rows x features), which belong to samples (rows): (rows).

        Lines are raised in float32; what counts is the bound by the last ones in the precision of the network.
        """
        if not len(coef):
            return coef.new_zeros(0)
        blocks = _chunks(self.relaxed, len(coef), 1)
        bounds = torch.cat([self._block(coef[block], sample[block], ascent) for block in blocks])
        lost: Tensor = torch.linalg.vecdot(coef.abs(), self.error.index_select(0, sample))
        return bounds - lost - self.dust

    def _block(self, coef: Tensor, sample: Tensor, ascent: Ascent) -> Tensor:
        networks = (self.draft, self.relaxed)
        trial, here = (_Owners.of(r, self.position, coef.to(r.bounds[0].lower), sample) for r in networks)
        climb = Climb(self.draft.network, trial.backward, trial.region, trial.lines, trial.operands, ascent)
        for step in range(1, ascent.steps + 1):
            climb.move(climb.functions(), step)
        lines = dict(here.lines)
        for i, moved in climb.free.items():
            lines[i] = in_other_precision(self.relaxed.network, moved.parameters, lines[i], here.operands[i], i)
        return here.region.minimum(here.backward(lines, {}))


@dataclass(frozen=True, eq=False)
class _Owners:
    """Rows of a node, coef (rows x features), and what belongs to them of a relaxed network, by position: the lines of
    activations and the bounds of their operands, (rows x features [x operands]); and their regions."""

    relaxed: Relaxed
    position: int
    coef: Tensor
    lines: dict[int, Lines]
    operands: dict[int, Bounds]
    region: Owned

    @classmethod
    def of(cls, relaxed: Relaxed, position: int, coef: Tensor, sample: Tensor) -> _Owners:
        lines = {i: lines.take(sample) for i, lines in relaxed.lines.items()}
        operands = {i: _picked(relaxed.operand(i), sample) for i in relaxed.lines}
        box = Bounds(*(t.flatten(1) for t in (relaxed.bounds[0].lower, relaxed.bounds[0].upper)))
        ball = None if relaxed.ball is None else _of_samples(relaxed.ball, sample)
        centre, radius = (t.index_select(0, sample) for t in middle_and_radius(box))
        return cls(relaxed, position, coef, lines, operands, Owned(centre, radius, ball))

    def backward(self, lines: Mapping[int, Lines], seen: dict[int, Tensor]) -> Functions:
        """See :data:`assay.verify.bounds.slopes.Backward`."""
        nodes, coef = self.relaxed.network.nodes, self.coef
        rules = RowRules(nodes, lines, self.relaxed.budget, seen=seen)
        resting, total = propagate_backwards(nodes, rules, {self.position: Part(coef)}, coef.new_zeros(len(coef)))
        size = nodes[0].size
        return Functions(resting[0].dense(size) if 0 in resting else coef.new_zeros(len(coef), size), total)


def _in_float32(relaxed: Relaxed) -> Relaxed:
    """The same in float32, for what proves nothing."""
    bounds = [Bounds(b.lower.float(), b.upper.float()) for b in relaxed.bounds]
    return replace(
        Relaxed.over(relaxed.network.to(torch.float32), bounds), region=relaxed.region, budget=relaxed.budget
    )


def _picked(bounds: Bounds, sample: Tensor) -> Bounds:
    return Bounds(bounds.lower.index_select(0, sample), bounds.upper.index_select(0, sample))


def _of_samples(ball: LpBall, sample: Tensor) -> LpBall:
    eps = torch.as_tensor(ball.eps)
    return LpBall(ball.centre[sample], eps[sample] if eps.dim() else ball.eps, ball.p, ball.domain)


def _chunks(relaxed: Relaxed, count: int, least: int) -> Iterator[slice]:
    """Slices of ``count`` rows over ``least``, as many as memory allows."""
    each = TABLES * sum(node.size for node in relaxed.network.nodes[: len(relaxed.bounds)])
    affordable = relaxed.budget.memory // (each * relaxed.bounds[0].lower.element_size())
    most = max(1, min(MOST, affordable) // least)
    return (slice(begin, begin + most) for begin in range(0, count // least, most))
