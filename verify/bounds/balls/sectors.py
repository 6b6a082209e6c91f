"""Activations over l2 balls as sectors about their values at the centre, bounded with the ball as one.

Let ``Y = z(x) - z(x0)`` be how far an operand is from its value at the centre x0. An activation is a line through its
value at the centre, wrong by at most ``t |Y|``. A row taken backwards along such lines is linear in ``d = x - x0``,
less a sum of ``t_q |Y_q|`` over the neurons that are no lines themselves. A neuron's own ``Y_q`` taken backwards, along
lines of the middle slopes of the secants from the centre, is ``J_q d``, off by at most ``sum_p |C_qp| r_p |Y_p|``: C
are the coefficients that arrive at the activations p on the way, and r is half the range of their secants. Put in from
above, this leaves ``v d - sum_q T_q |J_q d|`` with ``T_p = t_p + sum_q T_q |C_qp| r_p``, which over the ball of radius
eps is at least ``-eps |v + sum_q e_q T_q J_q|`` for some e_q in [-1, 1], and

    |v + sum_q e_q T_q J_q|^2 <= |v|^2 + 2 sum_q T_q |J_q v| + sum_qp T_q T_p |J_q J_p|.

A layer so shares one multiplier, that of the ball, as in SDP-CROWN (Chiu et al. 2025, arXiv:2506.06665), and
shares it with the linear part and with all other layers: what the linear part does not point at costs little. A ball
about each layer's operands that knows of no directions would add up lengths where this adds up squares. The sectors are
those of the derivatives' zonotopes (Jordan and Dimakis 2021, arXiv:2107.02732), the half of each that is convex being a
line here.

Rounding: coefficients, once computed, are exact numbers whose lines are followed; what their products lose is charged
as for all rows (:mod:`rounding`), for rows of neurons twice, since Y is a difference of two values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import singledispatch

import torch
from torch import Tensor

from assay.verify.bounds import layers, rigorous
from assay.verify.bounds.backward.affine import Part
from assay.verify.bounds.backward.rows import RowRules, charge, weighed
from assay.verify.bounds.backward.walk import propagate_backwards
from assay.verify.bounds.relaxations.lines import Lines
from assay.verify.bounds.relaxations.relax import feeds, relaxes, undecided_by_any
from assay.verify.bounds.relaxations.secants import secants
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.core.budget import Budget, Expired
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.network import Network
from assay.verify.core.ops import LeakyRelu, Op, Relu, Smooth, evaluate
from assay.verify.core.region import Box, LpBall, Region, take
from assay.verify.core.roundings import noise
from assay.verify.core.verifier import Bounds
from assay.verify.support.floats import UNIT, gamma, length, up

MOST = 1 << 25  # numbers that are held at once, for all samples
TABLES = 8  # numbers that live at once for each neuron of a row on its way


@dataclass(frozen=True, eq=False)
class Sector:
    """An activation over an interval about its value at the centre, next to ``at``: all (samples x features).

    Where z is ``Y`` off its value at the centre, the activation is at least the lower one of ``lines`` less ``below *
    |Y|``, and at most the upper one plus ``above * |Y|``; both up to ``error``, since the value at the centre is known
    up to rounding. Secants from the centre have slopes within ``radius`` of ``middle``.
    """

    lines: Lines
    at: Tensor
    below: Tensor
    above: Tensor
    middle: Tensor
    radius: Tensor
    error: Tensor


@singledispatch
def sector(op: Op, z: Bounds, point: Bounds) -> Sector:
    """The sector of ``op`` over an interval ``z`` that holds the one about its operand at the centre, ``point``: each
    (samples x features), float64."""
    raise UnsupportedError(f"operation {op.label} has no sector")


@sector.register(Relu)
@sector.register(LeakyRelu)
def _(op: Relu | LeakyRelu, z: Bounds, point: Bounds) -> Sector:
    """On the convex side the line is the tangent at the centre, of which nothing is off."""
    left = op.slope if isinstance(op, LeakyRelu) else 0.0
    one = torch.ones_like(z.lower)
    slopes = secants(op, z, point)
    stable = (z.lower >= 0) | (z.upper <= 0)  # what touches 0, too
    sure = torch.where(z.lower >= 0, one, left * one)
    slopes = Bounds(torch.where(stable, sure, slopes.lower), torch.where(stable, sure, slopes.upper))
    tangent = torch.where(stable, sure, torch.where(_middle(point, z) > 0, one, left * one))
    if left <= 1:
        return _about(op, z, point, slopes, below=tangent)
    return _about(op, z, point, slopes, above=tangent)


@sector.register
def _(op: Smooth, z: Bounds, point: Bounds) -> Sector:
    return _about(op, z, point, secants(op, z, point))


def _about(
    op: Op, z: Bounds, point: Bounds, slopes: Bounds, below: Tensor | None = None, above: Tensor | None = None
) -> Sector:
    """The sector with secants of such ``slopes``; ``below``, ``above``: slopes of tangents that hold by themselves."""
    middle = torch.lerp(slopes.lower, slopes.upper, 0.5)
    radius = torch.maximum(slopes.upper - middle, middle - slopes.lower) * (1 + 4 * UNIT)
    none = torch.zeros_like(radius)
    at = _middle(point, z)
    value = evaluate(op, at)
    lower, upper = (middle if tangent is None else tangent for tangent in (below, above))
    intercept = value - lower * at
    lines = Lines(lower, upper - lower, (value - upper * at) - intercept, intercept)
    far = up(torch.maximum(point.upper - at, at - point.lower))
    steepest = torch.maximum(slopes.lower.abs(), slopes.upper.abs())
    steepest = torch.maximum(steepest, torch.maximum(lower.abs(), upper.abs()))
    # The value at the centre for its value at ``at``, and what the library makes of a curve and the lines of numbers.
    size = noise(op, at, at, value.abs()) + steepest * at.abs()
    error = 2 * steepest * far + 64 * UNIT * size * (radius > 0)
    return Sector(
        lines,
        at,
        radius if below is None else none,
        radius if above is None else none,
        middle,
        radius,
        torch.where(radius > 0, error, none),
    )


def _middle(point: Bounds, z: Bounds) -> Tensor:
    """Next to the value at the centre, within the interval."""
    middle = torch.lerp(point.lower, point.upper, 0.5)
    return torch.minimum(torch.maximum(middle, z.lower), z.upper)


@dataclass(frozen=True, eq=False)
class Strays:
    """The neurons of one activation that are no lines (samples x neurons): their ``index`` among its features, the
    ``sector`` of all of them, and how far their operands stray from their values at the centre: along ``direction``
    (samples x neurons x inputs), of length 1, at most ``reach`` times the step of the input; by what ``spills`` over
    from each activation below, by position (samples x neurons x neurons there); and by ``error``. ``aligned``:
    magnitudes of the products of directions with those of this activation and all below, in order of position.
    """

    sector: Sector
    index: Tensor
    direction: Tensor
    reach: Tensor
    spills: Mapping[int, Tensor]
    error: Tensor
    aligned: Tensor

    def gather(self, values: Tensor) -> Tensor:
        """What belongs to the neurons, of (samples x rows x features): (samples x rows x neurons)."""
        return values.gather(2, self.index[:, None].expand(-1, values.shape[1], -1))

    def own(self, values: Tensor) -> Tensor:
        """What belongs to the neurons, of (samples x features): (samples x 1 x neurons)."""
        return values.gather(1, self.index)[:, None]


def sectored(network: Network, region: Region) -> bool:
    """Whether rows can be bounded here: the region is a ball in l2, and every activation has a sector."""
    rules = {node.op for node in network.nodes if relaxes(node.op)}
    ball = isinstance(region, LpBall) and region.p == 2
    return ball and all(sector.dispatch(type(op)) is not sector.dispatch(object) for op in rules)


def lower_rows(
    network: Network,
    region: Region,
    objective: Tensor,
    budget: Budget,
    at_once: int,
    bounder: Callable[[Sectors, Tensor], Tensor] | None = None,
    further: layers.Tighten | None = None,
) -> Tensor:
    """Lower bounds of ``objective @ output`` over balls, ``at_once`` samples at a time, on layers that sectors have
    tightened: objective (samples x rows x outputs), result (samples x rows), float64. NaN where there is none, and
    where the time is over first.

    ``bounder``: what the rows are bounded by beside :meth:`Sectors.lower`; ``further``: what tightens layers besides.
    """
    found = torch.full(objective.shape[:2], torch.nan, dtype=torch.float64)
    last = len(network.nodes) - 1
    for begin in range(0, len(objective), at_once):
        part = slice(begin, begin + at_once)
        rows = objective[part].double()
        try:
            tightening = Tightening(further)
            here = take(region, part)
            relaxed = layers.by_linear_bounds(network, here, torch.float64, budget.on_cpu(), further=tightening)
            found[part] = tightening.of(relaxed).lower(last, rows)
            if bounder is not None:
                found[part] = torch.fmax(found[part], bounder(tightening.of(relaxed), rows))
        except Expired:
            break
    return found


class Tightening:
    """The sectors of a network while its layers are being bounded: see :data:`assay.verify.bounds.layers.Tighten`.

    ``further``: what is done besides to neurons that sectors leave undecided.
    """

    def __init__(self, further: layers.Tighten | None = None) -> None:
        self.further = further
        self.sectors: Sectors | None = None

    def of(self, relaxed: Relaxed) -> Sectors:
        """The sectors of what is relaxed so far."""
        if self.sectors is None:
            self.sectors = Sectors(relaxed)
        return self.sectors

    def __call__(self, relaxed: Relaxed, position: int, known: Bounds, wanted: Tensor) -> Bounds:
        """Bounds of the neurons that are ``wanted``."""
        known = self.of(relaxed).tighten(position, known, wanted)
        if self.further is None:
            return known
        readers = feeds(relaxed.network)[position]
        return self.further(relaxed, position, known, wanted & undecided_by_any(readers, known))


def samples_at_once(relaxed: Relaxed) -> int:
    """How many samples fit into memory together, by their neurons that are no lines; 0 if not even one does."""
    nodes = relaxed.network.nodes
    operands = [relaxed.bounds[node.inputs[0]] for node in nodes if relaxes(node.op)]
    loose = [((z.lower < z.upper) & ~((z.lower >= 0) | (z.upper <= 0))).flatten(1).sum(1) for z in operands]
    count = int(torch.stack(loose).sum(0).amax()) if loose else 0
    each = max(1, count * (count + nodes[0].size + max(node.size for node in nodes)))
    return min(MOST, relaxed.budget.memory // (2 * relaxed.bounds[0].lower.element_size())) // each


@dataclass(eq=False)
class Sectors:
    """A network over l2 balls with the sectors of all activations that are relaxed, float64.

    ``strays``: by position of the activations; ``rounded``: what one unit of coefficient there loses by rounding
    (samples x features); ``centre``: what every node takes at the centres.
    """

    relaxed: Relaxed
    strays: dict[int, Strays] = field(default_factory=dict)
    rounded: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ball = self.relaxed.ball
        assert ball is not None
        self.ball = ball
        self.centre = rigorous.intervals(self.relaxed.network, Box(ball.centre, ball.centre))
        self.eps = torch.as_tensor(ball.eps, dtype=torch.float64).flatten().expand(self.relaxed.samples)

    def advance(self) -> None:
        """Take up the activations that were relaxed since. Raises :class:`Expired` when the time is over."""
        for position in sorted(self.relaxed.lines.keys() - self.strays.keys()):
            self.strays[position] = self._strays(position)

    def tighten(self, position: int, known: Bounds, wanted: Tensor) -> Bounds:
        """``known``, of the node at ``position`` (samples x shape), met with the bounds by sectors of the neurons that
        are ``wanted``. Raises :class:`Expired` when the time is over."""
        self.advance()
        wanted = wanted.flatten(1)
        if not self.strays or not bool(wanted.any()):
            return known
        index = _first(wanted)
        rows, mine = _units(index, wanted.shape[1]), wanted.gather(1, index)
        found = self.lower(position, torch.cat([rows, -rows], 1))
        # What overflowed, and what was not wanted, adds nothing to what is known.
        none = found.new_tensor(-torch.inf)
        below, above = (torch.where(mine & side.isfinite(), side, none) for side in found.chunk(2, 1))
        lower, upper = known.lower.flatten(1), known.upper.flatten(1)
        met = layers.meet(lower.gather(1, index), upper.gather(1, index), below, -above)
        return Bounds(
            *(t.scatter(1, index, new).view_as(known.lower) for t, new in zip((lower, upper), met, strict=True))
        )

    def lower(self, position: int, rows: Tensor) -> Tensor:
        """Lower bounds of rows (samples x rows x features) of the node at ``position``, whose operands are bounded:
        (samples x rows). Raises :class:`Expired`."""
        self.advance()
        return torch.cat([self._lower(position, rows[:, block]) for block in self.blocks(rows)], 1)

    def _lower(self, position: int, rows: Tensor) -> Tensor:
        lines = {i: stray.sector.lines for i, stray in self.strays.items()}
        constant, slope, seen = self.backward(position, rows, lines)
        lost = self.lost(position, rows)
        widths = {}
        for i, coef in seen.items():
            own, part = self.strays[i].sector, self.strays[i]
            lost = lost + weighed(coef.abs(), own.error).view(lost.shape)
            here = part.gather(coef)
            widths[i] = here.clamp(min=0) * part.own(own.below) - here.clamp(max=0) * part.own(own.above)
        widths = self.spilt(widths)
        for i, width in widths.items():
            lost = lost + (width * self.strays[i].error[:, None]).sum(2)
        return constant + self.over_ball(slope, widths) - lost

    def lost(self, position: int, rows: Tensor) -> Tensor:
        """What rounding takes of rows (samples x rows x features) of a node until activations are met: (samples x
        rows). From there on it is among the sectors' errors."""
        assert self.relaxed.rounding is not None
        dust = self.relaxed.rounding.precision.dust
        return charge(rows.flatten(0, 1), self.relaxed.lost(position), dust).view(rows.shape[:2])

    def backward(
        self, position: int, rows: Tensor, lines: Mapping[int, Lines]
    ) -> tuple[Tensor, Tensor, dict[int, Tensor]]:
        """Rows (samples x rows x features) as functions of the input: their constants (samples x rows), coefficients
        (samples x rows x inputs), and coefficients that arrived at each activation (samples x rows x features). Raises
        :class:`Expired` when the time is over."""
        nodes, seen = self.relaxed.network.nodes, dict[int, Tensor]()
        rules = RowRules(nodes, lines.__getitem__, self.relaxed.budget, seen)
        coef, (samples, count) = rows.flatten(0, 1), rows.shape[:2]
        resting, total = propagate_backwards(nodes, rules, {position: Part(coef)}, coef.new_zeros(len(coef)))
        size = nodes[0].size
        slope = resting[0].dense(size) if 0 in resting else coef.new_zeros(len(coef), size)
        by_sample = {i: c.view(samples, count, -1) for i, c in seen.items()}
        return total.view(samples, count), slope.view(samples, count, size), by_sample

    def spilt(self, widths: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """T of t: weights of how far operands stray, by position of their activations (samples x rows x neurons), with
        what those of activations above spill over."""
        full: dict[int, Tensor] = {}
        for i in sorted(self.strays, reverse=True):
            parts = [full[j] @ self.strays[j].spills[i] for j in full if i in self.strays[j].spills]
            parts += [widths[i]] if i in widths else []
            if parts:
                full[i] = torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
        count = sum(part.index.shape[1] for part in self.strays.values()) + len(self.strays) + 8
        factor = 1 + 4 * len(self.strays) * gamma(count)
        return {i: full[i] * factor for i in sorted(full)}

    def over_ball(self, slope: Tensor, widths: Mapping[int, Tensor]) -> Tensor:
        """The least value over the ball of linear functions, ``slope`` (samples x rows x inputs), less what strays:
        (samples x rows)."""
        at_centre = weighed(slope, self.ball.centre.flatten(1).to(slope)).view(slope.shape[:2])
        return at_centre - self.eps[:, None] * self.longest(slope, widths) * (1 + 4 * UNIT)

    def longest(self, slope: Tensor, widths: Mapping[int, Tensor]) -> Tensor:
        """At least ``|v + sum e_q T_q J_q|`` for all e_q in [-1, 1]: v (samples x rows x inputs), T by position
        (samples x rows x neurons), result (samples x rows).

        All is taken in shares of what it can come to at most: nothing that is squared is too small or too large for
        it, and rounding is a share of 1."""
        straying = {i: width * self.strays[i].reach[:, None] for i, width in widths.items()}
        most = length(slope, 2)
        for far in straying.values():
            most = most + far.sum(2)
        unit = most[..., None].clamp(min=5e-324)
        slope, square, count = slope / unit, most.new_zeros(()), slope.shape[2]
        square = square + slope.square().sum(2)
        shares: list[Tensor] = []
        for i, part in self.strays.items():
            far = straying[i] / unit if i in straying else slope.new_zeros(*slope.shape[:2], part.index.shape[1])
            shares.append(far)
            count += far.shape[2]
            along = (slope @ part.direction.mT).abs()
            twice = 2 * torch.cat([*shares[:-1], far / 2], 2)  # pairs of one layer occur twice already
            square = square + (far * (2 * along + twice @ part.aligned.mT)).sum(2)
        return most * (square + 8 * gamma(2 * count + 64)).sqrt() * (1 + 16 * UNIT)

    def least_at(self, slope: Tensor, widths: Mapping[int, Tensor]) -> tuple[Tensor, dict[int, Tensor]]:
        """What derivatives of :meth:`over_ball` are made of, rounding aside: the point at which the functions less what
        strays are least (samples x rows x inputs); and how far each operand strays for its price, which is the
        derivative by its t, negated: by position (samples x rows x neurons)."""
        share = (self.eps[:, None] / self.longest(slope, widths).clamp(min=5e-324))[..., None]
        straying = {i: width * self.strays[i].reach[:, None] for i, width in widths.items()}
        step, pushed = slope, dict[int, Tensor]()
        for i, part in self.strays.items():
            straying.setdefault(i, slope.new_zeros(*slope.shape[:2], part.index.shape[1]))
            along = slope @ part.direction.mT
            step = step + (straying[i] * along.sign()) @ part.direction
            pushed[i] = along.abs() + torch.cat([straying[j] for j in pushed] + [straying[i]], 2) @ part.aligned.mT
            sizes = [self.strays[j].index.shape[1] for j in pushed]
            for j, pairs in list(zip(pushed, torch.split(part.aligned, sizes, 2), strict=True))[:-1]:
                pushed[j] = pushed[j] + straying[i] @ pairs
        far: dict[int, Tensor] = {}
        for i, part in self.strays.items():
            far[i] = share * part.reach[:, None] * pushed[i]
            for j, spill in part.spills.items():
                far[i] = far[i] + far[j] @ spill.mT
        return self.ball.centre.flatten(1)[:, None].to(slope) - share * step, far

    def _strays(self, position: int) -> Strays:
        """Of an activation all of whose predecessors are known."""
        relaxed, node = self.relaxed, self.relaxed.network.nodes[position]
        (source,) = node.inputs
        known, point = ((b.lower.flatten(1), b.upper.flatten(1)) for b in (relaxed.bounds[source], self.centre[source]))
        here = sector(node.op, Bounds(*known), Bounds(*point))
        index = _first(here.radius > 0)
        lines = {i: _straight(stray.sector.middle) for i, stray in self.strays.items()}
        rows = _units(index, known[0].shape[1])
        rounding = relaxed.rounding
        assert rounding is not None
        z, value = relaxed.operand(position), Bounds(*(evaluate(node.op, side) for side in known))
        self.rounded[position] = rounding.at_any(position, z, value)
        slopes, spills, errors = [], list[dict[int, Tensor]](), []
        for block in self.blocks(rows):
            _, slope, seen = self.backward(source, rows[:, block], lines)
            slopes.append(slope)
            spills.append({i: self._spill(i, coef) for i, coef in seen.items()})
            along = (weighed(coef.abs(), self.rounded[i]).view(slope.shape[:2]) for i, coef in seen.items())
            errors.append(sum(along, self.lost(source, rows[:, block])))
        slope = torch.cat(slopes, 1)
        reach = length(slope, 2)
        direction = slope / reach[..., None].clamp(min=5e-324)
        below = [stray.direction for stray in self.strays.values()]
        return Strays(
            replace(here, error=here.error + self.rounded[position]),
            index,
            direction,
            reach,
            {i: torch.cat([s[i] for s in spills], 1) for i in spills[0]},
            2 * torch.cat(errors, 1),
            (direction @ torch.cat([*below, direction], 1).mT).abs_(),
        )

    def _spill(self, position: int, coef: Tensor) -> Tensor:
        """What coefficients (samples x rows x features) make of how far operands of an activation stray."""
        part = self.strays[position]
        return part.gather(coef.abs()) * part.own(part.sector.radius)

    def blocks(self, rows: Tensor) -> Iterator[slice]:
        """Slices of as many rows of each sample (samples x rows x features) as memory allows."""
        samples, count = rows.shape[:2]
        each = TABLES * samples * sum(node.size for node in self.relaxed.network.nodes)
        affordable = min(MOST, self.relaxed.budget.memory // rows.element_size())
        most = max(1, affordable // each)
        return (slice(begin, begin + most) for begin in range(0, max(count, 1), most))


def _straight(slope: Tensor) -> Lines:
    """Lines through 0 (samples x features)."""
    none = torch.zeros_like(slope)
    return Lines(slope, none, none)


def _first(chosen: Tensor) -> Tensor:
    """Numbers of the features that are ``chosen`` (samples x features), with others, for as many as any sample has, one
    at least: (samples x most)."""
    count = max(1, int(chosen.sum(1).amax()))
    return chosen.to(torch.int8).topk(count, dim=1).indices


def _units(index: Tensor, size: int) -> Tensor:
    """Rows of one feature each, at ``index`` (samples x rows): (samples x rows x size)."""
    return index.new_zeros(*index.shape, size, dtype=torch.float64).scatter_(2, index[..., None], 1.0)
