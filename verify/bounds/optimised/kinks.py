"""Slopes below kinks raised with rows beside one another, on the features that matter: what dense layers, convolutions
and sums between ReLUs ask for over boxes takes a small part of the operations that lines of any kind do.

It is the ascent of :mod:`assay.verify.bounds.optimised.slopes`, in float32, for what proves nothing. Rows begin at the
activations: what is above them is affine, and is crossed once. Features that are inactive for all samples are left out.
Of each activation's features those that are undecided for any sample are the first, and what is moved of all
activations is one tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from assay.verify.bounds.backward.affine import Part
from assay.verify.bounds.backward.matrix import Cut, Dense, Sparse, constant, matrix
from assay.verify.bounds.backward.rows import RowRules
from assay.verify.bounds.backward.walk import propagate_backwards
from assay.verify.bounds.memo import per_op
from assay.verify.bounds.optimised.slopes import (
    FEWER,
    PATIENCE,
    Ascent,
    Moving,
    ascend,
    at_rest,
    still_rising,
    taken,
)
from assay.verify.bounds.relaxations.parameters import parameters
from assay.verify.bounds.relaxations.relax import undecided
from assay.verify.bounds.relaxed import Relaxed, fits_float32, middle_and_radius
from assay.verify.core.network import Node
from assay.verify.core.ops import Add, Conv2d, LeakyRelu, Linear, Op, Relu, Reshape
from assay.verify.core.verifier import Bounds
from assay.verify.support import devices


@dataclass(frozen=True, eq=False)
class Map:
    """An affine operation between features that matter: coefficients of its value as those of its operand, (outputs x
    rows) to (inputs x rows), and values the other way, to which ``bias`` (outputs x 1) is added."""

    back: Cut
    forth: Cut
    bias: Tensor

    @classmethod
    @torch.inference_mode(False)  # every caller can use it
    def of(cls, node: Node, shape: tuple[int, ...], inputs: Tensor | None, outputs: Tensor | None) -> Map:
        """Of a layer that reads a value of this ``shape``. The last one of a convolution is kept: the layers after it
        ask for it one after the other."""
        assert isinstance(node.op, (Linear, Conv2d))
        every, bias = matrix(node.op, shape), constant(node.op, node.shape).float()[:, None]
        bias = bias if outputs is None else bias.index_select(0, outputs)
        if isinstance(every, Sparse):
            last = _last(node.op).get(shape)
            if last is None or not (_same(last[0], inputs) and _same(last[1], outputs)):
                last = inputs, outputs, cls(*every.both_ways(inputs, outputs, torch.float32), bias)
                _last(node.op)[shape] = last
            return last[2]
        assert isinstance(every, Dense)
        back = every.cut(inputs, outputs).transposed.float()
        return cls(Dense(back), Dense(back.T), bias)


@per_op
def _last(op: Op) -> dict[tuple[int, ...], tuple[Tensor | None, Tensor | None, Map]]:
    return {}


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other or (one is not None and other is not None and one.equal(other))


@dataclass(frozen=True, eq=False)
class Kinks:
    """A ``relaxed`` network as far as rows of the node at ``position`` see it. ``own``: each activation's features that
    matter, of which the first, as many as its ``places`` among all that are moved, can be undecided; ``support``: those
    of every node's value, None being all; ``maps``: of the layers that activations ``read``, by way of others or not.
    """

    relaxed: Relaxed
    position: int
    own: dict[int, Tensor]
    places: dict[int, slice]
    support: dict[int, Tensor | None]
    maps: dict[int, Map]
    read: set[int]

    @classmethod
    def of(cls, relaxed: Relaxed, position: int) -> Kinks | None:
        """None where it is no such network, the region no box, or a convolution too large to be written out."""
        nodes = relaxed.network.nodes[: position + 1]
        plain = relaxed.ball is None and relaxed.constraints is None and devices.is_host(relaxed.bounds[0].lower)
        if not (plain and fits_float32(relaxed.network) and all(_known(node, nodes) for node in nodes[1:])):
            return None
        own, places, begin = dict[int, Tensor](), dict[int, slice](), 0
        for i in relaxed.lines:
            if i <= position:
                own[i], count = _matters(nodes[i].op, relaxed, i)
                places[i] = slice(begin, begin + count)
                begin += count
        read, support = _read(nodes, own), _supports(nodes, own, position)
        maps = {
            i: Map.of(nodes[i], nodes[nodes[i].inputs[0]].shape, support[nodes[i].inputs[0]], support[i])
            for i in sorted(read)
            if isinstance(nodes[i].op, (Linear, Conv2d))
        }
        return cls(relaxed, position, own, places, support, maps, read)

    def raised(self, coef: Tensor, sample: Tensor, ascent: Ascent) -> dict[int, Moving]:
        """Lines of rows of the node's value (rows x features), which belong to samples (rows), by the position of the
        activation; a row's are left where it hardly rises any more."""
        relaxed = self.relaxed
        climb = Columns.of(self, coef, sample)
        ends, rows = climb.slope.clone(), torch.arange(len(sample))
        first = last = climb.constant.new_full((len(sample),), -torch.inf)
        for step in range(1, ascent.steps + 1):
            relaxed.budget.check()
            gradient, bound = climb.gradient((step - 1) % PATIENCE == 0)
            if bound is not None:
                first = bound if step == 1 else first
                going = still_rising(first, last, bound)
                last, left = bound, going.nonzero().flatten()
                if len(left) <= FEWER * len(rows):
                    ends.index_copy_(1, rows, climb.slope)
                    if not len(left):
                        break
                    rows, first, last = rows[left], first[left], last[left]
                    climb, gradient = climb.take(left), gradient.index_select(1, left)
            climb.move(gradient, ascent, step)
        else:
            ends.index_copy_(1, rows, climb.slope)
        return self._lines(ends, sample)

    def _lines(self, slopes: Tensor, sample: Tensor) -> dict[int, Moving]:
        """Slopes (moved x rows) as lines about the activations."""
        found = {}
        for i, place in self.places.items():
            columns = self.own[i][: place.stop - place.start]
            lines, z = self.relaxed.lines[i].take(columns, 1), taken(self.relaxed.operand(i), columns, 1)
            kept = parameters(self.relaxed.network.nodes[i].op, lines.take(sample), taken(z, sample))
            assert kept is not None
            (slope,) = kept.tensors()
            slope.copy_(slopes[place].T)
            found[i] = Moving(columns, kept, [])
        return found


