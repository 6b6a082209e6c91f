"""Where a network can be split: the neurons that activations read, and at which points of their intervals.

A split replaces an interval [l, u] by [l, p] and [p, u], over each of which the activation's two lines lie closer
together (GenBaB: Shi et al. 2024, arXiv:2405.21063). What that is worth to a row is the coefficient that arrives at the
activation times what the gap between activation and line loses, the rest of the network being left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch

import torch
from torch import Tensor

from assay.verify.bounds.backward import affine
from assay.verify.bounds.backward.affine import Part
from assay.verify.bounds.relaxations.lines import Lines
from assay.verify.bounds.relaxations.relax import feeds, relax, relaxes, undecided, undecided_by_any
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.core.network import Network
from assay.verify.core.ops import Concat, Gather, InverseSumExp, LeakyRelu, Op, Relu, Reshape, Smooth, Step, evaluate
from assay.verify.core.verifier import Bounds

MOVES = (Gather, Reshape, Concat)
INPUTS = 256  # that are split, at most
SHARES = (0.125, 0.375, 0.625, 0.875)  # of an interval, at which the gap of lines is measured


@dataclass(frozen=True, eq=False)
class Sites:
    """The features that can be split, by the position of their node: ``index`` (features kept), and the activations
    that read each node. Numbers of all sites stand one node after the other: (sites)."""

    network: Network
    index: Mapping[int, Tensor]
    readers: Mapping[int, list[Op]]

    @classmethod
    def of(cls, relaxed: Relaxed) -> Sites:
        """Those that are undecided over the region of one sample, of which all nodes are bounded; inputs that vary are
        among them where there are not too many."""
        network = relaxed.network
        readers = {0: [], **feeds(network)}
        wanted = {i: undecided_by_any(ops, relaxed.bounds[i]).flatten() for i, ops in readers.items() if i}
        wanted[0] = (relaxed.bounds[0].lower < relaxed.bounds[0].upper).flatten()
        if network.nodes[0].size > INPUTS:
            wanted[0] = torch.zeros_like(wanted[0])
        index = {i: wanted[i].nonzero().flatten() for i in sorted(readers) if bool(wanted[i].any())}
        return cls(network, index, readers)

    def __len__(self) -> int:
        return sum(map(len, self.index.values()))

    def parts(self, values: Tensor) -> dict[int, Tensor]:
        """Values (domains x sites) by position: (domains x features kept)."""
        sizes = [*map(len, self.index.values())]
        return dict(zip(self.index, torch.split(values, sizes, 1), strict=True)) if sizes else {}

    def pick(self, values: Mapping[int, Tensor]) -> Tensor:
        """The values of sites from those of nodes (domains x shape), by position: (domains x sites)."""
        some = [values[i].flatten(1).index_select(1, index) for i, index in self.index.items()]
        return torch.cat(some, 1) if some else torch.zeros(1, 0)

    def spread(self, values: Tensor) -> dict[int, Tensor]:
        """Values (domains x sites) by position, 0 elsewhere: (domains x size of the node)."""
        parts = self.parts(values)
        return {
            i: part.new_zeros(len(part), self.network.nodes[i].size).index_copy_(1, self.index[i], part)
            for i, part in parts.items()
        }

    def gather(self, at_operands: Mapping[int, Tensor], lines: Mapping[int, Lines]) -> Tensor:
        """What is told of the operands of activations, by their position (domains x features [x operands]), at least
        0, summed at the sites that they are made of: (domains x sites).

        What only moves values about is passed, and an activation by its steeper line.
        """
        nodes = self.network.nodes
        pending: dict[int, Tensor] = {}

        def give(position: int, values: Tensor) -> None:
            pending[position] = pending[position] + values if position in pending else values

        for position in range(len(nodes) - 1, 0, -1):
            node, here = nodes[position], pending.get(position)
            if relaxes(node.op):
                if position in at_operands:
                    give(node.inputs[0], at_operands[position].flatten(1))
                if here is not None and position not in self.index:
                    steep = torch.maximum(
                        lines[position].slope.abs(), (lines[position].slope + lines[position].slope_gap).abs()
                    )
                    here = here[..., None] if steep.dim() > here.dim() else here
                    give(node.inputs[0], (here * steep).flatten(1))
            elif here is not None and position not in self.index and isinstance(node.op, MOVES):
                parts, _ = affine.pull(node.op, Part(here), [nodes[i].shape for i in node.inputs], node.shape)
                for source, part in zip(node.inputs, parts, strict=True):
                    give(source, part.dense(nodes[source].size))
        some = next(iter(at_operands.values()))
        none = (some.new_zeros(len(some), 1).expand(-1, nodes[i].size) for i in self.index)
        return self.pick({i: pending.get(i, zero) for i, zero in zip(self.index, none, strict=True)})

    def points(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Where intervals are split: (domains x sites)."""
        low, high = self.parts(lower), self.parts(upper)
        return torch.cat([point(self.readers[i], Bounds(low[i], high[i])) for i in self.index], 1)


