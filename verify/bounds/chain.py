"""CROWN of a chain of dense layers and convolutions with ReLUs between them, over boxes: all of a group's rows at once.

Rows belong to samples, as many to each as it has neurons that are undecided, and stand beside one another (features x
rows). Behind dense layers, neurons that are inactive for all samples of the group are left out, of rows and of weights
alike, before anything is multiplied. Rows of a convolution's neurons are kept on windows of the image
(:mod:`assay.verify.bounds.patches`) as long as these are small. What an activation does to a row, its lines, what
rounding takes and the constant of the layer below, is one table.

Bounds are those of :mod:`assay.verify.bounds.columns` up to what is charged for rounding, as
:mod:`assay.verify.bounds.rounding` tells, here with sums over features made in blocks: what float32 loses in these
grows with a block's length alone. Whatever is out of the ordinary, numbers that are not finite or are beyond what is
counted, intervals that cross, is left to the columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import inf, prod

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.verify.bounds import patches
from assay.verify.bounds.forms import Owners, Patches, pad
from assay.verify.bounds.matrix import Cut, matrix
from assay.verify.bounds.memo import per_network
from assay.verify.bounds.patches import before
from assay.verify.bounds.relax import relax
from assay.verify.bounds.relaxed import middle_and_radius
from assay.verify.bounds.rounding import DOUBLE, FEW, SINGLE, STEPS, Precision, largest, precision
from assay.verify.core.budget import Budget, Expired
from assay.verify.core.network import Network
from assay.verify.core.ops import Conv2d, Linear, Op, Relu, Reshape
from assay.verify.core.region import Box, LpBall, Region
from assay.verify.core.roundings import terms
from assay.verify.core.verifier import Bounds
from assay.verify.support import devices
from assay.verify.support.floats import gamma

COPIES = 12  # of a block of coefficients that live at once, with what is done to them
MANY = 1 << 18  # coefficients of the rows that are on their way together, in the widest layer
BLOCK = 5 << 17  # bytes of the rows that are at the input together: they stay in cache
ENOUGH = 64  # rows that are on their way together in any case, where memory allows
FEW_ROWS = 128  # up to which both sides of neurons are bounded at once
SUMMED = 128  # products in each block of a sum over features
FEW_DEAR = 24  # the same where there are convolutions
CUTTING, KEPT = 96, 0.75  # rows from which on a convolution's matrix is cut, if no more of its features are kept
SMALL = 0.4  # of an image's features a window has less
PART = 0.25  # of the time that is left may be used here: the rest is for those who keep some for the rows

RELU = Relu()


@dataclass(frozen=True, eq=False)
class Layer:
    """An affine operation in the precision of the bounds, from ``shape``: the magnitude ``steep`` of its weight, its
    ``bias`` and that's ``size`` (outputs); ``wide``, of magnitudes, is lost in an interval."""

    op: Linear | Conv2d
    shape: tuple[int, ...]
    grid: tuple[int, ...]
    steep: Tensor
    bias: Tensor
    size: Tensor
    wide: float

    def products(self, values: Tensor, weight: Tensor) -> Tensor:
        """The operation's sums without its bias, by a ``weight`` that is its own or of its magnitudes, of some inputs
        if it is dense: (n x inputs) to (n x outputs)."""
        if isinstance(self.op, Linear):
            return F.linear(values, weight)
        op = self.op
        return F.conv2d(values.view(-1, *self.shape), weight, None, op.stride, op.padding).flatten(1)

    def back(self, below: Tensor | None, kept: Tensor | None) -> Cut:
        """A convolution's matrix that takes rows of features that are ``kept`` back to those kept ``below``; None is
        all."""
        return matrix(self.op, self.shape).cut(below, kept)

    def rows(self, feature: Tensor, sign: Tensor, weight: Tensor) -> Tensor | Patches:
        """Neurons or, where ``sign`` is -1, their opposites as rows of what is read: (inputs x rows), or windows."""
        if isinstance(self.op, Linear):
            return (weight.index_select(0, feature) * sign[:, None]).T
        op, (height, width) = self.op, self.grid[1:]
        channel = feature // (height * width)
        place = (feature - channel * (height * width)).int()
        y = torch.div(place, width, rounding_mode="floor")
        coef = op.weight.flatten(1).T.index_select(1, channel) * sign
        assert len(self.shape) == 3
        window = (op.weight.shape[2], op.weight.shape[3])
        rows = Patches(coef, self.shape, window, (y, place - y * width), op.stride, op.padding, op.padding)
        return rows if small(self, window) else rows.dense()