def _known(node: Node, nodes: Sequence[Node]) -> bool:
    """Whether there is a rule for the node."""
    op = node.op
    if isinstance(op, (Linear, Conv2d)):
        known = matrix(op, nodes[node.inputs[0]].shape)
        return not op.weight.requires_grad and isinstance(known, (Sparse, Dense))
    return isinstance(op, (Relu, Add, Reshape)) or (isinstance(op, LeakyRelu) and 0 <= op.slope < 1)


def _matters(op: Op, relaxed: Relaxed, position: int) -> tuple[Tensor, int]:
    """Features of an activation that matter, those that are undecided for any sample first, and how many these are."""
    z = relaxed.operand(position)
    open_ = undecided(op, z).any(0)
    rest = ~open_ if isinstance(op, LeakyRelu) else ~open_ & (~(z.upper <= 0)).any(0)
    first = open_.nonzero().flatten()
    return torch.cat([first, rest.nonzero().flatten()]), len(first)


def _read(nodes: Sequence[Node], own: Mapping[int, Tensor]) -> set[int]:
    """Nodes that some activation reads, by way of others or not."""
    read = {i for position in own for i in nodes[position].inputs}
    for position in range(len(nodes) - 1, 0, -1):
        if position in read:
            read.update(nodes[position].inputs)
    return read


def _supports(nodes: Sequence[Node], own: Mapping[int, Tensor], position: int) -> dict[int, Tensor | None]:
    """Of every node's value the features that matter: an activation's own ones; of what nothing but an activation
    reads, or a sum of which that holds, those of it."""
    readers: dict[int, list[int]] = {i: [] for i in range(len(nodes))}
    for i, node in enumerate(nodes):
        for source in node.inputs:
            readers[source].append(i)
    support: dict[int, Tensor | None] = {}
    for i, node in enumerate(nodes):
        if i in own:
            support[i] = own[i]
        elif isinstance(node.op, Reshape) and node.inputs[0] in support:
            support[i] = support[node.inputs[0]]
    for i in range(len(nodes) - 1, -1, -1):
        if i not in support:
            one = readers[i][0] if len(readers[i]) == 1 and i not in (0, position) else -1
            passed = one >= 0 and (one in own or isinstance(nodes[one].op, (Add, Reshape)))
            support[i] = support[one] if passed else None
    return support


