"""Rows over l2 balls whose sectors are raised by gradient ascent, one set of them a row.

About an activation with a kink, any slope a and any width t >= 0 make a bound on an interval [l, u] about the value c
at the centre: ``act(z) <= act(c) + a (z - c) + t |z - c| + s``, with s the most that the rest misses, which it does at
l, at u or at the kink; below likewise. With t = 0 these are the lines of CROWN; at the least t for which s is 0 they
are the sector. The row loses ``|coef| s``, and t as it strays (see :mod:`sectors`). Moved are a and the share of that
least width that t is; s follows.

A row's bound is smooth but for corners, and its derivatives need no recording: with x* the point ``x0 - eps (v + sum_q
sign(J_q v) T_q J_q) / L``, L the length of the longest sum, and ``D_q = -dB/dt_q`` how far the operand q strays for its
price, the derivative by a coefficient c_q is ``act(c) + a (z_q - c) -+ (t D_q + s)``, z_q what arrives at q of x* along
such lines.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from assay.verify.bounds.backward.rows import weighed
from assay.verify.bounds.balls.sectors import Sectors, Strays
from assay.verify.bounds.optimised.slopes import Ascent, ascend, at_rest, values_on_lines
from assay.verify.bounds.relaxations.lines import Lines
from assay.verify.core.budget import Expired
from assay.verify.core.ops import LeakyRelu, Op, Relu, evaluate
from assay.verify.core.verifier import Bounds
from assay.verify.support.floats import gamma

SAME = 1e-9  # numbers whose relative difference is smaller are one


@dataclass(frozen=True, eq=False)
class Width:
    """Of lines: the ``width`` t, and what of the activation is ``missed`` beside it (s), which has the derivatives
    ``-miss_turn`` by the slope and ``-miss_span`` by the width; the ``full`` width, and ``turn``, its derivative by the
    slope. Where several points decide, derivatives are means: last digits decide nothing."""

    width: Tensor
    missed: Tensor
    miss_turn: Tensor
    miss_span: Tensor
    full: Tensor
    turn: Tensor


@dataclass(eq=False)
class Cones:
    """The lines and widths of one activation, a row's own ones (samples x rows x neurons that are no lines).

    ``at``, ``value``: of the operand and the activation at the centre; ``steps``, ``rises``: from there to the ends of
    the interval and the kink, and what the activation rises by on the way (3 x samples x 1 x neurons); ``slope``, and
    ``share`` of the full width; ``steep``: least and largest slope; ``movable``: 0 where there is nothing to move;
    ``far``: how far operands stray for their price, of the rows as they were last.
    """

    part: Strays
    at: Tensor
    value: Tensor
    steps: Tensor
    rises: Tensor
    slope: Tensor
    share: Tensor
    steep: tuple[float, float]
    movable: Tensor
    far: Tensor

    @classmethod
    def of(cls, op: Op, part: Strays, z: Bounds, coef: Tensor) -> Cones:
        """Those of the sector, for coefficients (samples x rows x neurons); z: (samples x features)."""
        lines, at = part.sector.lines, part.own(part.sector.at)
        slope = torch.where(coef > 0, part.own(lines.slope), part.own(lines.slope + lines.slope_gap))
        low, high = (part.own(side) for side in (z.lower, z.upper))
        ends = torch.stack([low, torch.zeros_like(low).clamp(low, high), high])
        left = op.slope if isinstance(op, LeakyRelu) else 0.0
        kinked = isinstance(op, (Relu, LeakyRelu))
        movable = part.own(part.sector.radius > 0).to(slope) * float(kinked)
        value = evaluate(op, at)
        steep = min(left, 1.0), max(left, 1.0)
        rises = evaluate(op, ends) - value
        return cls(part, at, value, ends - at, rises, slope, torch.ones_like(slope), steep, movable, 0 * slope)

    def widths(self, coef: Tensor) -> Width:
        """Of the lines on the side that each coefficient takes: of the shape of ``coef``. Sectors that are not movable
        are as they are."""
        side, spans = torch.where(coef > 0, -1.0, 1.0).to(coef), self.steps.abs()
        gaps = side * (self.rises - self.slope * self.steps)
        needed = torch.where(spans == 0, 0.0, gaps / spans).clamp(min=0)
        full = needed.amax(0)
        turn = _mean(-side * self.steps.sign(), needed, full)
        own = self.part.sector
        fixed = torch.where(coef > 0, self.part.own(own.below), self.part.own(own.above))
        width = torch.where(self.movable > 0, self.share * full, fixed)
        missing = (gaps - width * spans).clamp(min=0)
        missed = missing.amax(0)
        # What is missed by rounding alone has no derivative.
        decisive = torch.where(missing > SAME * gaps.abs().amax(0), missing, 0.0)
        turned, spanned = (_mean(step, decisive, decisive.amax(0)) for step in (side * self.steps, spans))
        return Width(width, missed * self.movable, turned, spanned, full, turn)

    def rounded(self) -> Tensor:
        """More than what rounding makes of :meth:`widths`, and of their sums over all neurons, a unit of coefficient:
        (samples x 1 x neurons)."""
        sizes = self.rises.abs().amax(0) + 4 * max(self.steep) * self.steps.abs().amax(0) + self.value.abs()
        return 8 * gamma(self.steps.shape[-1] + 64) * sizes * self.movable

    def gradient(self, coef: Tensor, z: Tensor) -> list[Tensor]:
        """See :class:`assay.verify.bounds.optimised.slopes.Parameters`."""
        now, size = self.widths(coef), coef.abs()
        by_width = size * (now.miss_span - self.far)
        by_slope = coef * (z - self.at) + size * now.miss_turn + by_width * self.share * now.turn
        return [by_slope * self.movable, by_width * now.full * self.movable]

    def tensors(self) -> list[Tensor]:
        """See :class:`assay.verify.bounds.optimised.slopes.Parameters`."""
        return [self.slope, self.share]

    def keep(self) -> None:
        """See :class:`assay.verify.bounds.optimised.slopes.Parameters`."""
        self.slope.copy_(torch.where(self.movable > 0, self.slope.clamp(*self.steep), self.slope))
        self.share.clamp_(0.0, 1.0)

    def lines(self, offset: Tensor | float = 0.0) -> Lines:
        """The lines, and those of all other neurons, less ``offset`` (samples x rows x neurons): (samples * rows x
        features)."""
        rows, lines, index = self.slope.shape[1], self.part.sector.lines, self.part.index
        index = index[:, None].expand(-1, rows, -1)
        intercept = torch.zeros_like(lines.slope) if lines.intercept is None else lines.intercept

        def spread(of_all: Tensor, own: Tensor) -> Tensor:
            return of_all[:, None].repeat(1, rows, 1).scatter_(2, index, own).flatten(0, 1)

        slope = spread(lines.slope, self.slope)
        none = torch.zeros_like(slope)
        return Lines(slope, none, none, spread(intercept, self.value - self.slope * self.at - offset))


def _mean(values: Tensor, weights: Tensor, most: Tensor) -> Tensor:
    """The mean of values (3 x ...) where the weights are the ``most``, up to rounding; 0 where that is 0."""
    top = ((weights >= (1 - SAME) * most) & (most > 0)).to(values)
    return (values * top).sum(0) / top.sum(0).clamp(min=1)


@dataclass(frozen=True, eq=False)
class Standing:
    """Rows as their sectors are now: their ``bound`` (samples x rows), ``slope`` (samples x rows x inputs), the
    coefficients ``seen`` at activations and the ``widths`` that these weigh, by position (samples x rows x neurons),
    and those at all features, ``arrived`` (samples * rows x features)."""

    bound: Tensor
    slope: Tensor
    seen: dict[int, Tensor]
    widths: dict[int, Tensor]
    arrived: dict[int, Tensor]


class Climb:
    """The rows (samples x rows x outputs) of a network's output, and their sectors on the way up."""

    def __init__(self, sectors: Sectors, rows: Tensor, ascent: Ascent) -> None:
        sectors.advance()
        self.sectors, self.rows, self.ascent = sectors, rows, ascent
        self.position = len(sectors.relaxed.network.nodes) - 1
        nodes = sectors.relaxed.network.nodes
        start = {i: part.sector.lines for i, part in sectors.strays.items()}
        seen = sectors.backward(self.position, rows, start)[2]
        self.cones = {
            i: Cones.of(nodes[i].op, sectors.strays[i], sectors.relaxed.operand(i), sectors.strays[i].gather(seen[i]))
            for i in seen
        }
        self.moments = {i: at_rest(cone.tensors()) for i, cone in self.cones.items()}

    def stand(self) -> Standing:
        """Bound the rows. Raises :class:`assay.verify.core.budget.Expired` when the time is over."""
        lines = {i: cone.lines() for i, cone in self.cones.items()}
        constant, slope, arrived = self.sectors.backward(self.position, self.rows, lines)
        lost = self.sectors.lost(self.position, self.rows)
        seen, widths = {}, {}
        for i, coef in arrived.items():
            cone, part = self.cones[i], self.sectors.strays[i]
            seen[i] = part.gather(coef)
            size, now = seen[i].abs(), cone.widths(seen[i])
            lost = lost + weighed(coef.abs(), part.sector.error).view(lost.shape)
            lost = lost + (size * (now.missed + cone.rounded())).sum(2)
            widths[i] = size * now.width
        widths = self.sectors.spilt(widths)
        for i, width in widths.items():
            lost = lost + (width * self.sectors.strays[i].error[:, None]).sum(2)
        flat = {i: coef.flatten(0, 1) for i, coef in arrived.items()}
        return Standing(constant + self.sectors.over_ball(slope, widths) - lost, slope, seen, widths, flat)

    def move(self, standing: Standing, step: int) -> None:
        """One step of the ascent, from where the rows stand."""
        gradients = self.gradients(standing)
        for i, (coef, z) in gradients.items():
            cone = self.cones[i]
            for tensor, gradient, moments in zip(cone.tensors(), cone.gradient(coef, z), self.moments[i], strict=True):
                ascend(tensor, gradient, moments, self.ascent, step)
            cone.keep()

    def gradients(self, standing: Standing) -> dict[int, tuple[Tensor, Tensor]]:
        """What derivatives are made of, by position: the coefficients at the activations, and what arrives at their
        operands of the point at which rows are least (samples x rows x neurons). Notes how far operands stray."""
        network = self.sectors.relaxed.network
        point, far = self.sectors.least_at(standing.slope, standing.widths)
        lines = {}
        for i, cone in self.cones.items():
            coef = standing.seen.get(i, 0 * cone.slope)
            cone.far = far[i]
            now = cone.widths(coef)
            lines[i] = cone.lines(coef.sign() * (now.width * cone.far + now.missed))
        values = values_on_lines(network, lines, point.flatten(0, 1), standing.arrived)
        shape = standing.bound.shape
        return {
            i: (coef, self.sectors.strays[i].gather(values[network.nodes[i].inputs[0]].view(*shape, -1)))
            for i, coef in standing.seen.items()
        }


def lower_rows(sectors: Sectors, objective: Tensor, ascent: Ascent) -> Tensor:
    """Lower bounds of ``objective @ output``, objective (samples x rows x outputs), by the best sectors on the way,
    those that it begins with among them: (samples x rows). Raises :class:`assay.verify.core.budget.Expired` when the
    time is over before the first bounds are there; later it is content with these."""
    return torch.cat([_block(Climb(sectors, objective[:, block], ascent)) for block in sectors.blocks(objective)], 1)


def _block(climb: Climb) -> Tensor:
    standing = climb.stand()
    best = standing.bound
    for step in range(1, climb.ascent.steps + 1):
        try:
            climb.move(standing, step)
            standing = climb.stand()
        except Expired:
            break
        best = torch.fmax(best, standing.bound)
    return best
