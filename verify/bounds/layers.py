"""Bounds of all layers of a network: by intervals, or each layer's unstable neurons by linear bounds as well."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import torch
from torch import Tensor

from assay.verify.bounds.forms import Form, Rows, Units
from assay.verify.bounds.group import Group, by_feature
from assay.verify.bounds.linear import BackwardPropagation, lower_bound
from assay.verify.bounds.relax import relaxes, undecided
from assay.verify.core.budget import Budget
from assay.verify.core.network import Network
from assay.verify.core.ops import Add, Conv2d, ConvTranspose2d, Linear, Sub
from assay.verify.core.region import Box, LpBall, Region
from assay.verify.core.verifier import Bounds

# Rows that are propagated together: enough to feed the matrix products, few enough to stay in cache.
MOST_ROWS = 512
UNLIMITED = Budget()
COPIES = 6  # of a block of coefficients that live at once while it passes a layer


class Crowded(Exception):
    """Each sample of a group has rows enough for itself: apart, each of them has fewer features that matter."""


def start(network: Network, region: Region, dtype: torch.dtype, budget: Budget = UNLIMITED) -> Group:
    """A group for a region of a batch: the box is rounded outward to ``dtype``.

    All that is asked of it raises :class:`Expired` when the time is over.
    """
    box = region.box()
    lower, upper = (t.reshape(-1, network.nodes[0].size).T.contiguous() for t in box.outward(dtype))
    return Group(network.to(dtype), region, lower, upper, budget=budget)


def by_intervals(group: Group) -> list[Bounds]:
    """Interval bounds of every node: (samples x shape of the node)."""
    bounds = [group.begin()]
    for position, node in enumerate(group.network.nodes[1:], start=1):
        bounds.append(group.enter(position, [bounds[i] for i in node.inputs]))
    return bounds


def relaxed_on_intervals(group: Group) -> list[Bounds]:
    """:func:`by_intervals`, (samples x shape) each, with every activation relaxed on the interval of its operand."""
    bounds = by_intervals(group)
    for position, node in enumerate(group.network.nodes):
        if relaxes(node.op):
            group.relax(position, by_feature(bounds[node.inputs[0]]))
    return bounds


def by_linear_bounds(group: Group, budget: Budget, crowd: float = inf) -> list[Bounds]:
    """Bounds of every node, in topological order: intervals on what is known, then linear bounds for the neurons
    that are still unstable, the intersection of both: (samples x shape of the node). Every activation is relaxed, too.

    Raises :class:`Expired` when the time is over, and :class:`Crowded` for a group whose samples
    have more than ``crowd`` rows each in some layer.
    """
    network, group.budget = group.network, budget
    feeds = {node.inputs[0]: node.op for node in network.nodes if relaxes(node.op)}
    exact = _exact_by_intervals(network, group.region)
    bounds = [group.begin()]
    for position, node in enumerate(network.nodes[1:], start=1):
        if relaxes(node.op):
            group.relax(position, by_feature(bounds[node.inputs[0]]))
        operands = [bounds[i] for i in node.inputs]
        known = group.enter(position, operands)
        group.compound(position, operands)
        if position in feeds and position not in exact:
            wanted = undecided(feeds[position], known)
            if group.samples > 1 and 2 * int(wanted.sum()) > crowd * group.samples:
                raise Crowded
            known = _tightened(group, position, known, wanted, budget)
        bounds.append(known)
    return bounds


def lower_rows(group: Group, bounds: Sequence[Bounds], objective: Tensor, linear: bool) -> Tensor:
    """Lower bounds of ``objective @ output``: objective (samples x rows x outputs), result (samples x rows).

    From the intervals at the last activations, and with ``linear`` from the backward propagation too, the larger.
    """
    samples, count, outputs = objective.shape
    rows = Rows.of(torch.arange(samples).repeat_interleave(count), group.lower.dtype, samples)
    coef = objective.to(group.lower).reshape(samples * count, outputs).T
    form = Form(coef.clone(memory_format=torch.contiguous_format))
    last, charged = len(group.network.nodes) - 1, group.rounding is not None
    backward = BackwardPropagation(group, rows, {last: form}, charged=charged)
    backward.pause()
    lowest = (backward.copy() if linear else backward).minimum_over(bounds)
    return (torch.maximum(lowest, backward.minimum()) if linear else lowest).view(samples, count)


def _exact_by_intervals(network: Network, region: Region) -> set[int]:
    """Nodes whose interval bounds over a box cannot be improved: at most one layer after the input sums anything."""
    if isinstance(region, LpBall) and region.p != torch.inf:
        return set()
    summed = [0]
    for node in network.nodes[1:]:
        here = isinstance(node.op, (Linear, Conv2d, ConvTranspose2d, Add, Sub))
        later = 2 if relaxes(node.op) else 0
        summed.append(max(summed[i] for i in node.inputs) + here + later)
    return {position for position, count in enumerate(summed) if count <= 1}


def _tightened(group: Group, position: int, known: Bounds, wanted: Tensor, budget: Budget) -> Bounds:
    """``known`` intersected with linear bounds of the neurons that are ``wanted``, chunk by chunk."""
    index = wanted.flatten().nonzero().flatten()
    if not len(index):
        return known
    size, shape = group.network.nodes[position].size, known.lower.shape
    lower, upper = (t.flatten().index_select(0, index) for t in (known.lower, known.upper))
    sample = torch.div(index, size, rounding_mode="floor")
    feature = index - sample * size
    parts = []
    for chunk in _chunks(sample, group, budget):
        who, what = sample[chunk], feature[chunk]
        sign = lower.new_ones(2, len(who))
        sign[1] = -1.0
        units = Units(torch.cat([what, what]), sign.flatten())
        lowest = lower_bound(group, position, units, Rows.of(torch.cat([who, who]), lower.dtype, group.samples))
        parts.append(lowest.view(2, -1))
    lowest, highest = (torch.cat(parts, 1) if len(parts) > 1 else parts[0]) - group.error(position, index)
    lower, upper = meet(lower, upper, lowest, -highest)
    return Bounds(
        *(t.flatten().index_copy(0, index, new).view(shape) for t, new in ((known.lower, lower), (known.upper, upper)))
    )


def meet(lower: Tensor, upper: Tensor, lower_2: Tensor, upper_2: Tensor) -> tuple[Tensor, Tensor]:
    """The intersection, element by element (any shape), of two intervals that both contain the value up to rounding.

    Where rounding alone makes them cross, the gap between them is kept as the interval; where they are further
    apart than that, one of them is wrong: the result is NaN, which decides nothing.
    """
    low, high = torch.maximum(lower, lower_2), torch.minimum(upper, upper_2)
    crossed = low > high
    if not bool(crossed.any()):
        return low, high
    close = low - high <= 1e3 * torch.finfo(low.dtype).eps * (1 + low.abs() + (upper - lower))
    gap = torch.where(close, 0.0, torch.nan)
    return torch.where(crossed, high + gap, low), torch.where(crossed, low + gap, high)


def _chunks(sample: Tensor, group: Group, budget: Budget) -> list[slice]:
    """Slices of as many unstable neurons (two rows each) as memory and cache allow, ``sample`` theirs in order.

    They end between samples where they can: rows of few samples are cheaper to spread columns over.
    """
    widest = max(node.size for node in group.network.nodes)
    affordable = budget.memory // (COPIES * widest * group.lower.element_size())
    most = max(1, min(MOST_ROWS, affordable) // 2)
    if len(sample) <= most:
        return [slice(0, len(sample))]
    slices, begin, end = [], 0, 0
    for count in torch.bincount(sample, minlength=group.samples).tolist():
        if end > begin and end + count - begin > most:
            slices.append(slice(begin, end))
            begin = end
        end += count
        while end - begin > most:
            slices.append(slice(begin, begin + most))
            begin += most
    return [*slices, slice(begin, end)] if end > begin else slices


def batch_box(region: Region, shape: tuple[int, ...]) -> Region:
    """``region`` as one of a batch: a region of one sample becomes a batch of one."""
    if len(region.shape) > len(shape):
        return region
    if isinstance(region, LpBall):
        eps = region.radius.expand_as(region.centre)[None] if region.radius.dim() else region.eps
        return LpBall(region.centre[None], eps, region.p, region.domain)
    box = region.box()
    return Box(box.lower[None], box.upper[None])