@dataclass(eq=False)
class Columns:
    """Rows on their way up, (features x rows): what they are at the activations, or the input, that they begin at, by
    position; their ``constant`` (rows) there; of the features that are moved ``slope`` of the lower line, ``upper`` of
    the other one and its ``height``, and between which ends slopes stay, ``least`` and ``most`` (moved x rows each);
    of the others of an activation the slopes that are ``fixed``, None where all are 1; ``centre`` and ``radius`` of the
    boxes (inputs x rows, or 1 for all); the ``moments`` of the ascent."""

    kinks: Kinks
    start: dict[int, Tensor]
    constant: Tensor
    slope: Tensor
    upper: Tensor
    height: Tensor
    least: Tensor
    most: Tensor
    fixed: dict[int, Tensor | None]
    centre: Tensor
    radius: Tensor
    moments: list[tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, kinks: Kinks, coef: Tensor, sample: Tensor) -> Columns:
        """Rows before anything is moved."""
        relaxed, own = kinks.relaxed, kinks.own
        nodes = relaxed.network.nodes
        # Of what is affine, in the precision of the network.
        rules, nothing = RowRules(nodes, relaxed.lines.__getitem__, relaxed.budget), coef.new_zeros(len(coef))
        begun = {kinks.position: Part(coef)}
        resting, constant = propagate_backwards(nodes, rules, begun, nothing, until=own.__contains__)
        start = {i: part.dense(nodes[i].size) for i, part in resting.items()}
        start = {i: t.index_select(1, own[i]) if i in own else t for i, t in start.items()}
        tables, fixed = [], dict[int, Tensor | None]()
        for i, place in kinks.places.items():
            z, count = relaxed.operand(i), place.stop - place.start
            z, lines = taken(z, own[i], 1), relaxed.lines[i].take(own[i], 1)
            low, op = lines.slope[:, :count], nodes[i].op
            open_ = undecided(op, taken(z, torch.arange(count), 1))
            least = torch.where(open_, op.slope if isinstance(op, LeakyRelu) else 0.0, low)
            high, most = low + lines.slope_gap[:, :count], torch.where(open_, 1.0, low)
            tables.append(torch.stack([low, high, lines.intercept_gap[:, :count], least, most]))
            rest = lines.slope[:, count:]
            fixed[i] = None if bool((rest == 1).all()) else _beside(rest, sample)
        box = Bounds(relaxed.bounds[0].lower.flatten(1), relaxed.bounds[0].upper.flatten(1))
        centre, radius = (t.float().T for t in middle_and_radius(box))
        if relaxed.samples > 1:
            centre, radius = (t.index_select(1, sample) for t in (centre, radius))
        all_ = torch.cat(tables, 2).transpose(1, 2).float() if tables else centre.new_zeros(5, 0, relaxed.samples)
        slope, upper, height, least, most = all_.index_select(2, sample).unbind()
        first = {i: t.T.float().contiguous() for i, t in start.items()}
        rows = (kinks, first, constant.float(), slope, upper, height, least, most, fixed, centre, radius)
        return cls(*rows, at_rest([slope]))

    @cached_property
    def way(self) -> _Way:
        """Where walks put what they find."""
        return _Way(self.kinks, self.slope, self.upper, self.fixed, *(torch.zeros_like(self.slope) for _ in range(3)))

    def take(self, rows: Tensor) -> Columns:
        """The rows at these positions alone."""

        def chosen(t: Tensor) -> Tensor:
            return t if t.shape[-1] == 1 else t.index_select(-1, rows)

        each = {
            name: getattr(self, name).index_select(-1, rows)
            for name in ("constant", "slope", "upper", "height", "least", "most")
        }
        return replace(
            self,
            start={i: t.index_select(1, rows) for i, t in self.start.items()},
            fixed={i: None if t is None else chosen(t) for i, t in self.fixed.items()},
            centre=chosen(self.centre),
            radius=chosen(self.radius),
            moments=[(m.index_select(1, rows), s.index_select(1, rows)) for m, s in self.moments],
            **each,
        )

    def gradient(self, bounded: bool) -> tuple[Tensor, Tensor | None]:
        """The derivative of each row's bound by what is moved: (moved x rows), and where that is asked for the bound
        itself, which is the value on the lines where the row is least: (rows)."""
        kinks, nodes = self.kinks, self.kinks.relaxed.network.nodes
        way = self.way
        begun = {i: t.clone() for i, t in self.start.items()}
        resting, _ = propagate_backwards(nodes, way, begun, self.constant)
        # Of what no row sees, any point will do.
        corner = resting[0].sign_() if 0 in resting else torch.zeros_like(self.constant)
        values = {0: torch.addcmul(self.centre, corner, self.radius, value=-1)}
        # Of the line that a coefficient takes, slope and height.
        slope = torch.lerp(self.upper, self.slope, way.above)
        height = torch.addcmul(self.height, self.height, way.above, value=-1)
        gradient = way.gradient
        for i in range(1, max(self.start, default=0) + 1):
            node, to = nodes[i], kinks.support[i]
            if i in kinks.own:
                (source,) = node.inputs
                place, z = kinks.places[i], moved(values[source], kinks.support[source], to, node.size)
                count = place.stop - place.start
                torch.mul(way.positive[place], z[:count], out=gradient[place])
                torch.addcmul(height[place], z[:count], slope[place], out=z[:count])
                if (fixed := self.fixed[i]) is not None:
                    z[count:].mul_(fixed)
                values[i] = z
            elif i in kinks.maps:
                values[i] = kinks.maps[i].forth.pull(values[node.inputs[0]]).add_(kinks.maps[i].bias)
            elif i in kinks.read:
                parts = [moved(values[j], kinks.support[j], to, node.size) for j in node.inputs]
                values[i] = parts[0] + parts[1] if len(parts) == 2 else parts[0]
        if not bounded:
            return gradient, None
        return gradient, sum(((values[i] * t).sum(0) for i, t in self.start.items()), self.constant)

    def move(self, gradient: Tensor, ascent: Ascent, step: int) -> None:
        """Move the slopes by this gradient."""
        ascend(self.slope, gradient, self.moments[0], ascent, step)
        torch.clamp(self.slope, self.least, self.most, out=self.slope)


