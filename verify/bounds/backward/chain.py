"""CROWN of chains, over boxes: layer by layer, by rows of a group of samples.

The rows: :mod:`assay.verify.bounds.backward.ragged`.

Bounds are those of :mod:`assay.verify.bounds.backward.columns` up to what is charged for rounding, as
:mod:`assay.verify.bounds.rounding` tells, here with sums over features made in blocks: what float32 loses in these
grows with a block's length alone. Whatever is out of the ordinary, numbers that are not finite or are beyond what is
counted, intervals that cross, is left to the columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor

from assay.verify.bounds.backward.forms import Form, Units
from assay.verify.bounds.backward.layered import Chain, chain_of
from assay.verify.bounds.backward.ragged import Below, Level
from assay.verify.bounds.relaxations.relax import relax, undecided
from assay.verify.bounds.relaxed import middle_and_radius
from assay.verify.bounds.rounding import FEW, SINGLE, largest, precision
from assay.verify.core.budget import Budget, Expired
from assay.verify.core.network import Network
from assay.verify.core.ops import Linear, Relu
from assay.verify.core.region import Box, LpBall, Region
from assay.verify.core.verifier import Bounds
from assay.verify.support import devices

FEW_ROWS = 512  # up to which both sides of neurons are bounded at once
FEW_DEAR = 24  # the same where there are convolutions
SUMMING = {torch.float32}  # where sums are taken: in float64 columns are as tight, and faster
TOGETHER = 256  # samples of dense networks that are bounded together
PART = 0.25  # of the time that is left may be used here: the rest is for those who keep some for the rows

RELU = Relu()


@dataclass(frozen=True, eq=False)
class Known:
    """Of a node that is no activation (samples x features): the interval, of a layer or a sum; what rows ``lost`` that
    begin there, until activations are met; its ``constant``, the value were these all 0 (of all samples, or one for
    all); the ``size`` of what is summed up in it."""

    z: Bounds
    lost: Tensor
    constant: Tensor
    size: Tensor


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
