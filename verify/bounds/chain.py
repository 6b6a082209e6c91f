"""CROWN of a chain of dense layers with ReLUs between them, over boxes: all of a group's rows at once.

Rows belong to samples, as many to each as it has neurons that are undecided, and lie below one another (rows x
features). Neurons that are inactive for all samples of the group are left out, of rows and of weights alike, before
anything is multiplied, and what an activation does to a row, its lines, what rounding takes and the constant of the
layer below, is one table. Bounds are those of :mod:`assay.verify.bounds.columns` up to what is charged for rounding,
which is what :mod:`assay.verify.bounds.rounding` charges. Whatever is out of the ordinary, numbers that are not finite
or are beyond what is counted, intervals that cross, is left to these.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from math import inf

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.verify.bounds.memo import per_network
from assay.verify.bounds.relax import relax
from assay.verify.bounds.relaxed import middle_and_radius
from assay.verify.bounds.rounding import DOUBLE, FEW, SINGLE, Precision, Rounding, largest, precision
from assay.verify.core.budget import Budget, Expired
from assay.verify.core.network import Network
from assay.verify.core.ops import Linear, Op, Relu, Reshape
from assay.verify.core.region import Box, LpBall, Region
from assay.verify.core.roundings import terms
from assay.verify.core.verifier import Bounds
from assay.verify.support import devices
from assay.verify.support.floats import gamma

COPIES = 12  # of a block of coefficients that live at once, with what is done to them
BLOCK = 5 << 17  # bytes of the rows that are at the input together: they stay in cache
MANY = 1 << 18  # coefficients of the rows that are on their way together
FEW_ROWS = 128  # up to which both sides of neurons are bounded at once
PART = 0.25  # of the time that is left may be used here: the rest is for those who keep some for the rows

RELU = Relu()


@dataclass(frozen=True, eq=False)
class Layer:
    """An affine map in the precision of the bounds: ``weight`` and its magnitude ``steep`` (outputs x inputs),
    ``bias`` and its ``size`` (outputs).

    Of magnitudes are lost: ``lost``, in a row that goes back through it; ``wide``, in an interval; ``bent``, by the
    lines of the activation that it feeds.
    """

    weight: Tensor
    steep: Tensor
    bias: Tensor
    size: Tensor
    lost: float
    wide: float
    bent: float


@dataclass(frozen=True, eq=False)
class Chain:
    """The layers of a network, ``double`` the first of them in float64, and the share that is lost at the input."""

    layers: tuple[Layer, ...]
    double: tuple[Tensor, Tensor]
    precision: Precision
    at_input: float


@per_network
def chain_of(network: Network) -> Chain | None:
    """The network, whose tensors are of the precision of the bounds, as a chain; None where it is none."""
    nodes = network.nodes
    positions = [position for position, node in enumerate(nodes) if position and not isinstance(node.op, Reshape)]
    affine, bends = ([nodes[i].op for i in some] for some in (positions[::2], positions[1::2]))
    if any(node.inputs != (position,) for position, node in enumerate(nodes[1:])) or len(affine) != len(bends) + 1:
        return None
    if not (bends and all(map(_dense, affine)) and all(isinstance(op, Relu) for op in bends)):
        return None
    if any(len(node.shape) > 1 for node in nodes if isinstance(node.op, Linear)):
        return None  # one weight for each place of an axis
    first = affine[0]
    assert isinstance(first, Linear)
    kind = SINGLE if first.weight.dtype == torch.float32 else DOUBLE
    rounding = Rounding(network, precision=kind)
    lost, bent = (list(map(rounding.share, some)) for some in (positions[::2], positions[1::2]))
    layers = []
    for op, own, next_ in zip(affine, lost, [*bent, 0.0], strict=True):
        assert isinstance(op, Linear)
        wide = 2 * gamma(terms(op) + FEW, kind.unit)
        layers.append(Layer(op.weight, op.weight.abs(), op.bias, op.bias.abs(), own, wide, next_))
    return Chain(tuple(layers), (layers[0].weight.double(), layers[0].bias.double()), kind, rounding.share(0))


def _dense(op: Op) -> bool:
    return isinstance(op, Linear) and not (op.weight.requires_grad or op.bias.requires_grad)


@dataclass(frozen=True, eq=False)
class Level:
    """Activations that rows meet, those that are active for any sample, and the layer below them.

    ``table``: what is done to coefficients of each (samples x 5 x kept): the slope of the lower line, how much steeper
    the upper one is, what negative coefficients and what all of them lose or gain, and the constant of the layer below.
    ``into``: the weight of that layer (kept x kept below).
    """

    table: Tensor
    into: Tensor


@dataclass(frozen=True, eq=False)
class Walk:
    """Rows of a group of samples on their way to the input, over boxes of this ``radius`` (samples x inputs) about the
    centres that the first layer's constant is the value at. ``odd``: numbers that are all at least 0 if nothing is out
    of the ordinary."""

    radius: Tensor
    budget: Budget
    levels: list[Level] = field(default_factory=list)
    odd: list[Tensor] = field(default_factory=list)

    def down(self, rows: Tensor, total: Tensor, sample: Tensor) -> Tensor:
        """Lower bounds of ``rows`` (rows x kept) of the activations met last and of ``total`` (rows), for the samples
        that they belong to (rows), of which neighbours have the same or the next: (rows)."""
        widest = max(level.into.shape[0] for level in self.levels)
        most = max(1, int(min(MANY, self.budget.memory // (COPIES * rows.element_size()))) // max(1, widest))
        if rows.shape[0] <= most:
            return self._down(rows, total, sample)
        pieces = zip(*(torch.split(t, most) for t in (rows, total, sample)), strict=True)
        return torch.cat([self._down(*piece) for piece in pieces])

    def _down(self, rows: Tensor, total: Tensor, sample: Tensor) -> Tensor:
        self.budget.check()
        for number in range(len(self.levels) - 1, -1, -1):
            table, into = self.levels[number].table, self.levels[number].into
            table = table if table.shape[0] == 1 else table.index_select(0, sample)
            slope, steeper, negatives, all_, constant = table.unbind(1)
            negative = rows.clamp(max=0)
            worth = (negative * negatives).addcmul_(rows, all_)
            rows = (rows * slope).addcmul_(negative, steeper)
            total = total + worth.addcmul_(rows, constant).sum(1)
            rows = rows @ into if number else rows
        return total - self._reach(rows, sample)

    def _reach(self, rows: Tensor, sample: Tensor) -> Tensor:
        """How far rows of the first layer's value (rows x kept) go from that at the centre: (rows)."""
        into, radius, count = self.levels[0].into, self.radius, rows.shape[0]
        most = max(1, BLOCK // (into.shape[1] * rows.element_size()))
        reach, at_input = rows.new_empty(1, count), rows.new_empty(min(most, count), into.shape[1])
        starts = sample[::most]  # the first sample of each piece, as which others in it are counted
        place = (sample - starts.repeat_interleave(most)[:count])[None]
        lasts = [*sample[most - 1 :: most].tolist(), *sample[-1:].tolist()]
        for number, (first, last) in enumerate(zip(starts.tolist(), lasts, strict=False)):
            piece = slice(number * most, (number + 1) * most)
            some = rows[piece]
            coef = torch.mm(some, into, out=at_input[: some.shape[0]]).abs_()
            if first == last:
                torch.mv(coef, radius[first], out=reach[0, piece])
            else:
                torch.gather(radius[first : last + 1] @ coef.T, 0, place[:, piece], out=reach[:, piece])
        return reach[0]


def lower_rows(
    network: Network, region: Region, objective: Tensor, dtype: torch.dtype, budget: Budget
) -> Tensor | None:
    """Lower bounds of ``objective @ output`` over the boxes of a group of samples: objective (samples x rows x
    outputs), result (samples x rows). None where the network is no chain, the region no box of a batch, something is
    out of the ordinary, float32 of no use, or part of the time did not suffice.

    Raises :class:`assay.verify.core.errors.InputError` as :func:`assay.verify.bounds.rounding.precision` does.
    """
    if not (_is_box(region) and devices.is_host(objective)) or budget.device != "cpu":
        return None
    precision(dtype)  # refuses what bounds do not allow for
    chain = chain_of(network.to(dtype))
    if chain is None:
        return None
    try:
        return _lower_rows(chain, region.box().outward(dtype), objective.to(dtype), budget.part(PART))
    except Expired:
        return None


def _is_box(region: Region) -> bool:
    return type(region) is Box or (isinstance(region, LpBall) and region.p == inf)


def _lower_rows(chain: Chain, box: tuple[Tensor, Tensor], objective: Tensor, budget: Budget) -> Tensor | None:
    kind, first = chain.precision, chain.layers[0]
    x = Bounds(*(side.flatten(1) for side in box))
    centre, far = middle_and_radius(x)
    walk = Walk(far, budget)
    reach, size = F.linear(torch.cat([far, largest(x)]), first.steep).chunk(2)
    size = size + first.size
    middle = F.linear(centre.double(), *chain.double).to(far)
    # In float32 the value at the centre, worked out in float64, is rounded but few times.
    own = FEW * kind.unit if kind is SINGLE else first.lost
    error = reach * (1 + first.lost) + (2 * own * size + kind.dust)
    z = Bounds(middle - error, middle + error)
    # Going back, sums are as long as there are outputs; over the inputs magnitudes alone are summed.
    lost = own * size + (first.bent * middle.abs() + (first.bent + chain.at_input) * reach + kind.dust)
    walk.odd.append(kind.beyond - size.amax())
    into, constant = first.weight, middle
    for layer, above in pairwise(chain.layers):
        budget.check()
        kept, value = _enter(walk, layer, kind, z, lost, into, constant)
        into, constant = above.weight.index_select(1, kept), above.bias
        middle, radius = middle_and_radius(value)
        reach, size = F.linear(torch.cat([radius, value.upper]), into.abs()).chunk(2)
        size = size + above.size
        lost = above.lost * size + kind.dust
        walk.odd.append(kind.beyond - size.amax())
        if above is chain.layers[-1]:
            break
        error = reach + (above.wide * size + kind.dust)
        middle = F.linear(middle, into, constant)
        known = _met(walk, kind, Bounds(middle - error, middle + error), lost, into, constant)
        if known is None:
            return None
        z = known
    summed = radius + layer.bent * value.upper
    lower = _of_objective(walk, kind, objective, lost, into, constant, Bounds(middle, summed))
    ordinary = bool(torch.stack(walk.odd).ge(0).all()) and bool(lower.isfinite().all())
    return lower if ordinary else None


def _enter(
    walk: Walk, layer: Layer, kind: Precision, z: Bounds, lost: Tensor, into: Tensor, constant: Tensor
) -> tuple[Tensor, Bounds]:
    """Relax the activations that read ``z``, the value of a ``layer`` (samples x outputs), of which rows lose ``lost``;
    ``into``: its weight (outputs x kept below), ``constant``: its bias, or value at the centre. The features that are
    kept, and the activations' intervals (samples x kept)."""
    kept = (~(z.upper <= 0)).any(0).nonzero().flatten()
    z = Bounds(z.lower.index_select(1, kept), z.upper.index_select(1, kept))
    lines = relax(RELU, z)
    steepest = torch.maximum(lines.slope, lines.slope + lines.slope_gap)
    taken = steepest * (layer.bent * largest(z) + lost.index_select(1, kept))
    taken += layer.bent * lines.intercept_gap + kind.dust
    constant = constant.index_select(-1, kept).expand_as(taken)
    table = torch.stack([lines.slope, lines.slope_gap, lines.intercept_gap + 2 * taken, -taken, constant], 1)
    walk.levels.append(Level(table, into.index_select(0, kept)))
    return kept, Bounds(z.lower.clamp(min=0), z.upper.clamp(min=0))


def _met(walk: Walk, kind: Precision, z: Bounds, lost: Tensor, into: Tensor, constant: Tensor) -> Bounds | None:
    """``z``, the intervals of a layer (samples x outputs), which are overwritten, met with linear bounds of the neurons
    that are undecided; None where float32 leaves hardly any of these bounds. Other arguments as above."""
    sample, feature = ((z.lower < 0) & (z.upper > 0)).nonzero().unbind(1)
    if not sample.shape[0]:
        return z
    place = sample * into.shape[0] + feature
    lower, upper, lost = (t.flatten().index_select(0, place) for t in (z.lower, z.upper, lost))
    if kind is SINGLE and 2 * int((lost < upper - lower).sum()) < lost.shape[0]:
        return None
    rows, offset = into.index_select(0, feature), constant.index_select(0, feature)
    lost = lost + kind.dust
    if rows.shape[0] <= FEW_ROWS:
        both = walk.down(_sided(rows), _sided(offset) - lost.repeat_interleave(2), sample.repeat_interleave(2))
        below, above = both.view(-1, 2).unbind(1)
        upper = torch.minimum(upper, -above)
    else:
        upper = torch.minimum(upper, -walk.down(-rows, -offset - lost, sample))
        active = (upper > 0).nonzero().flatten()  # of others nobody reads the lower end
        rows, total, sample = (t.index_select(0, active) for t in (rows, offset - lost, sample))
        below = torch.full_like(lower, -inf).index_copy_(0, active, walk.down(rows, total, sample))
    lower = torch.maximum(lower, below)
    walk.odd.append((upper - lower).amin())
    z.lower.view(-1).index_copy_(0, place, lower)
    z.upper.view(-1).index_copy_(0, place, upper)
    return z


def _sided(values: Tensor) -> Tensor:
    """Each of the values (rows x ...), and then its opposite."""
    return torch.stack([values, -values], 1).flatten(0, 1)


def _of_objective(
    walk: Walk, kind: Precision, objective: Tensor, lost: Tensor, into: Tensor, constant: Tensor, value: Bounds
) -> Tensor:
    """Lower bounds of an objective: (samples x rows). By linear bounds, and by the last activations' intervals, whose
    middle and radius ``value`` has; the larger."""
    samples, count, _ = objective.shape
    total = objective @ constant - (objective.abs() @ lost[..., None])[..., 0] - kind.dust
    rows = objective @ into
    least = total + (rows @ value.lower[..., None] - rows.abs() @ value.upper[..., None])[..., 0] - kind.dust
    sample = torch.arange(samples).repeat_interleave(count)
    linear = walk.down(rows.flatten(0, 1), total.flatten(), sample)
    return torch.maximum(least, linear.view(samples, count))
