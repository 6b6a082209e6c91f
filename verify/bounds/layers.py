"""Bounds of all layers of a network: by intervals, or each layer's unstable neurons by linear bounds as well."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate
from math import inf

import torch
from torch import Tensor

from assay.verify.bounds import found as kept
from assay.verify.bounds import rounding
from assay.verify.bounds.backward import differences
from assay.verify.bounds.backward.columns import over_region
from assay.verify.bounds.backward.group import Group
from assay.verify.bounds.backward.rows import Backward, affordable, lower_rows
from assay.verify.bounds.backward.waists import Sides, lowest, unsettled
from assay.verify.bounds.opposites import partners
from assay.verify.bounds.relaxations.relax import feeds, relaxes, undecided_by_any
from assay.verify.bounds.relaxed import Relaxed, round_part
from assay.verify.bounds.zonotopes import Zonotopes
from assay.verify.core.budget import UNLIMITED, Budget, Expired
from assay.verify.core.network import Network
from assay.verify.core.ops import Add, Conv2d, ConvTranspose2d, Linear, Op, Sub
from assay.verify.core.region import Box, Intersection, LpBall, Polytope, Region
from assay.verify.core.roundings import terms
from assay.verify.core.verifier import Bounds
from assay.verify.support import devices

# Rows that are propagated together: enough to feed the matrix products, few enough to stay in cache.
MOST_ROWS = 512
ENOUGH_ROWS, BLOCK = 64, 1 << 23  # fewer rows than these only where their coefficients in the widest layer are more
DEAR = 1 << 24  # the price of rows of all neurons of a layer from which on these are bounded on one side first
COPIES = 6  # of a block of coefficients that live at once while it passes a layer
UNSURE = 0.5  # of a zonotope's radius comes from lines and rounding: with less, rows settle few of its neurons more
SHARE = 0.5  # of the time at most is kept for the rows of a specification


# Tighter bounds of the neurons of a node that are wanted (samples x shape), from the network relaxed up to it, its
# position and what is known of it.
Tighten = Callable[[Relaxed, int, Bounds, Tensor], Bounds]


class Crowded(Exception):
    """Each sample of a group has rows enough for itself: apart, each of them has fewer features that matter."""


class Imprecise(Exception):
    """Rounding in float32 may take more of the rows of a layer's neurons than intervals know."""


def by_intervals(
    network: Network,
    region: Region,
    dtype: torch.dtype,
    budget: Budget = UNLIMITED,
    sharp: bool = False,
    lined: bool = True,
) -> Relaxed:
    """The network over a region of one sample or a batch with interval bounds of every node, every activation relaxed
    on them if ``lined``. ``sharp``: see :class:`assay.verify.bounds.rounding.Rounding`.

    Raises :class:`Expired` when the time is over.
    """
    relaxed = Relaxed.start(network, batch_box(region, network.input_shape), dtype, budget, sharp)
    assert relaxed.rounding is not None
    relaxed.lined, relaxed.rounding.grows = lined, True
    for _ in network.nodes[1:]:
        relaxed.bounds.append(relaxed.next())
    return relaxed


def by_linear_bounds(
    network: Network,
    region: Region,
    dtype: torch.dtype,
    budget: Budget = UNLIMITED,
    crowd: float = inf,
    further: Tighten | None = None,
    asked: Mapping[int, Tensor] | None = None,
    before: Sequence[Bounds] | None = None,
    rows: int = 0,
    found: list[Bounds] | None = None,
) -> Relaxed:
    """The network over a region of one sample or a batch with intervals on what is known, then linear bounds for the
    neurons that are still unstable, the intersection of both; every activation relaxed on these. ``further``: what is
    done to each layer's bounds besides. ``asked``: by the position of a node, those of its neurons (1 or samples x
    features) that get linear bounds; all of them where there is no entry. ``before``: bounds of every node that hold
    already. ``rows``: of the specification, so many of each sample, which are to be bounded next: time is kept for
    them, and where what else there is is over before all layers are bounded, ``relaxed.unrefined`` has the layers that
    stay at intervals on what is known, wholly or in part. ``found``: bounds that were worked out so for the first
    nodes; the others are appended as they come.

    Raises :class:`Expired` when the time is over and there are no such rows, :class:`Crowded` for a group whose samples
    have more than ``crowd`` rows each in some layer, and :class:`Imprecise` where float32 is of no use.
    """
    budget = budget.started()
    relaxed = _start(network, region, dtype, budget)
    group = Group(relaxed) if ragged(relaxed) else None
    if further is None and not asked and before is None and found is None:
        found = kept.found(network, relaxed)
    _tighten(relaxed, group, crowd, further, asked, before, rows, found)
    return relaxed