def _beside(table: Tensor, sample: Tensor) -> Tensor:
    """What belongs to samples (samples x features) as what belongs to their rows (features x rows)."""
    return table.float().T.index_select(1, sample)


def moved(rows: Tensor, here: Tensor | None, to: Tensor | None, size: int) -> Tensor:
    """Rows of the features ``here``, of all of ``size`` where that is None, as those ``to``: others are 0."""
    if here is to:
        return rows
    full = rows if here is None else rows.new_zeros(size, rows.shape[1]).index_copy_(0, here, rows)
    return full if to is None else full.index_select(0, to)


@dataclass(frozen=True, eq=False)
class _Way:
    """Rules for columns on their way down, as :mod:`assay.verify.bounds.backward.walk` asks for them, past lines of
    this ``slope`` and ``upper`` ones, and slopes that are ``fixed``. Of the coefficients that arrive it notes what is
    ``positive``, and in ``above`` 1 where they are at least 0; ``gradient``: room for what is made of these: (moved x
    rows) each. What passes a slope of 0 is 0, and not what rounding leaves of it: slopes below would go after that."""

    kinks: Kinks
    slope: Tensor
    upper: Tensor
    fixed: Mapping[int, Tensor | None]
    positive: Tensor
    above: Tensor
    gradient: Tensor

    def pull(self, position: int, rows: Tensor) -> tuple[Sequence[Tensor], None]:
        """See :class:`assay.verify.bounds.backward.walk.Rules`."""
        kinks = self.kinks
        if position in kinks.maps:
            return [kinks.maps[position].back.pull(rows)], None
        node, here = kinks.relaxed.network.nodes[position], kinks.support[position]
        if position in kinks.own:
            place = kinks.places[position]
            count = place.stop - place.start
            top, positive = rows[:count], self.positive[place]
            torch.clamp(top, min=0, out=positive)
            torch.ge(top, 0, out=self.above[place])
            top.sub_(positive).mul_(self.upper[place]).addcmul_(positive, self.slope[place])
            if (fixed := self.fixed[position]) is not None:
                rows[count:].mul_(fixed)
        parts = [moved(rows, here, kinks.support[i], node.size) for i in node.inputs]
        return [part if k == 0 else part.clone() for k, part in enumerate(parts)], None

    def add(self, position: int, a: Tensor, b: Tensor) -> Tensor:
        """See :class:`assay.verify.bounds.backward.walk.Rules`."""
        return a + b
