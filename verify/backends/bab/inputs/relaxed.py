"""Linear bounds (CROWN: Zhang et al. 2018, arXiv:1811.00866) over thousands of boxes at once.

Every box is a domain of its own with few rows; where all of a layer is bounded, with two for each neuron that is
undecided there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import inf

import torch
from torch import Tensor

from assay.verify.backends.bab.inputs.curvature import Curvature, Enclosure, Planes
from assay.verify.backends.bab.inputs.prepared import Prepared
from assay.verify.bounds.backward import walk
from assay.verify.bounds.backward.affine import Part, entries
from assay.verify.bounds.backward.rows import RowRules
from assay.verify.bounds.interval import step
from assay.verify.bounds.layers import meet
from assay.verify.bounds.optimised.slopes import (
    Ascent,
    Climb,
    Functions,
    Moving,
    Raised,
    at_rest,
    raise_lines,
)
from assay.verify.bounds.relaxations.lines import Lines
from assay.verify.bounds.relaxations.relax import feeds, relax, relaxes, undecided_by_any
from assay.verify.core.budget import Budget
from assay.verify.core.ops import Linear
from assay.verify.core.roundings import terms
from assay.verify.core.verifier import Bounds
from assay.verify.support.floats import UNIT

# Numbers in a block of coefficients that are propagated together: it should stay in cache.
BLOCK = 1 << 17
COPIES = 8  # of a block that live at once


@dataclass(frozen=True, eq=False)
class Reach:
    """What each input that varies adds to the width of neurons' bounds: box and feature of each, width (neurons x
    varied inputs)."""

    box: Tensor
    feature: Tensor
    width: Tensor


@dataclass(frozen=True, eq=False)
class Relaxed:
    """A network over a batch of boxes, ``lower`` and ``upper`` (boxes x inputs), with every activation, by position,
    between two lines over the bounds of its operand, (boxes x features [x operands]); ``enclosed``: the values that
    operands of products are among, by position; ``curvature``: of all products, if there are any."""

    prepared: Prepared
    lower: Tensor
    upper: Tensor
    lines: dict[int, Lines] = field(default_factory=dict)
    operands: dict[int, Bounds] = field(default_factory=dict)
    reach: dict[int, Reach] = field(default_factory=dict)
    enclosed: dict[int, Enclosure] = field(default_factory=dict)
    curvature: Curvature | None = None

    def relax(self, position: int, z: Bounds) -> None:
        """Relax the activation at ``position``, whose operand lies within ``z`` (boxes x shape)."""
        node = self.prepared.network.nodes[position]
        shape = (len(z.lower), node.size, *([-1] if node.op.several else []))
        self.operands[position] = Bounds(z.lower.reshape(shape), z.upper.reshape(shape))
        self.lines[position] = relax(node.op, self.operands[position])

    def planes(self) -> dict[int, Planes]:
        """Planes about all products, to be moved, by position."""
        return {} if self.curvature is None else self.curvature.planes()

    def on(self, planes: Mapping[int, Planes]) -> Relaxed:
        """The same with products on these planes."""
        return replace(self, lines=self.lines | {position: p.lines() for position, p in planes.items()})

    def minimum(self, functions: Functions) -> Tensor:
        """The least values of functions, one a box, over their boxes: (boxes)."""
        return functions.minimum(self.lower, self.upper)

    def minimiser(self, functions: Functions) -> Tensor:
        """Where they are taken: (boxes x inputs)."""
        return functions.corner(self.lower, self.upper)

    def take(self, box: Tensor) -> Relaxed:
        """The same over the boxes at the positions ``box`` (kept boxes); the reach of single neurons stays behind."""
        lines = {position: lines.take(box) for position, lines in self.lines.items()}
        operands = {
            position: Bounds(z.lower.index_select(0, box), z.upper.index_select(0, box))
            for position, z in self.operands.items()
        }
        curvature = None if self.curvature is None else self.curvature.take(box)
        return Relaxed(self.prepared, self.lower[box], self.upper[box], lines, operands, curvature=curvature)


def bound_layers(
    prepared: Prepared, lower: Tensor, upper: Tensor, signs: Tensor, budget: Budget
) -> tuple[Relaxed, Tensor]:
    """The network relaxed over boxes, ``lower`` and ``upper`` (boxes x inputs), every layer's bounds tightened first:
    intervals, then linear bounds of what is undecided, the intersection of both.

    ``signs`` (boxes x features of all ReLUs, one after the other), int8: 1 or -1 where the sign of an operand is
    known, 0 where it is not; it is returned with what has been found. Raises :class:`assay.verify.core.budget.Expired`.
    """
    network, sizes = prepared.network, prepared.relus
    relaxed = Relaxed(prepared, lower, upper)
    shape = (-1, *network.input_shape)
    bounds = [Bounds(lower.view(shape), upper.view(shape))]
    readers = feeds(network)
    if 0 in prepared.factored:
        relaxed.enclosed[0] = _inputs(relaxed)
    known = dict(zip(sizes, torch.split(signs, list(sizes.values()), 1), strict=True))
    for position, node in enumerate(network.nodes[1:], start=1):
        if relaxes(node.op):
            relaxed.relax(position, bounds[node.inputs[0]])
        here = step(node.op, *(bounds[i] for i in node.inputs))
        if terms(node.op):
            error = prepared.error[position].view(1, *node.shape)
            here = Bounds(here.lower - error, here.upper + error)
        if position in known:
            here = _with_signs(here, known[position])
        if position in readers:
            here = _tightened(relaxed, position, here, undecided_by_any(readers[position], here), budget)
        if position in known:
            known[position] = _signs(here)
        if position in prepared.factored and position not in relaxed.enclosed:
            relaxed.enclosed[position] = Enclosure.within(_flat(here), len(prepared.varied))
        bounds.append(here)
    relaxed = replace(relaxed, curvature=_curvature(relaxed))
    return relaxed, torch.cat([known[source] for source in sizes], 1) if sizes else signs


def propagate_backwards(
    relaxed: Relaxed,
    pending: dict[int, Part],
    total: Tensor,
    box: Tensor | None = None,
    seen: dict[int, Tensor] | None = None,
) -> Functions:
    """Rows of coefficients of nodes' values, by position, as linear functions of the input that lie below them: (rows).

    ``total`` (rows): the constant so far. ``box``: the box of each row; without it, as many rows of each box, one box
    after the other. ``seen`` gets the coefficients that arrive at each activation, by position (rows x features).
    """
    nodes, inlet = relaxed.prepared.network.nodes, relaxed.prepared.inlet
    rules = RowRules(nodes, relaxed.lines.__getitem__, Budget(), seen, domain=box)
    resting, total = walk.propagate_backwards(nodes, rules, pending, total, inlet.__contains__)
    at_input = total.new_zeros(len(total), nodes[0].size)
    for position, part in resting.items():
        forms = inlet[position] if part.support is None else inlet[position].take(part.support)
        at_input = torch.addmm(at_input, part.coef, forms.coef)
        total = total + part.coef.mv(forms.constant)
    return Functions(at_input, total)


def rows_of(relaxed: Relaxed, objective: Tensor, constant: Tensor, box: Tensor, budget: Budget) -> Functions:
    """Linear functions below ``objective @ output + constant``: objective (rows x outputs), constant and box (rows)."""
    last = len(relaxed.prepared.network.nodes) - 1
    parts = []
    for block in blocks(len(box), relaxed.prepared.heaviest, budget):
        pending, where = {last: Part(objective[block])}, box[block]
        if relaxed.curvature is None:
            parts.append(propagate_backwards(relaxed, pending, constant[block], where))
            continue
        here, seen = relaxed.take(where), dict[int, Tensor]()
        planes, curvature = here.planes(), relaxed.curvature.take(where)
        functions = propagate_backwards(here.on(planes), pending, constant[block], seen=seen)
        parts.append(curvature.below(functions, seen, planes))
    return Functions(torch.cat([f.coef for f in parts]), torch.cat([f.constant for f in parts]))


def raise_rows(
    relaxed: Relaxed, objective: Tensor, constant: Tensor, ascent: Ascent, slopes: dict[int, Tensor] | None = None
) -> tuple[Raised, dict[int, Tensor], Tensor | None]:
    """Rows ``objective @ output + constant`` (boxes x outputs), one a box, with lines of their own raised; and for each
    activation, by position, what its relaxation may cost the row (boxes x features), and what all products together may
    along each input (boxes x varied inputs), if there are any.

    ``slopes`` gets those of the lower lines that the best bounds are by, by position (boxes x features).
    """
    last = len(relaxed.prepared.network.nodes) - 1
    best = torch.full((len(constant),), -inf, dtype=constant.dtype)

    curvature = relaxed.curvature
    planes = relaxed.planes()
    relaxed = relaxed.on(planes)

    def backward(lines: Mapping[int, Lines], seen: dict[int, Tensor]) -> Functions:
        trial = replace(relaxed, lines=dict(lines))
        functions = propagate_backwards(trial, {last: Part(objective)}, constant, seen=seen)
        if curvature is not None:
            functions = curvature.below(functions, seen, planes)
            for p in planes.values():
                p.at = relaxed.minimiser(functions)[:, curvature.varied] - curvature.centre
        if slopes is not None:
            bound = relaxed.minimum(functions)
            better = (bound > best)[:, None]
            for i, tried in lines.items():
                slopes[i] = torch.where(better, tried.slope, slopes.get(i, tried.slope))
            torch.fmax(best, bound, out=best)
        return functions

    climb = Climb(relaxed.prepared.network, backward, relaxed, relaxed.lines, relaxed.operands, ascent)
    climb.free |= {i: Moving(None, p, at_rest(p.tensors())) for i, p in planes.items()}
    raised = raise_lines(climb, ascent.steps)
    lost = {i: coef.abs() * _gap(relaxed, i) for i, coef in raised.seen.items() if i not in planes}
    if curvature is None:
        return raised, lost, None
    bent, besides = curvature.lost(raised.seen, planes)
    return raised, lost | besides, bent


def _gap(relaxed: Relaxed, position: int) -> Tensor:
    """The distance between an activation's two lines in the middle of its operand's bounds: (boxes x features)."""
    lines, z = relaxed.lines[position], relaxed.operands[position]
    across = lines.slope_gap * (z.lower / 2 + z.upper / 2)
    return lines.intercept_gap + (across.sum(-1) if across.dim() > lines.intercept_gap.dim() else across)


def blocks(rows: int, width: float, budget: Budget) -> Iterator[slice]:
    """Slices of as many rows of this many coefficients as cache and memory allow.

    Raises :class:`assay.verify.core.budget.Expired` when the time is over.
    """
    most = max(1, int(min(BLOCK, budget.memory // (8 * COPIES)) / width))
    for begin in range(0, rows, most):
        budget.check()
        yield slice(begin, min(begin + most, rows))


def _tightened(relaxed: Relaxed, position: int, known: Bounds, wanted: Tensor, budget: Budget) -> Bounds:
    """``known`` intersected with linear bounds of the neurons that are ``wanted``; their reach is noted.

    The neurons come feature by feature, so that those of a block read few others where weights are thin.
    """
    feature, box = wanted.flatten(1).T.nonzero(as_tuple=True)
    lower, upper = known.lower.flatten(1), known.upper.flatten(1)
    varied = relaxed.prepared.varied
    radius = (relaxed.upper / 2 - relaxed.lower / 2)[:, varied]
    enclosed = None
    if position in relaxed.prepared.factored:
        enclosed = relaxed.enclosed[position] = Enclosure.within(_flat(known), len(varied))
    lowest, widths = [lower.new_zeros(0, 2)], [lower.new_zeros(0, len(varied))]
    for block in blocks(len(box), 2 * _width(relaxed.prepared, position, feature), budget):
        who = box[block]
        low, high = relaxed.lower[who], relaxed.upper[who]
        below = _both_sides(relaxed, position, feature[block], who)
        lowest.append(below.minimum(low[:, None], high[:, None]))
        if enclosed is not None:
            error = relaxed.prepared.error[position].index_select(0, feature[block])
            enclosed.put(who, feature[block], Enclosure.between(below, error, low, high, varied))
        widths.append(below.coef[..., varied].abs().sum(1) * radius[who])
    relaxed.reach[position] = Reach(box, feature, torch.cat(widths))
    new_lower, new_upper = torch.cat(lowest).T - relaxed.prepared.error[position].index_select(0, feature)
    met = meet(lower[box, feature], upper[box, feature], new_lower, -new_upper)
    index = (box, feature)
    return Bounds(*(t.index_put(index, new).view_as(known.lower) for t, new in zip((lower, upper), met, strict=True)))


def _inputs(relaxed: Relaxed) -> Enclosure:
    """Of the inputs themselves: those that vary are linear, and nothing else."""
    varied = relaxed.prepared.varied
    enclosed = Enclosure.within(Bounds(relaxed.lower, relaxed.upper), len(varied))
    enclosed.slope[:, varied] = torch.eye(len(varied), dtype=enclosed.slope.dtype)
    # The middle of a box is not a number always: what its nearest one differs by remains.
    enclosed.radius[:, varied] = enclosed.mid[:, varied].abs() * 2 * UNIT
    return enclosed


def _curvature(relaxed: Relaxed) -> Curvature | None:
    """Of all products over the boxes, once all that they read is enclosed."""
    prepared, varied = relaxed.prepared, relaxed.prepared.varied
    if not prepared.factors:
        return None
    sides: tuple[dict[int, Enclosure], dict[int, Enclosure]] = {}, {}
    for position, factors in prepared.factors.items():
        joined = Enclosure.join([relaxed.enclosed[source] for source in factors.sources])
        for side, index in zip(sides, factors.index.unbind(1), strict=True):
            side[position] = joined.take(index, 1)
    lower, upper = relaxed.lower[:, varied], relaxed.upper[:, varied]
    centre = lower / 2 + upper / 2
    return Curvature(*sides, centre, torch.maximum(upper - centre, centre - lower), varied)


def _flat(z: Bounds) -> Bounds:
    return Bounds(z.lower.flatten(1), z.upper.flatten(1))


def _width(prepared: Prepared, position: int, feature: Tensor) -> float:
    """How many coefficients a row of a block has that holds rows of these features, in order, at its widest: with n
    rows, ``reads`` coefficients for each feature among them, n / rows of a feature. So blocks are n, with n times
    its width as large as a block should be."""
    different = 1 + int((feature[1:] != feature[:-1]).sum())
    each = len(feature) / different
    spread: float = (BLOCK * prepared.reads[position] / max(each, 1.0) / 2) ** 0.5
    return min(float(prepared.widest), max(spread, 1.0))


def _both_sides(relaxed: Relaxed, position: int, feature: Tensor, box: Tensor) -> Functions:
    """Linear functions below these features of a node and below their opposites: (features x 2)."""
    prepared = relaxed.prepared
    node = prepared.network.nodes[position]
    if position in prepared.inlet:
        exact = prepared.inlet[position].take(feature)
        return Functions(torch.stack([exact.coef, -exact.coef], 1), torch.stack([exact.constant, -exact.constant], 1))
    constant = torch.zeros(len(feature), dtype=torch.float64)
    if isinstance(node.op, Linear) and len(node.shape) == 1:
        start, constant, source = (
            _rows_of_weight(node.op, feature),
            node.op.bias.index_select(0, feature),
            node.inputs[0],
        )
    else:
        one = torch.zeros(len(feature), node.size, dtype=torch.float64)
        one[torch.arange(len(feature)), feature] = 1.0
        start, source = Part(one), position
    rows = Part(torch.stack([start.coef, -start.coef], 1).flatten(0, 1), start.support)
    total = torch.stack([constant, -constant], 1).flatten()
    below = propagate_backwards(relaxed, {source: rows}, total, box)
    return Functions(below.coef.view(len(feature), 2, -1), below.constant.view(-1, 2))


def _rows_of_weight(op: Linear, feature: Tensor) -> Part:
    thin = entries(op)
    if thin is None:
        return Part(op.weight.index_select(0, feature))
    read = thin.read_by(feature)
    return Part(op.weight[feature[:, None], read], read)


def _with_signs(z: Bounds, signs: Tensor) -> Bounds:
    """``z`` (boxes x shape) intersected with what the signs (boxes x features) say."""
    lower, upper = z.lower.flatten(1), z.upper.flatten(1)
    met = meet(lower, upper, lower.masked_fill(signs > 0, 0.0), upper.masked_fill(signs < 0, 0.0))
    return Bounds(*(t.view_as(z.lower) for t in met))


def _signs(z: Bounds) -> Tensor:
    lower, upper = z.lower.flatten(1), z.upper.flatten(1)
    return (lower >= 0).to(torch.int8) - (upper <= 0).to(torch.int8)