def rows_by_linear_bounds(
    network: Network,
    region: Region,
    objective: Tensor,
    dtype: torch.dtype,
    budget: Budget = UNLIMITED,
    crowd: float = inf,
    asked: Mapping[int, Tensor] | None = None,
) -> tuple[Relaxed, Tensor]:
    """:func:`by_linear_bounds` with time kept for the rows of an objective, and lower bounds of ``objective @ output``
    on these: objective (samples x rows x outputs), result (samples x rows). Rows go down as columns where the layers'
    have made what that needs."""
    budget = budget.started()
    relaxed = _start(network, region, dtype, budget)
    group = Group(relaxed) if ragged(relaxed) else None
    found = None if asked else kept.found(network, relaxed)
    _tighten(relaxed, group, crowd, None, asked, None, objective.shape[-2], found)
    columns = group is not None and group.cuts_all and relaxed.constraints is None
    down = partial(over_region, group) if group is not None and columns else None
    return relaxed, lower_rows(relaxed, objective, linear=True, down=down)


def _start(network: Network, region: Region, dtype: torch.dtype, budget: Budget) -> Relaxed:
    """The input alone; in float32 what rows lose is worth an interval more."""
    box = batch_box(region, network.input_shape)
    return Relaxed.start(network, box, dtype, budget, sharp=dtype == torch.float32)


def _tighten(
    relaxed: Relaxed,
    group: Group | None,
    crowd: float,
    further: Tighten | None,
    asked: Mapping[int, Tensor] | None,
    before: Sequence[Bounds] | None,
    rows: int,
    found: list[Bounds] | None,
) -> None:
    """See :func:`by_linear_bounds`; of the network the input alone is bounded."""
    network, budget = relaxed.network, relaxed.budget
    readers, pace = feeds(network), Pace(network, rows, budget)
    exact = _exact_by_intervals(network, relaxed.region)
    zonotopes = Zonotopes.of(relaxed)

    def refined(position: int, known: Bounds, wanted: Tensor) -> Bounds:
        if zonotopes is not None and zonotopes.pays(position, int(wanted.sum())):
            other = zonotopes.bounds(position)
            known = Bounds(*meet(known.lower, known.upper, other.lower, other.upper))
            wanted = wanted & undecided_by_any(readers[position], known) & (zonotopes.unsure() > UNSURE)
        wanted = _within_precision(relaxed, position, known, wanted)
        if group is None:
            known = _by_regular_rows(relaxed, position, known, wanted)
        else:
            if relaxed.samples > 1 and 2 * int(wanted.sum()) > crowd * relaxed.samples:
                raise Crowded
            known = _by_columns(group, position, known, wanted, readers[position])
        if further is not None:
            known = further(relaxed, position, known, wanted & undecided_by_any(readers[position], known))
        return known

    found = [] if found is None else found
    found[:] = found or relaxed.bounds
    for position in range(1, len(network.nodes)):
        begun = time.monotonic()
        known = relaxed.next()
        there = position < len(found)
        if there:
            known = found[position]
        if before is not None:
            old = before[position]
            known = Bounds(*meet(known.lower, known.upper, old.lower, old.upper))
        if group is not None:
            group.enter(position, known)
        pace.passed(position, time.monotonic() - begun)
        if position in readers and position not in exact and not there:
            wanted = undecided_by_any(readers[position], known)
            if asked is not None and position in asked:
                wanted = wanted & asked[position].view(-1, *known.lower.shape[1:])
            if relaxed.unrefined:
                if bool(wanted.any()):
                    relaxed.unrefined.append(position)
            else:
                relaxed.budget = pace.for_layers(position)
                try:
                    known = refined(position, known, wanted)
                    relaxed.budget.check()
                except Expired:
                    if not rows:
                        raise
                    relaxed.unrefined.append(position)
                relaxed.budget = budget
        relaxed.bounds.append(known)
        if not there and not relaxed.unrefined:
            found.append(known)


