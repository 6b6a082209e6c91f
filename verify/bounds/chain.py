"""CROWN of networks of dense layers, convolutions and sums with ReLUs between them, over boxes: ragged rows of a group.

Rows belong to samples, as many to each as it has neurons that are undecided, and stand beside one another (features x
rows). Behind dense layers, neurons that are inactive for all samples of the group are left out, of rows and of weights
alike, before anything is multiplied. Rows of a convolution's neurons are kept on windows of the image
(:mod:`assay.verify.bounds.patches`) as long as these are small. What an activation does to a row, its lines, what
rounding takes and the constant of what it reads, is one table; so affine operations leave nothing to be added up.

Bounds are those of :mod:`assay.verify.bounds.columns` up to what is charged for rounding, as
:mod:`assay.verify.bounds.rounding` tells, here with sums over features made in blocks: what float32 loses in these
grows with a block's length alone. Whatever is out of the ordinary, numbers that are not finite or are beyond what is
counted, intervals that cross, is left to the columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf, prod

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.verify.bounds import patches
from assay.verify.bounds.forms import (
    AnyForm,
    Form,
    Owners,
    Patches,
    Units,
    add,
    dense,
    multiple,
    on_support,
    pad,
    windows,
)
from assay.verify.bounds.matrix import Cut, matrix
from assay.verify.bounds.memo import per_network
from assay.verify.bounds.patches import before
from assay.verify.bounds.relax import relax, undecided
from assay.verify.bounds.relaxed import middle_and_radius
from assay.verify.bounds.rounding import DOUBLE, FEW, SINGLE, STEPS, Precision, largest, precision
from assay.verify.bounds.walk import propagate_backwards
from assay.verify.core.budget import Budget, Expired
from assay.verify.core.network import Network, Node
from assay.verify.core.ops import Add, Conv2d, Linear, Op, Relu, Reshape
from assay.verify.core.region import Box, LpBall, Region
from assay.verify.core.roundings import terms
from assay.verify.core.verifier import Bounds
from assay.verify.support import devices
from assay.verify.support.floats import gamma

COPIES = 12  # of a block of coefficients that live at once, with what is done to them
MANY = 1 << 20  # coefficients of the rows that are on their way together, in the widest layer
BLOCK = 5 << 17  # bytes of the rows that are at the input together: they stay in cache
ENOUGH = 64  # rows that are on their way together in any case, where memory allows
FEW_ROWS = 512  # up to which both sides of neurons are bounded at once
SUMMED = 128  # products in each block of a sum over features
FEW_DEAR = 24  # the same where there are convolutions
CUTTING, KEPT = 128, 0.75  # rows from which on an image's matrices are cut, if no more of its features are kept
SMALL = 0.4  # of an image's features a window has less
SUMMING = {torch.float32}  # where sums are taken: in float64 columns are as tight, and faster
TOGETHER = 256  # samples of dense networks that are bounded together
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

    def rows(self, neurons: Units, weight: Tensor, kept: Tensor | None) -> Form | Patches:
        """Multiples of neurons as rows of what is read, of which a dense layer's ``weight`` reads what is ``kept``."""
        if isinstance(self.op, Linear):
            return Form((weight.index_select(0, neurons.feature) * neurons.value[:, None]).T, kept)
        op, (height, width) = self.op, self.grid[1:]
        channel = neurons.feature // (height * width)
        place = (neurons.feature - channel * (height * width)).int()
        y = torch.div(place, width, rounding_mode="floor")
        coef = op.weight.flatten(1).T.index_select(1, channel) * neurons.value
        assert len(self.shape) == 3
        window = (op.weight.shape[2], op.weight.shape[3])
        rows = Patches(coef, self.shape, window, (y, place - y * width), op.stride, op.padding, op.padding)
        return rows if small(self, window) else Form(rows.dense())