@dataclass(frozen=True, eq=False)
class Chain:
    """The layers of a network, the weight of the first of them and its bias in float64.

    Of magnitudes are lost: ``back``, in coefficients of a row that goes back through a layer; ``summed``, in a sum over
    features; ``at_input``, in one over all inputs; ``few``, wherever but few operations are made.
    """

    layers: tuple[Layer, ...]
    double: tuple[Tensor, Tensor]
    precision: Precision
    back: float
    summed: float
    at_input: float
    few: float


@per_network
def chain_of(network: Network) -> Chain | None:
    """The network, whose tensors are of the precision of the bounds, as a chain; None where it is none."""
    nodes = network.nodes
    positions = [position for position, node in enumerate(nodes) if position and not isinstance(node.op, Reshape)]
    if any(node.inputs != (position,) for position, node in enumerate(nodes[1:])) or len(positions) % 2 == 0:
        return None
    affine, bends = ([nodes[i].op for i in some] for some in (positions[::2], positions[1::2]))
    if not (bends and all(isinstance(op, Relu) for op in bends) and isinstance(affine[-1], Linear)):
        return None
    kind = SINGLE if affine[-1].weight.dtype == torch.float32 else DOUBLE
    layers = []
    for position in positions[::2]:
        node, shape = nodes[position], nodes[nodes[position].inputs[0]].shape
        layer = _layer(node.op, shape, node.shape, kind)
        if layer is None:
            return None
        layers.append(layer)
    widest = max(node.size for node in nodes)
    steps = FEW + sum(STEPS + kind.conversions + len(node.inputs) for node in nodes)
    most = max(widest, *(terms(layer.op) for layer in layers))
    own = gamma(most + steps, kind.unit)  # of the losses themselves
    summed = max(nodes[-1].size, min(widest, max(2 * SUMMED, SUMMED + 2 + widest // SUMMED)))
    counts = max(_readers(layer.op) for layer in layers), summed, nodes[0].size, 0
    shares = (gamma(count + steps, kind.unit) * (1 + 16 * own) if own < 1 / 16 else inf for count in counts)
    return Chain(tuple(layers), (layers[0].op.weight.double(), layers[0].bias.double()), kind, *shares)


def _layer(op: Op, shape: tuple[int, ...], grid: tuple[int, ...], kind: Precision) -> Layer | None:
    """None for what is neither a dense layer nor a convolution of all channels."""
    if not isinstance(op, (Linear, Conv2d)) or op.weight.requires_grad or op.bias.requires_grad:
        return None
    if isinstance(op, Linear) and len(grid) > 1:
        return None  # one weight for each place of an axis
    if isinstance(op, Conv2d) and (op.groups > 1 or op.dilation != (1, 1)):
        return None
    bias = op.bias if isinstance(op, Linear) else op.bias.view(-1, 1, 1).expand(grid).flatten()
    return Layer(op, shape, grid, op.weight.abs(), bias, bias.abs(), 2 * gamma(terms(op) + FEW, kind.unit))


def _readers(op: Linear | Conv2d) -> int:
    """How many products are summed into one coefficient of an input, at most."""
    if isinstance(op, Linear):
        return len(op.weight)
    taps = (-(-k // s) for k, s in zip(op.weight.shape[2:], op.stride, strict=True))
    return len(op.weight) * prod(taps)


@dataclass(frozen=True, eq=False)
class Level:
    """Activations that rows meet, those that may be active for any sample, and the ``layer`` below them.

    ``table``: what is done to coefficients of each (4 x samples x kept): the slope of the lower line, how much steeper
    the upper one is, what all coefficients gain and what negative ones gain besides. ``into``: the matrix of that
    layer, from those kept to those kept below; of a dense layer it is the weight. ``whole``, ``kept``: the table of all
    features, and which of them are kept, of a convolution; all where it is None.
    """

    table: Tensor
    into: Tensor | Cut
    layer: Layer
    whole: Tensor
    kept: Tensor | None = None

    def cut(self, rows: Tensor) -> Tensor:
        """Rows of all features of the activations (features x rows) as those of what is kept."""
        return rows if self.kept is None else rows.index_select(0, self.kept)

    def bend(self, rows: Tensor, owners: Owners) -> tuple[Tensor, Tensor]:
        """Rows of the activations (kept x rows) as those of what they read, and what these gain: (rows)."""
        negative = rows.clamp(max=0)
        if isinstance(self.into, Tensor):
            slope, steeper, all_, negatives = (side.T for side in self._of_rows(owners))
            gain = summed((rows * all_).addcmul_(negative, negatives))
        else:
            slope, steeper, all_, negatives = self.table[:, owners.samples]
            gain = dot(all_, rows, owners) + dot(negatives, negative, owners)
            slope, steeper = owners.over(slope.T), owners.over(steeper.T)
        return (rows * slope).addcmul_(negative, steeper), gain

    def _of_rows(self, owners: Owners) -> Tensor:
        """The table of each row's sample: (4 x rows, or 1 for all, x kept)."""
        here = self.table[:, owners.samples]
        return here if here.shape[1] == 1 else here.index_select(1, owners.sample)

    def back(self, rows: Tensor, beside: bool) -> Tensor:
        """Rows of the layer's value (kept x rows) as those of what it reads; ``beside``: whether rows are to stand
        beside one another in memory, and not below."""
        if not isinstance(self.into, Tensor):
            return self.into.pull(rows)
        return self.into.T @ rows if beside else (rows.T @ self.into).T

    def bend_windows(self, rows: Patches, owners: Owners) -> tuple[Patches, Tensor]:
        """The same on windows of the image; beyond it there is nothing."""
        table = self.whole[:, owners.samples]
        slope, steeper, all_, negatives = owners.at(pad(table.flatten(0, 1).T, rows).view(4, -1), rows)
        negative = rows.coef.clamp(max=0)
        gain = summed((rows.coef * all_).addcmul_(negative, negatives))
        return replace(rows, coef=(rows.coef * slope).addcmul_(negative, steeper)), gain


def dot(values: Tensor, rows: Tensor, owners: Owners) -> Tensor:
    """Each row's coefficients (features x rows) times its sample's values (samples present x features), summed up in
    blocks: (rows)."""
    size = values.shape[1]
    if size <= 2 * SUMMED:
        return of_owners(values @ rows, owners)
    rest, size = size % SUMMED, size - size % SUMMED
    blocks = values[:, :size].view(values.shape[0], -1, SUMMED).transpose(0, 1)
    total = torch.bmm(blocks, rows[:size].view(-1, SUMMED, rows.shape[1])).sum(0)
    return of_owners(total + values[:, size:] @ rows[size:] if rest else total, owners)


def of_owners(values: Tensor, owners: Owners) -> Tensor:
    """Of values for each sample present and row, those of the rows' samples: (samples present x rows) to (rows)."""
    return values[0] if values.shape[0] == 1 else torch.gather(values, 0, owners.sample[None])[0]


def summed(values: Tensor) -> Tensor:
    """Sums of columns, in blocks: (n x rows) to (rows)."""
    size = values.shape[0] // SUMMED * SUMMED
    if values.shape[0] <= 2 * SUMMED:
        return values.sum(0)
    return values[size:].sum(0) + values[:size].view(-1, SUMMED, values.shape[1]).sum(1).sum(0)


@dataclass(frozen=True, eq=False)
class Walk:
    """Rows of a group of samples on their way to the input, over boxes of this ``radius`` (samples x inputs) about the
    centres that the first layer's constant is the value at. ``count``: of the objective's rows. ``odd``: numbers that
    are all at least 0 if nothing is out of the ordinary."""

    radius: Tensor
    budget: Budget
    count: int
    levels: list[Level] = field(default_factory=list)
    odd: list[Tensor] = field(default_factory=list)

    @property
    def dear(self) -> bool:
        """Whether rows go through convolutions."""
        return any(isinstance(level.layer.op, Conv2d) for level in self.levels)

    def down(self, rows: Tensor | Patches, total: Tensor, sample: Tensor) -> Tensor:
        """Lower bounds of ``rows`` (kept x rows, or windows) of the activations met last and of ``total`` (rows), for
        the samples that they belong to (rows), of which neighbours have the same or the next: (rows)."""
        widest = max(1, *(level.table.shape[2] for level in self.levels))
        memory = self.budget.memory // (COPIES * total.element_size() * widest)
        most = max(1, int(min(max(ENOUGH, MANY // widest), memory)))
        count = total.shape[0]
        if count <= most:
            return self._down(rows, total, sample)
        pieces = [slice(begin, begin + most) for begin in range(0, count, most)]
        return torch.cat([self._down(_piece(rows, p), total[p], sample[p]) for p in pieces])

    def _down(self, rows: Tensor | Patches, total: Tensor, sample: Tensor) -> Tensor:
        self.budget.check()
        owners = Owners.of(sample, total.dtype, self.radius.shape[0])
        for number in range(len(self.levels) - 1, -1, -1):
            level, beside = self.levels[number], number > 0 and not isinstance(self.levels[number - 1].into, Tensor)
            if isinstance(rows, Patches):
                rows, gain = level.bend_windows(rows, owners)
                rows = through(level, rows, beside, first=number == 0)
            else:
                rows, gain = level.bend(rows, owners)
                rows = level.back(rows, beside) if number else rows
            total = total + gain
        if isinstance(rows, Patches):
            (there,) = owners.at(pad(self.radius[owners.samples].T, rows).view(1, -1), rows)
            return total - summed(there.mul_(rows.coef.abs()))
        return total - self._reach(rows, sample)

    def _reach(self, rows: Tensor, sample: Tensor) -> Tensor:
        """How far rows of the first layer's value (kept x rows) go from that at the centre: (rows)."""
        most = max(1, BLOCK // (self.radius.shape[1] * rows.element_size()))
        reach = []
        for begin in range(0, sample.shape[0], most):
            piece = slice(begin, begin + most)
            owners = Owners.of(sample[piece], rows.dtype, self.radius.shape[0])
            coef = self.levels[0].back(rows[:, piece], beside=False).abs_()
            reach.append(of_owners(self.radius[owners.samples] @ coef, owners))
        return reach[0] if len(reach) == 1 else torch.cat([rows.new_zeros(0), *reach])


def _piece(rows: Tensor | Patches, piece: slice) -> Tensor | Patches:
    """Some of the rows."""
    if isinstance(rows, Tensor):
        return rows[:, piece]
    (y, x), coef = rows.origin, rows.coef[:, piece].contiguous()
    return replace(rows, coef=coef, origin=(y[piece], x[piece]))


def through(level: Level, rows: Patches, beside: bool, first: bool) -> Tensor | Patches:
    """Windows of a layer's value as rows of what it reads, on windows as long as these are small; as rows of the value
    itself where they are not and the layer is the ``first``, which :meth:`Walk._reach` goes through."""
    op = level.layer.op
    if isinstance(op, Conv2d) and small(level.layer, before(op, rows.window)):
        return patches.through(op, rows, level.layer.shape)
    dense = level.cut(rows.dense())
    return dense if first else level.back(dense, beside)


def small(layer: Layer, window: tuple[int, int]) -> bool:
    """Whether a window of what a convolution reads has so few elements that rows are kept on it."""
    return layer.shape[0] * prod(window) < SMALL * prod(layer.shape)


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
    walk = Walk(far, budget, objective.shape[0] * objective.shape[1])
    reach, size = first.products(torch.cat([far, largest(x)]), first.steep).chunk(2)
    size = size + first.size
    weight, bias = chain.double
    middle = (first.products(centre.double(), weight) + bias).to(far)
    # In float32 the value at the centre, worked out in float64, is rounded but few times.
    own = FEW * kind.unit if kind is SINGLE else first.wide
    error = reach * (1 + first.wide) + (2 * own * size + kind.dust)
    z = Bounds(middle - error, middle + error)
    # Of a row the value at the centre is taken as it is, and magnitudes alone are summed over the inputs.
    lost = own * size + (chain.summed * middle.abs() + ((chain.back + chain.at_input) * reach + kind.dust))
    walk.odd.append(kind.beyond - size.amax())
    weight, constant = first.op.weight, middle
    for layer, above in pairwise(chain.layers):
        budget.check()
        kept, value = _enter(walk, chain, layer, above, z, lost, weight, constant)
        weight, steep, constant = above.op.weight, above.steep, above.bias
        if kept is not None:
            weight = weight.index_select(1, kept)
            steep = weight.abs()
        middle, radius = middle_and_radius(value)
        reach, size = above.products(torch.cat([radius, value.upper]), steep).chunk(2)
        lost = chain.back * size + (chain.summed * above.size + kind.dust)
        size = size + above.size
        walk.odd.append(kind.beyond - size.amax())
        if above is chain.layers[-1]:
            break
        error = reach + (above.wide * size + kind.dust)
        middle = above.products(middle, weight) + constant
        known = _met(walk, kind, above, Bounds(middle - error, middle + error), lost, weight)
        if known is None:
            return None
        z = known
    share = chain.layers[-1].wide + chain.few
    lower = _of_objective(walk, kind, objective, lost, weight, constant, Bounds(middle, radius + share * value.upper))
    ordinary = bool(torch.stack(walk.odd).ge(0).all()) and bool(lower.isfinite().all())
    return lower if ordinary else None


def _enter(
    walk: Walk, chain: Chain, layer: Layer, above: Layer, z: Bounds, lost: Tensor, weight: Tensor, constant: Tensor
) -> tuple[Tensor | None, Bounds]:
    """Relax the activations that read ``z``, the value of a ``layer`` (samples x outputs), of which rows lose ``lost``;
    ``weight``: the layer's, of the inputs that are kept, ``constant``: its bias, or value at the centre. The features
    that are kept for the layer ``above``, None if all are, and the activations' intervals (samples x kept)."""
    kept, dense = None, isinstance(layer.op, Linear)
    if dense and isinstance(above.op, Linear):
        kept = (~(z.upper <= 0)).any(0).nonzero().flatten()
        z = Bounds(z.lower.index_select(1, kept), z.upper.index_select(1, kept))
        lost, constant = lost.index_select(1, kept), constant.index_select(-1, kept)
        weight = weight.index_select(0, kept)
    lines = relax(RELU, z)
    steepest = torch.maximum(lines.slope, lines.slope + lines.slope_gap)
    taken = steepest * (chain.few * largest(z) + lost)
    taken += chain.summed * lines.intercept_gap + chain.precision.dust
    all_ = lines.slope * constant - taken
    # Of a negative coefficient the constant is summed up in two parts, each of which may be larger than what they make.
    other = lines.slope_gap * constant
    negatives = (other + lines.intercept_gap).add_(taken, alpha=2).add_(other.abs(), alpha=chain.summed)
    value = Bounds(z.lower.clamp(min=0), z.upper.clamp(min=0))
    whole = table = torch.stack([lines.slope, lines.slope_gap, all_, negatives])
    if dense:
        walk.levels.append(Level(table, weight, layer, whole))
        return kept, value
    if walk.count >= CUTTING:
        possible = (~(z.upper <= 0)).any(0).nonzero().flatten()
        if possible.shape[0] <= KEPT * whole.shape[2]:
            kept, table = possible, whole.index_select(2, possible)
    into = layer.back(walk.levels[-1].kept if walk.levels else None, kept)
    walk.levels.append(Level(table, into, layer, whole, kept))
    if kept is None or isinstance(above.op, Conv2d):
        return None, value
    return kept, Bounds(value.lower.index_select(1, kept), value.upper.index_select(1, kept))


def _met(walk: Walk, kind: Precision, layer: Layer, z: Bounds, lost: Tensor, weight: Tensor) -> Bounds | None:
    """``z``, the intervals of a ``layer`` (samples x outputs), which are overwritten, met with linear bounds of the
    neurons that are undecided; None where float32 leaves hardly any of these bounds. Other arguments as above."""
    sample, feature = ((z.lower < 0) & (z.upper > 0)).nonzero().unbind(1)
    if not sample.shape[0]:
        return z
    place = sample * z.lower.shape[1] + feature
    lower, upper, lost = (t.flatten().index_select(0, place) for t in (z.lower, z.upper, lost))
    if kind is SINGLE and 2 * int((lost < upper - lower).sum()) < lost.shape[0]:
        return None
    lost, offset = lost + kind.dust, layer.bias.index_select(0, feature)

    def least(sign: Tensor, number: Tensor | None = None) -> Tensor:
        some = (feature, offset, lost, sample)
        of, constant, less, owner = some if number is None else (t.index_select(0, number) for t in some)
        rows = layer.rows(of, sign, weight)
        if isinstance(layer.op, Conv2d) and isinstance(rows, Tensor):
            rows = walk.levels[-1].cut(rows)
        return walk.down(rows, constant * sign - less, owner)

    one = torch.ones_like(lower)
    if lower.shape[0] <= (FEW_DEAR if walk.dear else FEW_ROWS):
        twice = torch.arange(lower.shape[0]).repeat_interleave(2)
        below, above = least(torch.stack([one, -one], 1).flatten(), twice).view(-1, 2).unbind(1)
        lower, upper = torch.maximum(lower, below), torch.minimum(upper, -above)
    else:
        # The side that is nearer to 0 first: of neurons that it settles nobody reads the other, or hardly.
        sign = torch.where(lower + upper < 0, -one, one) if walk.dear else -one
        for side in (sign, -sign):
            number = ((upper > 0) & (lower < 0)).nonzero().flatten()
            if number.shape[0]:
                side = side.index_select(0, number)
                found = side * least(side, number)
                old = lower.index_select(0, number), upper.index_select(0, number)
                lower[number] = torch.where(side > 0, torch.maximum(old[0], found), old[0])
                upper[number] = torch.where(side < 0, torch.minimum(old[1], found), old[1])
    walk.odd.append((upper - lower).amin())
    z.lower.view(-1).index_copy_(0, place, lower)
    z.upper.view(-1).index_copy_(0, place, upper)
    return z


def _of_objective(
    walk: Walk, kind: Precision, objective: Tensor, lost: Tensor, weight: Tensor, constant: Tensor, value: Bounds
) -> Tensor:
    """Lower bounds of an objective: (samples x rows). By linear bounds, and by the last activations' intervals, whose
    middle and radius ``value`` has; the larger."""
    samples, count, _ = objective.shape
    total = objective @ constant - (objective.abs() @ lost[..., None])[..., 0] - kind.dust
    rows = objective @ weight
    least = total + (rows @ value.lower[..., None] - rows.abs() @ value.upper[..., None])[..., 0] - kind.dust
    sample = torch.arange(samples).repeat_interleave(count)
    linear = walk.down(rows.flatten(0, 1).T, total.flatten(), sample)
    return torch.maximum(least, linear.view(samples, count))