class Pace:
    """How long intervals take, and with that how long what comes after the layers will take."""

    def __init__(self, network: Network, rows: int, budget: Budget) -> None:
        self._budget, self._rows, self._spent = budget, rows, 0.0
        self._most = SHARE * max(budget.remaining, 0.0)
        self._work = list(accumulate(max(1, terms(node.op)) * node.size for node in network.nodes))

    def passed(self, position: int, seconds: float) -> None:
        """Note what the interval of the node at ``position`` took."""
        self._spent += seconds

    def for_layers(self, position: int) -> Budget:
        """The budget for a node's linear bounds, without what is kept: for the intervals of the nodes to come, and for
        the rows, each of which goes all the way down for about as much as intervals take on the way up."""
        if not self._rows or self._budget.remaining == inf:
            return self._budget
        done, all_ = self._work[position], self._work[-1]
        kept = min(self._most, self._spent / done * (all_ - done + self._rows * all_))
        assert self._budget.deadline is not None
        return replace(self._budget, deadline=self._budget.deadline - kept)


def _within_precision(relaxed: Relaxed, position: int, known: Bounds, wanted: Tensor) -> Tensor:
    """Of the neurons that are ``wanted`` of a node those of which rounding leaves something: where it may take as much
    as is known already, no row would tell more. Raises :class:`Imprecise` where float32 leaves hardly any of them."""
    assert relaxed.rounding is not None
    able = wanted & (relaxed.lost(position).view_as(wanted) < known.upper - known.lower)
    single = relaxed.rounding.precision is rounding.SINGLE and devices.is_host(able)
    if single and 2 * int(able.sum()) < int(wanted.sum()):
        raise Imprecise
    return able


def _exact_by_intervals(network: Network, region: Region | None) -> set[int]:
    """Nodes whose interval bounds over a box cannot be improved: at most one layer after the input sums anything."""
    if region is not None and round_part(region) is not None:
        return set()
    summed = [0]
    for node in network.nodes[1:]:
        here = isinstance(node.op, (Linear, Conv2d, ConvTranspose2d, Add, Sub))
        later = 2 if relaxes(node.op) else 0
        summed.append(max(summed[i] for i in node.inputs) + here + later)
    return {position for position, count in enumerate(summed) if count <= 1}


def ragged(relaxed: Relaxed) -> bool:
    """Whether layers are bounded by columns, as many for each sample as it needs. Elsewhere than on a CPU they are by
    regular rows, which make the host wait once a layer."""
    return devices.is_host(relaxed.bounds[0].lower)