@dataclass(frozen=True, eq=False)
class Chain:
    """A network by the positions of its nodes, without reshapings: what each ``reads``; activations that ``dense``
    layers alone read; which nodes are ``bent`` by activations; the ``layers`` and the first of them, the ``entrance``,
    with its weight and bias in float64.

    Of magnitudes are lost: ``back``, in coefficients of a row that goes back through a layer; ``summed``, in a sum over
    features; ``at_input``, in one over all inputs; ``few``, wherever but few operations are made.
    """

    nodes: Sequence[Node]
    reads: dict[int, tuple[int, ...]]
    dense: frozenset[int]
    bent: frozenset[int]
    layers: dict[int, Layer]
    entrance: int
    double: tuple[Tensor, Tensor]
    precision: Precision
    back: float
    summed: float
    at_input: float
    few: float

    @property
    def dear(self) -> bool:
        """Whether rows go through convolutions."""
        return any(isinstance(layer.op, Conv2d) for layer in self.layers.values())

    @property
    def sums(self) -> bool:
        """Whether rows meet where paths do."""
        return any(isinstance(self.nodes[position].op, Add) for position in self.reads)

    def is_image(self, position: int) -> bool:
        """Whether a layer or a sum has an image's value."""
        return len(self.nodes[position].shape) == 3


