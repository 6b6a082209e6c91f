"""Rows bounded with lines of their own, raised by gradient ascent: those of a specification, or of a layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from assay.verify.bounds import rounding, rows
from assay.verify.bounds.affine import Part
from assay.verify.bounds.layers import meet
from assay.verify.bounds.relax import Lines
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.bounds.rows import RowRules, least, over_ball
from assay.verify.bounds.slopes import Ascent, Functions, raise_lines
from assay.verify.bounds.walk import propagate_backwards
from assay.verify.core.region import LpBall
from assay.verify.core.verifier import Bounds
from assay.verify.support.floats import length

TABLES = 16  # numbers that are kept for each neuron of a row while its lines are raised


@dataclass(frozen=True, eq=False)
class Owned:
    """The regions of the samples that rows belong to: ``box`` (rows x inputs), and the ball if it is one."""

    box: Bounds
    ball: LpBall | None

    def minimum(self, functions: Functions) -> Tensor:
        """See :class:`assay.verify.bounds.slopes.Region`."""
        coef = functions.coef[:, None]
        lowest = least(coef, self.box)
        if self.ball is not None:
            lowest = torch.maximum(lowest, over_ball(coef, self.ball))
        return functions.constant + lowest

    def minimiser(self, functions: Functions) -> Tensor:
        """See :class:`assay.verify.bounds.slopes.Region`."""
        corner = torch.where(functions.coef > 0, self.box.lower, self.box.upper)
        if self.ball is None:
            return corner
        coef = functions.coef[:, None]
        nearer = over_ball(coef, self.ball) > least(coef, self.box)
        return torch.where(nearer[:, None], _on_ball(functions.coef, self.ball), corner)


def _on_ball(coef: Tensor, ball: LpBall) -> Tensor:
    """Where linear functions (rows x inputs) are least over an l1 or l2 ball each."""
    centre, eps = ball.centre.flatten(1).to(coef), torch.as_tensor(ball.eps).to(coef).reshape(-1, 1)
    if ball.p == 2:
        return centre - eps * coef / length(coef, 2, keepdim=True).clamp(min=torch.finfo(coef.dtype).tiny)
    steepest = coef.abs().argmax(1, keepdim=True)
    return centre.scatter_add(1, steepest, -eps * coef.gather(1, steepest).sign())


def lower_rows(relaxed: Relaxed, objective: Tensor, ascent: Ascent) -> Tensor:
    """Lower bounds of ``objective @ output``, each row with lines of its own: objective (samples x rows x outputs),
    result (samples x rows). None is below that of :func:`assay.verify.bounds.rows.lower_rows`."""
    samples, count, outputs = objective.shape
    plain = rows.lower_rows(relaxed, objective, linear=True)
    sample = torch.arange(samples, device=plain.device).repeat_interleave(count)
    coef = objective.reshape(-1, outputs).to(plain)
    last = len(relaxed.network.nodes) - 1
    return torch.maximum(plain, raised(relaxed, last, coef, sample, ascent).view(samples, count))


def tighten(relaxed: Relaxed, position: int, known: Bounds, wanted: Tensor, ascent: Ascent) -> Bounds:
    """``known``, of the node at ``position`` (samples x shape), met with bounds by raised lines of the neurons that are
    ``wanted``."""
    size = relaxed.network.nodes[position].size
    sample, feature = wanted.flatten(1).nonzero(as_tuple=True)
    if not len(sample):
        return known
    here = replace(relaxed, bounds=[*relaxed.bounds, known])
    lowest = []
    for part in _chunks(here, 2 * len(sample), 2):
        who, what = sample[part], feature[part]
        one = known.lower.new_zeros(len(who), 2, size)
        one[torch.arange(len(who)), 0, what] = 1.0
        one[torch.arange(len(who)), 1, what] = -1.0
        lowest.append(raised(here, position, one.flatten(0, 1), who.repeat_interleave(2), ascent).view(-1, 2))
    lower, upper = known.lower.flatten(1), known.upper.flatten(1)
    below, above = torch.cat(lowest).T
    met = meet(lower[sample, feature], upper[sample, feature], below, -above)
    index = (sample, feature)
    return Bounds(*(t.index_put(index, new).view_as(known.lower) for t, new in zip((lower, upper), met, strict=True)))


def raised(relaxed: Relaxed, position: int, coef: Tensor, sample: Tensor, ascent: Ascent) -> Tensor:
    """Lower bounds of rows of the node at ``position``, coef (rows x features), which belong to samples (rows): (rows).

    The network must be relaxed up to the node.
    """
    bounds = torch.cat([_block(relaxed, position, coef[b], sample[b], ascent) for b in _chunks(relaxed, len(coef), 1)])
    if relaxed.rounding is None:
        return bounds
    error = relaxed.rounding.anyhow(relaxed.bounds)[position].flatten(1)
    lost: Tensor = torch.linalg.vecdot(coef.abs(), error.index_select(0, sample))
    return bounds - lost - rounding.DUST


def _block(relaxed: Relaxed, position: int, coef: Tensor, sample: Tensor, ascent: Ascent) -> Tensor:
    nodes = relaxed.network.nodes[: position + 1]

    def backward(lines: Mapping[int, Lines], seen: dict[int, Tensor]) -> Functions:
        rules = RowRules(nodes, lines, relaxed.budget, seen=seen)
        resting, total = propagate_backwards(nodes, rules, {position: Part(coef)}, coef.new_zeros(len(coef)))
        size = nodes[0].size
        return Functions(resting[0].dense(size) if 0 in resting else coef.new_zeros(len(coef), size), total)

    below = [i for i in relaxed.lines if i <= position]
    lines = {i: relaxed.lines[i].take(sample) for i in below}
    operands = {i: _picked(relaxed.operand(i), sample) for i in below}
    ball = relaxed.ball
    owned = Owned(
        _picked(Bounds(*(t.flatten(1) for t in (relaxed.bounds[0].lower, relaxed.bounds[0].upper))), sample),
        None if ball is None else _of_samples(ball, sample),
    )
    return raise_lines(replace(relaxed.network, nodes=nodes), backward, owned, lines, operands, ascent).bound


def _picked(bounds: Bounds, sample: Tensor) -> Bounds:
    return Bounds(bounds.lower.index_select(0, sample), bounds.upper.index_select(0, sample))


def _of_samples(ball: LpBall, sample: Tensor) -> LpBall:
    eps = torch.as_tensor(ball.eps)
    return LpBall(ball.centre[sample], eps[sample] if eps.dim() else ball.eps, ball.p, ball.domain)


def _chunks(relaxed: Relaxed, count: int, least: int) -> Iterator[slice]:
    """Slices of ``count`` rows over ``least``, as many as memory allows."""
    each = TABLES * sum(node.size for node in relaxed.network.nodes[: len(relaxed.bounds)])
    most = max(1, relaxed.budget.memory // (each * relaxed.bounds[0].lower.element_size()) // least)
    return (slice(begin, begin + most) for begin in range(0, count // least, most))