def point(ops: list[Op], z: Bounds) -> Tensor:
    """Where to split the operand of activations (any shape): at a kink within, else in the middle."""
    middle = z.lower / 2 + z.upper / 2
    for op in ops:
        for kink in kinks(op, z):
            middle = torch.where((z.lower < kink) & (kink < z.upper), kink, middle)
    return middle


@singledispatch
def kinks(op: Op, z: Bounds) -> list[Tensor]:
    """Points at which an activation is best cut, of the shape of z or one number each; the last ones come first."""
    return []


@kinks.register(Relu)
@kinks.register(LeakyRelu)
def _(op: Op, z: Bounds) -> list[Tensor]:
    return [z.lower.new_zeros(())]


@kinks.register
def _(op: Smooth, z: Bounds) -> list[Tensor]:
    return [z.lower.new_tensor(kink) for kink in op.of.kinks]


@kinks.register
def _(op: Step, z: Bounds) -> list[Tensor]:
    """The jump that is nearest to the middle."""
    middle = z.lower / 2 + z.upper / 2
    return [{"sign": torch.zeros_like(middle), "round": middle.floor() + 0.5}.get(op.kind, middle.round())]


def costs(op: Op, lines: Lines, z: Bounds, coef: Tensor) -> Tensor:
    """What the gaps of lines cost a row, by the operands that they are due to: as :func:`gains`."""
    whole = coef.abs() * gap(op, lines, z, coef)
    if not op.several:
        return whole
    weight = influence(op, z)
    return whole[..., None] * (weight / weight.sum(-1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny))


def gains(op: Op, lines: Lines, z: Bounds, coef: Tensor) -> Tensor:
    """What splitting each operand of activations promises a row: ``lines`` over ``z`` (domains x features [x
    operands]), ``coef`` (domains x features); of the shape of z."""
    if op.several:
        return costs(op, lines, z, coef) / 2
    whole = gap(op, lines, z, coef)
    cut = point([op], z)
    halves = [gap(op, relax(op, half), half, coef) for half in (Bounds(z.lower, cut), Bounds(cut, z.upper))]
    return coef.abs() * (whole - torch.maximum(*halves)).clamp(min=0)


def gap(op: Op, lines: Lines, z: Bounds, coef: Tensor) -> Tensor:
    """The mean distance over ``z`` between activations and the lines that their coefficients take: of the shape of
    ``coef``."""
    total = torch.zeros_like(coef)
    for share in (0.5,) if op.several else SHARES:
        at = torch.lerp(z.lower, z.upper, share)
        value = evaluate(op, at)
        low, rise = lines.slope * at, lines.slope_gap * at
        if op.several:
            low, rise = low.sum(-1), rise.sum(-1)
        low = low if lines.intercept is None else low + lines.intercept
        total += torch.where(coef > 0, value - low, low + rise + lines.intercept_gap - value)
    return (total / (1 if op.several else len(SHARES))).clamp(min=0).nan_to_num(nan=0.0, posinf=0.0)


@singledispatch
def influence(op: Op, z: Bounds) -> Tensor:
    """How much of an activation's gap is due to each of its operands, in proportion: of the shape of z."""
    return undecided(op, z).to(z.lower) * (z.upper - z.lower)


@influence.register
def _(op: InverseSumExp, z: Bounds) -> Tensor:
    width = z.upper - z.lower
    return width.square() * torch.lerp(z.lower, z.upper, 0.5).softmax(-1)