@per_network
def chain_of(network: Network) -> Chain | None:
    """The network, whose tensors are of the precision of the bounds; None where it holds anything else."""
    nodes, kinds = network.nodes, (Linear, Conv2d)
    behind = [0]  # what reshapings reshape
    for position, node in enumerate(nodes[1:], start=1):
        behind.append(behind[node.inputs[0]] if isinstance(node.op, Reshape) else position)
    reads = {
        position: tuple(behind[i] for i in node.inputs)
        for position, node in enumerate(nodes)
        if position and behind[position] == position
    }
    first, last = min(reads, default=0), len(nodes) - 1
    bends = {position for position in reads if isinstance(nodes[position].op, Relu)}
    for position, sources in reads.items():
        op = nodes[position].op
        of_layers = all(i and i not in bends for i in sources)
        fits = (
            sources == (0,) if position == first else set(sources) <= bends if isinstance(op, kinds)
            else of_layers if isinstance(op, Relu) else isinstance(op, Add) and 0 not in sources
        )  # fmt: skip
        if not fits or (position == first and not isinstance(op, kinds)):
            return None
    if not bends or not isinstance(nodes[-1].op, Linear) or any(last in sources for sources in reads.values()):
        return None
    weight = nodes[-1].op.weight
    kind = SINGLE if weight.dtype == torch.float32 else DOUBLE
    layers = {}
    for position in reads:
        node, shape = nodes[position], nodes[nodes[position].inputs[0]].shape
        if isinstance(node.op, kinds):
            layer = _layer(node.op, shape, node.shape, kind)
            if layer is None:
                return None
            layers[position] = layer
    apart = frozenset(i for i in bends if all(isinstance(nodes[p].op, Linear) for p in reads if i in reads[p]))
    widest = max(node.size for node in nodes)
    steps = FEW + sum(STEPS + kind.conversions + len(node.inputs) for node in nodes)
    most = max(widest, *(terms(layer.op) for layer in layers.values()))
    own = gamma(most + steps, kind.unit)  # of the losses themselves
    summed = max(nodes[-1].size, min(widest, max(2 * SUMMED, SUMMED + 2 + widest // SUMMED)))
    counts = max(_readers(layer.op) for layer in layers.values()), summed, nodes[0].size, 0
    shares = (gamma(count + steps, kind.unit) * (1 + 16 * own) if own < 1 / 16 else inf for count in counts)
    double, bent = (
        (layers[first].op.weight.double(), layers[first].bias.double()),
        frozenset(i for position in bends for i in reads[position]),
    )
    return Chain(nodes, reads, apart, bent, layers, first, double, kind, *shares)


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
class Known:
    """Of a node that is no activation (samples x features): the interval, of a layer or a sum; what rows ``lost`` that
    begin there, until activations are met; its ``constant``, the value were these all 0 (of all samples, or one for
    all); the ``size`` of what is summed up in it."""

    z: Bounds
    lost: Tensor
    constant: Tensor
    size: Tensor


@dataclass(frozen=True, eq=False)
class Level:
    """Activations that rows meet.

    ``table``: what is done to coefficients of each (4 x samples x kept): the slope of the lower line, how much steeper
    the upper one is, what all coefficients gain and what negative ones gain besides. ``kept``: features, those that may
    be active for any sample; all where it is None. ``value``: their intervals (samples x kept). ``image``: whether it
    is one that is read, of which all features are kept.
    """

    table: Tensor
    image: bool
    kept: Tensor | None
    value: Bounds

    @cached_property
    def cut(self) -> Level:
        """The same of those features alone that may be active for any sample, as far as it pays."""
        possible = (~(self.value.upper <= 0)).any(0).nonzero().flatten()
        if not self.image or possible.shape[0] > KEPT * self.table.shape[2]:
            return self
        return replace(self, table=self.table.index_select(2, possible), kept=possible)

    def bend(self, form: AnyForm, size: int, owners: Owners) -> tuple[Form, Tensor]:
        """Rows of the activations as those of what they read, and what these gain: (rows)."""
        rows = on_support(form, self.kept, size)
        negative = rows.clamp(max=0)
        if self.image:
            slope, steeper, all_, negatives = self.table[:, owners.samples]
            gain = dot(all_, rows, owners) + dot(negatives, negative, owners)
            slope, steeper = owners.over(slope.T), owners.over(steeper.T)
        else:
            slope, steeper, all_, negatives = (side.T for side in self._of_rows(owners))
            gain = summed((rows * all_).addcmul_(negative, negatives))
        return Form((rows * slope).addcmul_(negative, steeper), self.kept), gain

    def _of_rows(self, owners: Owners) -> Tensor:
        """The table of each row's sample: (4 x rows, or 1 for all, x kept)."""
        here = self.table[:, owners.samples]
        return here if here.shape[1] == 1 else here.index_select(1, owners.sample)

    def bend_windows(self, rows: Patches, owners: Owners) -> tuple[Patches, Tensor]:
        """The same on windows of all of an image; beyond it there is nothing."""
        table = self.table[:, owners.samples]
        slope, steeper, all_, negatives = owners.at(pad(table.flatten(0, 1).T, rows).view(4, -1), rows)
        negative = rows.coef.clamp(max=0)
        gain = summed((rows.coef * all_).addcmul_(negative, negatives))
        coef = (rows.coef * slope).addcmul_(negative, steeper)
        return replace(rows, coef=coef, clean=True, support=None), gain


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
class Ragged:
    """Rules for rows of a group of samples, as :mod:`assay.verify.bounds.walk` asks for them, down to the entrance.
    ``many``: whether there are so many that matrices are cut."""

    below: Below
    owners: Owners
    many: bool

    def pull(self, position: int, rows: AnyForm) -> tuple[Sequence[AnyForm], Tensor | None]:
        """See :class:`assay.verify.bounds.walk.Rules`."""
        below, node = self.below, self.below.chain.nodes[position]
        if position in below.levels:
            level = below.levels[position]
            if isinstance(rows, Units):
                rows = windows(rows, node.shape) if len(node.shape) == 3 else Form(dense(rows, node.size))
            if isinstance(rows, Patches):
                windowed, gain = level.bend_windows(rows, self.owners)
                return [windowed], gain
            level = level.cut if self.many else level
            bent, gain = level.bend(rows, node.size, self.owners)
            return [bent], gain
        if isinstance(node.op, Reshape):
            shape = below.chain.nodes[node.inputs[0]].shape
            return [Form(rows.dense()) if isinstance(rows, Patches) and shape != rows.grid else rows], None
        if isinstance(node.op, Add):
            return [rows, multiple(rows)], None
        return [below.back(position, rows, self.many)], None

    def add(self, position: int, a: AnyForm, b: AnyForm) -> AnyForm:
        """See :class:`assay.verify.bounds.walk.Rules`."""
        return add(a, b, self.below.chain.nodes[position].size)


@dataclass(frozen=True, eq=False)
class Below:
    """What rows of a group of samples meet on their way to the input, over boxes of this ``radius`` (samples x inputs)
    about the centres that the entrance's constant is the value at: ``levels`` by their positions, and each layer's
    weight (of a dense one, of the inputs that are kept). ``odd``: numbers that are all at least 0 if nothing is out of
    the ordinary."""

    chain: Chain
    radius: Tensor
    budget: Budget
    levels: dict[int, Level] = field(default_factory=dict)
    weights: dict[int, Tensor] = field(default_factory=dict)
    odd: list[Tensor] = field(default_factory=list)
    cuts: dict[tuple[int, int, int], Tensor | Cut] = field(default_factory=dict)

    def down(self, position: int, rows: AnyForm, total: Tensor, sample: Tensor) -> Tensor:
        """Lower bounds of ``rows`` of the value of the node at ``position`` and of ``total`` (rows), for the samples
        that they belong to (rows), of which neighbours have the same or the next: (rows)."""
        widest = max(1, *(level.table.shape[2] for level in self.levels.values()))
        memory = self.budget.memory // (COPIES * total.element_size() * widest)
        most = max(1, int(min(max(ENOUGH, MANY // widest), memory)))
        many, pieces = total.shape[0] >= CUTTING, self._pieces(sample, most)
        if len(pieces) == 1:
            return self._down(position, rows, total, sample, pieces[0][1], many)
        return torch.cat(
            [self._down(position, _piece(rows, p), total[p], sample[p], owners, many) for p, owners in pieces]
        )

    def _pieces(self, sample: Tensor, most: int) -> list[tuple[slice, Owners]]:
        """Rows of samples (rows) in pieces of so many, and whose these are."""
        count, kind = sample.shape[0], self.radius.dtype
        pieces = [slice(begin, min(begin + most, count)) for begin in range(0, max(count, 1), most)]
        if self.radius.shape[0] == 1 or not count:
            return [(piece, Owners(sample[piece], slice(0, 1), kind)) for piece in pieces]
        ends = sample[[end for piece in pieces for end in (piece.start, piece.stop - 1)]].tolist()
        present = [slice(first, last + 1) for first, last in zip(ends[::2], ends[1::2], strict=True)]
        return [
            (piece, Owners(sample[piece] - some.start, some, kind)) for piece, some in zip(pieces, present, strict=True)
        ]

    def _down(self, position: int, rows: AnyForm, total: Tensor, sample: Tensor, owners: Owners, many: bool) -> Tensor:
        self.budget.check()
        entrance = self.chain.entrance
        resting, total = propagate_backwards(
            self.chain.nodes, Ragged(self, owners, many), {position: rows}, total, until=lambda here: here == entrance
        )
        rows = resting[entrance]
        if isinstance(rows, Units) or (isinstance(rows, Patches) and self.remains(entrance, rows)):
            rows = self.back(entrance, rows, many)
            if isinstance(rows, Patches):
                (there,) = owners.at(pad(self.radius[owners.samples].T, rows).view(1, -1), rows)
                return total - summed(there.mul_(rows.coef.abs()))
            return total - of_owners(self.radius[owners.samples] @ rows.coef.abs(), owners)
        return total - self._reach(rows.form() if isinstance(rows, Patches) else rows, sample)

    def _reach(self, rows: Form, sample: Tensor) -> Tensor:
        """How far rows of the entrance's value go from that at the centre: (rows)."""
        most = max(1, BLOCK // (self.radius.shape[1] * rows.coef.element_size()))
        reach = []
        for piece, owners in self._pieces(sample, most):
            coef = self._times(self.chain.entrance, replace(rows, coef=rows.coef[:, piece]), None).abs_()
            reach.append(of_owners(self.radius[owners.samples] @ coef, owners))
        return reach[0] if len(reach) == 1 else torch.cat(reach)

    def back(self, position: int, rows: AnyForm, many: bool) -> Form | Patches:
        """Rows of a layer's value as those of what it reads, on windows as long as these are small."""
        layer, (source,) = self.chain.layers[position], self.chain.reads[position]
        if isinstance(rows, Units):
            return layer.rows(rows, self.weights[position], self.levels[source].kept if source else None)
        if isinstance(rows, Patches):
            if self.remains(position, rows):
                assert isinstance(layer.op, Conv2d)
                return patches.through(layer.op, rows, layer.shape)
            rows = rows.form()
        kept = None
        if source:
            kept = (self.levels[source].cut if many else self.levels[source]).kept
        return Form(self._times(position, rows, kept), kept)

    def remains(self, position: int, rows: Patches) -> bool:
        """Whether windows of a layer's value remain small as it is read."""
        layer = self.chain.layers[position]
        return isinstance(layer.op, Conv2d) and small(layer, before(layer.op, rows.window))

    def _times(self, position: int, rows: Form, kept: Tensor | None) -> Tensor:
        """Rows times a layer's matrix: (features of what it reads that are kept x rows). They stand beside one another
        in memory where a sparse matrix is next, or below."""
        (source,) = self.chain.reads[position]
        beside, some = source > 0 and self.levels[source].image, rows.support
        key = position, id(some), id(kept)  # supports live as long as the levels
        if key not in self.cuts:
            layer, weight = self.chain.layers[position], self.weights[position]
            if isinstance(layer.op, Conv2d):
                self.cuts[key] = layer.back(kept, some)
            else:
                weight = weight if some is None else weight.index_select(0, some)
                self.cuts[key] = weight.index_select(1, kept) if beside and kept is not None else weight
        cut = self.cuts[key]
        if not isinstance(cut, Tensor):
            return cut.pull(rows.coef)
        return cut.T @ rows.coef if beside else (rows.coef.T @ cut).T


def _piece(rows: AnyForm, piece: slice) -> AnyForm:
    """Some of the rows."""
    if isinstance(rows, Units):
        return Units(rows.feature[piece], rows.value[piece])
    if isinstance(rows, Form):
        return replace(rows, coef=rows.coef[:, piece])
    (y, x), coef = rows.origin, rows.coef[:, piece].contiguous()
    return replace(rows, coef=coef, origin=(y[piece], x[piece]))


def small(layer: Layer, window: tuple[int, int]) -> bool:
    """Whether a window of what a convolution reads has so few elements that rows are kept on it."""
    return layer.shape[0] * prod(window) < SMALL * prod(layer.shape)


def lower_rows(
    network: Network, region: Region, objective: Tensor, dtype: torch.dtype, budget: Budget
) -> Tensor | None:
    """Lower bounds of ``objective @ output`` over the boxes of a group of samples: objective (samples x rows x
    outputs), result (samples x rows). None where the network is no chain, or one with sums in float64, the region no
    box of a batch, something is out of the ordinary, float32 of no use, or part of the time did not suffice.

    Raises :class:`assay.verify.core.errors.InputError` as :func:`assay.verify.bounds.rounding.precision` does.
    """
    if not (_is_box(region) and devices.is_host(objective)) or budget.device != "cpu":
        return None
    precision(dtype)  # refuses what bounds do not allow for
    chain = chain_of(network.to(dtype))
    if chain is None or (chain.sums and dtype not in SUMMING):
        return None
    try:
        return _lower_rows(chain, region.box().outward(dtype), objective.to(dtype), budget.part(PART))
    except Expired:
        return None


def samples_together(network: Network, dtype: torch.dtype) -> int:
    """How many samples :func:`lower_rows` bounds best in one group, if that is many: operations are few where layers
    are dense, and what they cost apart from their numbers is shared."""
    chain = chain_of(network.to(dtype))
    return 0 if chain is None or chain.dear else TOGETHER


def _is_box(region: Region) -> bool:
    return type(region) is Box or (isinstance(region, LpBall) and region.p == inf)


def _lower_rows(chain: Chain, box: tuple[Tensor, Tensor], objective: Tensor, budget: Budget) -> Tensor | None:
    below, known = _begin(chain, box, budget)
    *inner, last = (position for position in chain.reads if position != chain.entrance)
    for position in inner:
        budget.check()
        sources = chain.reads[position]
        if isinstance(chain.nodes[position].op, Relu):
            below.levels[position] = _level(below, known[sources[0]], sources[0], position)
            continue
        if position in chain.layers:
            known[position] = _read(below, position)
        else:
            known[position] = _sum(chain, [_operand(below, known, i) for i in sources])
        below.odd.append(chain.precision.beyond - known[position].size.amax())
        if position in chain.bent:
            met = _met(below, position, known[position])
            if met is None:
                return None
            known[position] = replace(known[position], z=met)
    lower = _of_objective(below, last, objective)
    ordinary = bool(torch.stack(below.odd).ge(0).all()) and bool(lower.isfinite().all())
    return lower if ordinary else None


def _begin(chain: Chain, box: tuple[Tensor, Tensor], budget: Budget) -> tuple[Below, dict[int, Known]]:
    """What rows meet of the entrance over a box."""
    kind, first = chain.precision, chain.layers[chain.entrance]
    x = Bounds(*(side.flatten(1) for side in box))
    centre, far = middle_and_radius(x)
    below = Below(chain, far, budget, weights={chain.entrance: first.op.weight})
    reach, size = first.products(torch.cat([far, largest(x)]), first.steep).chunk(2)
    size = size + first.size
    weight, bias = chain.double
    middle = (first.products(centre.double(), weight) + bias).to(far)
    # In float32 the value at the centre, worked out in float64, is rounded but few times.
    own = FEW * kind.unit if kind is SINGLE else first.wide
    error = reach * (1 + first.wide) + (2 * own * size + kind.dust)
    # Of a row the value at the centre is taken as it is, and magnitudes alone are summed over the inputs.
    lost = own * size + (chain.summed * middle.abs() + ((chain.back + chain.at_input) * reach + kind.dust))
    below.odd.append(kind.beyond - size.amax())
    return below, {chain.entrance: Known(Bounds(middle - error, middle + error), lost, middle, size)}


def _read(below: Below, position: int) -> Known:
    """Of a layer that reads activations."""
    chain, layer = below.chain, below.chain.layers[position]
    kind, (middle, reach, size) = chain.precision, _products(below, position)
    lost = chain.back * size + (chain.summed * layer.size + kind.dust)
    size = size + layer.size
    error = reach + (layer.wide * size + kind.dust)
    return Known(Bounds(middle - error, middle + error), lost, layer.bias, size)


def _products(below: Below, position: int) -> tuple[Tensor, Tensor, Tensor]:
    """The layer's value at the middle of what it reads, how far it goes from there, and what its products come to:
    (samples x outputs) each. Notes its weight."""
    layer, (source,) = below.chain.layers[position], below.chain.reads[position]
    level, weight, steep = below.levels[source], layer.op.weight, layer.steep
    if isinstance(layer.op, Linear) and level.kept is not None:
        weight = weight.index_select(1, level.kept)
        steep = weight.abs()
    below.weights[position] = weight
    middle, radius = middle_and_radius(level.value)
    reach, size = layer.products(torch.cat([radius, level.value.upper]), steep).chunk(2)
    return layer.products(middle, weight) + layer.bias, reach, size


def _operand(below: Below, known: dict[int, Known], position: int) -> Known:
    """Of what a sum reads: an activation's coefficients lose but what few operations do until it is met."""
    if position in known:
        return known[position]
    value, chain = below.levels[position].value, below.chain
    lost = chain.few * value.upper + chain.precision.dust
    return Known(value, lost, value.upper.new_zeros(value.upper.shape[1]), value.upper)


def _sum(chain: Chain, operands: Sequence[Known]) -> Known:
    """Of the sum of two."""
    a, b = operands
    size = a.size + b.size
    own = chain.few * size + chain.precision.dust
    z = Bounds(a.z.lower + b.z.lower - own, a.z.upper + b.z.upper + own)
    return Known(z, a.lost + b.lost + own, a.constant + b.constant, size)


def _level(below: Below, known: Known, source: int, position: int) -> Level:
    """Relax activations that read what is ``known`` of the node ``source``."""
    chain, kept, image = below.chain, None, below.chain.is_image(source)
    z, lost, constant = known.z, known.lost, known.constant
    if position in chain.dense and not image:
        kept = (~(z.upper <= 0)).any(0).nonzero().flatten()
        z = Bounds(z.lower.index_select(1, kept), z.upper.index_select(1, kept))
        lost, constant = lost.index_select(1, kept), constant.index_select(-1, kept)
    lines = relax(RELU, z)
    steepest = torch.maximum(lines.slope, lines.slope + lines.slope_gap)
    taken = steepest * (chain.few * largest(z) + lost)
    taken += chain.summed * lines.intercept_gap + chain.precision.dust
    all_ = lines.slope * constant - taken
    # Of a negative coefficient the constant is summed up in two parts, each of which may be larger than what they make.
    other = lines.slope_gap * constant
    negatives = (other + lines.intercept_gap).add_(taken, alpha=2).add_(other.abs(), alpha=chain.summed)
    value = Bounds(z.lower.clamp(min=0), z.upper.clamp(min=0))
    return Level(torch.stack([lines.slope, lines.slope_gap, all_, negatives]), image, kept, value)


def _met(below: Below, position: int, known: Known) -> Bounds | None:
    """The intervals of a node, which are overwritten, met with linear bounds of the neurons that are undecided; None
    where float32 leaves hardly any of these bounds."""
    z, kind = known.z, below.chain.precision
    sample, feature = undecided(RELU, z).nonzero().unbind(1)
    if not sample.shape[0]:
        return z
    place = sample * z.lower.shape[1] + feature
    lower, upper, lost = (t.flatten().index_select(0, place) for t in (z.lower, z.upper, known.lost))
    if kind is SINGLE and 2 * int((lost < upper - lower).sum()) < lost.shape[0]:
        return None
    one_for_all = known.constant.dim() == 1
    offset = known.constant.flatten().index_select(0, feature if one_for_all else place)
    lost = lost + kind.dust

    def least(sign: Tensor, number: Tensor | None = None) -> Tensor:
        some = (feature, offset, lost, sample)
        of, constant, less, owner = some if number is None else (t.index_select(0, number) for t in some)
        return below.down(position, Units(of, sign), constant * sign - less, owner)

    one = torch.ones_like(lower)
    dear = below.chain.dear
    if lower.shape[0] <= (FEW_DEAR if dear else FEW_ROWS):
        twice = torch.arange(lower.shape[0]).repeat_interleave(2)
        low, high = least(torch.stack([one, -one], 1).flatten(), twice).view(-1, 2).unbind(1)
        lower, upper = torch.maximum(lower, low), torch.minimum(upper, -high)
    else:
        # The side that is nearer to 0 first: of neurons that it settles nobody reads the other, or hardly.
        sign = torch.where(lower + upper < 0, -one, one) if dear else -one
        for side in (sign, -sign):
            number = ((upper > 0) & (lower < 0)).nonzero().flatten()
            if number.shape[0]:
                side = side.index_select(0, number)
                found = side * least(side, number)
                old = lower.index_select(0, number), upper.index_select(0, number)
                lower[number] = torch.where(side > 0, torch.maximum(old[0], found), old[0])
                upper[number] = torch.where(side < 0, torch.minimum(old[1], found), old[1])
    below.odd.append((upper - lower).amin())
    z.lower.view(-1).index_copy_(0, place, lower)
    z.upper.view(-1).index_copy_(0, place, upper)
    return z


def _of_objective(below: Below, last: int, objective: Tensor) -> Tensor:
    """Lower bounds of an objective of the last layer's value: (samples x rows). By linear bounds, and by the intervals
    of the activations that it reads; the larger."""
    chain, layer, (source,) = below.chain, below.chain.layers[last], below.chain.reads[last]
    kind, level = chain.precision, below.levels[source]
    _, _, size = _products(below, last)
    below.odd.append(kind.beyond - (size + layer.size).amax())
    lost = chain.back * size + (chain.summed * layer.size + kind.dust)
    samples, count, _ = objective.shape
    total = objective @ layer.bias - (objective.abs() @ lost[..., None])[..., 0] - kind.dust
    rows = objective @ below.weights[last]
    middle, radius = middle_and_radius(level.value)
    radius = radius + (layer.wide + chain.few) * level.value.upper
    least = total + (rows @ middle[..., None] - rows.abs() @ radius[..., None])[..., 0] - kind.dust
    sample = torch.arange(samples).repeat_interleave(count)
    linear = below.down(source, Form(rows.flatten(0, 1).T, level.kept), total.flatten(), sample)
    return torch.maximum(least, linear.view(samples, count))