def _by_regular_rows(relaxed: Relaxed, position: int, known: Bounds, wanted: Tensor) -> Bounds:
    """``known`` intersected with linear bounds of the neurons that are ``wanted`` of any sample, chunk by chunk."""
    size, samples = relaxed.network.nodes[position].size, relaxed.samples
    wanted = wanted.flatten(1)
    some = wanted.any(0).nonzero().flatten()
    here = replace(relaxed, bounds=[*relaxed.bounds, known])
    lower, upper = (t.flatten(1).clone() for t in (known.lower, known.upper))
    for features in torch.split(some, max(1, affordable(relaxed, samples) // 2)):
        count = len(features)
        unit = lower.new_zeros(samples, 2 * count, size)
        number = torch.arange(count, device=features.device)
        unit[:, number, features], unit[:, count + number, features] = 1.0, -1.0
        below, above = Backward.at(here, position, unit).over_region().chunk(2, 1)
        low, high = meet(lower[:, features], upper[:, features], below, -above)
        lower[:, features] = torch.where(wanted[:, features], low, lower[:, features])
        upper[:, features] = torch.where(wanted[:, features], high, upper[:, features])
    return Bounds(lower.view_as(known.lower), upper.view_as(known.upper))


def _by_columns(group: Group, position: int, known: Bounds, wanted: Tensor, readers: Sequence[Op]) -> Bounds:
    """``known`` intersected with linear bounds of the neurons that are ``wanted`` by the node's ``readers``, chunk by
    chunk. Where that is dear, on the side that is nearer to 0 first, and on the other if that does not settle them."""
    index = wanted.flatten().nonzero().flatten()
    if not len(index):
        return known
    size, shape = group.network.nodes[position].size, known.lower.shape
    here = Bounds(*(t.flatten().index_select(0, index) for t in (known.lower, known.upper)))
    sample = torch.div(index, size, rounding_mode="floor")
    assert group.relaxed.rounding is not None
    lost = group.relaxed.lost(position).flatten().index_select(0, index) + group.relaxed.rounding.precision.dust
    neurons = torch.arange(len(index), device=index.device)
    feature = index - sample * size
    all_ = Sides(sample, feature, neurons < 0, here, lost)
    other = partners(group.network, position, sample, feature)
    if other is not None:
        here = _bounded(group, position, all_, neurons, neurons < 0, [])
        here = Bounds(*meet(here.lower, here.upper, -here.upper[other], -here.lower[other]))
    elif size * group.price[position] < DEAR:
        neurons = neurons.repeat_interleave(2)
        here = _bounded(group, position, all_, neurons, torch.arange(len(neurons), device=index.device) % 2 == 1, [])
    else:
        above = group.at_middle[position].flatten().index_select(0, index) < 0
        for side in (above, ~above):
            here = _bounded(group, position, replace(all_, known=here), neurons, side[neurons], readers)
            neurons = unsettled(readers, here)
            if not len(neurons):
                break
    return Bounds(
        *(
            t.flatten().index_copy(0, index, new).view(shape)
            for t, new in ((known.lower, here.lower), (known.upper, here.upper))
        )
    )


def _bounded(
    group: Group, position: int, layer: Sides, neurons: Tensor, above: Tensor, readers: Sequence[Op]
) -> Bounds:
    """What is known of a layer's neurons, intersected with linear bounds of some of them, by number, on one side each,
    chunk by chunk."""
    rows = replace(layer.take(neurons), above=above)
    least = torch.full_like(rows.lost, -inf)
    try:
        apart = differences.lowest(group, position, rows, _most(group))
        if apart is not None:
            least = apart
        else:
            for part in _chunks(rows.sample, group):
                least[part] = lowest(group, position, rows.take(part), readers)
    except Expired:
        pass  # what is bounded by then stands, or nothing of it: that is for the caller to say
    lower, upper = torch.full_like(layer.lost, -inf), torch.full_like(layer.lost, inf)
    lower[neurons[~above]], upper[neurons[above]] = least[~above], -least[above]
    return Bounds(*meet(layer.known.lower, layer.known.upper, lower, upper))


def meet(lower: Tensor, upper: Tensor, lower_2: Tensor, upper_2: Tensor) -> tuple[Tensor, Tensor]:
    """The intersection, element by element (any shape), of two intervals that both contain the value up to rounding.

    Where rounding alone makes them cross, the gap between them is kept as the interval; where they are further
    apart than that, one of them is wrong: the result is NaN, which decides nothing.
    """
    low, high = torch.maximum(lower, lower_2), torch.minimum(upper, upper_2)
    crossed = low > high
    if devices.is_host(low) and not bool(crossed.any()):
        return low, high
    close = low - high <= 1e3 * torch.finfo(low.dtype).eps * (1 + low.abs() + (upper - lower))
    gap = torch.where(close, 0.0, torch.nan)
    return torch.where(crossed, high + gap, low), torch.where(crossed, low + gap, high)


def _chunks(sample: Tensor, group: Group) -> list[slice]:
    """Slices of as many rows as memory and cache allow, ``sample`` theirs in order.

    They end between samples where they can: rows of few samples are cheaper to spread columns over.
    """
    most = _most(group)
    if len(sample) <= most:
        return [slice(0, len(sample))]
    slices, begin, end = [], 0, 0
    for count in torch.bincount(sample, minlength=group.relaxed.samples).tolist():
        if end > begin and end + count - begin > most:
            slices.append(slice(begin, end))
            begin = end
        end += count
        while end - begin > most:
            slices.append(slice(begin, begin + most))
            begin += most
    return [*slices, slice(begin, end)] if end > begin else slices


def _most(group: Group) -> int:
    """How many rows are propagated together, at most."""
    widest = max(node.size for node in group.network.nodes)
    affordable = group.relaxed.budget.memory // (COPIES * widest * group.radius.element_size())
    return max(1, min(MOST_ROWS, affordable, max(ENOUGH_ROWS, BLOCK // widest)))


def batch_box(region: Region, shape: tuple[int, ...]) -> Region:
    """``region`` as one of a batch: a region of one sample becomes a batch of one."""
    if len(region.shape) > len(shape):
        return region
    if isinstance(region, LpBall):
        eps = region.radius.expand_as(region.centre)[None] if region.radius.dim() else region.eps
        return LpBall(region.centre[None], eps, region.p, region.domain)
    if isinstance(region, Intersection):
        balls = (batch_box(ball, shape) for ball in region.balls)
        return Intersection(tuple(ball for ball in balls if isinstance(ball, LpBall)))
    if isinstance(region, Polytope):
        return region.map(lambda bound: bound[None])
    box = region.box()
    return Box(box.lower[None], box.upper[None])
