"""A network over a batch of regions, as far as it is bounded: intervals of its nodes, lines about its activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

import torch
from torch import Tensor

from assay.verify.bounds import rounding
from assay.verify.bounds.interval import propagate
from assay.verify.bounds.memo import per_network
from assay.verify.bounds.optimised.multipliers import Constraints
from assay.verify.bounds.relaxations.lines import Lines
from assay.verify.bounds.relaxations.relax import relax, relaxes
from assay.verify.bounds.rounding import Rounding
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError
from assay.verify.core.network import Network
from assay.verify.core.region import Intersection, LpBall, Region
from assay.verify.core.verifier import Bounds


@dataclass(eq=False)
class Relaxed:
    """``bounds`` of the first nodes in topological order, the input's among them, each (samples x shape of the node);
    ``lines`` of the activations over the bounds of their operands, by position: (samples x features [x operands]).

    ``region``: (samples x input shape); None where it is the box that ``bounds`` begin with. ``rounding``: what is
    charged for it; None where nothing is. ``lined``: whether activations get lines; without these rows begin behind the
    last activations.
    ``budget``: asked at each node, on the way up and down. ``unrefined``:
    positions of nodes for whose linear bounds the time did not suffice.
    """

    network: Network
    bounds: list[Bounds]
    region: Region | None = None
    rounding: Rounding | None = None
    lines: dict[int, Lines] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget)
    unrefined: list[int] = field(default_factory=list)
    lined: bool = True

    @classmethod
    def start(
        cls, network: Network, region: Region, dtype: torch.dtype, budget: Budget, sharp: bool = False
    ) -> Relaxed:
        """The input's bounds alone, for a region of a batch: its box, rounded outward to ``dtype``, on the budget's
        device. ``sharp``: see :class:`assay.verify.bounds.rounding.Rounding`.

        All that is asked of it raises :class:`Expired` when the time is over.
        """
        device = torch.device(budget.device)
        precision = rounding.precision(dtype, device)
        if dtype == torch.float32 and not fits_float32(network):
            raise InputError("the network has slopes or fillings beyond the numbers of float32: use dtype=float64")
        network = network.to(dtype, device)
        box = Bounds(*(t.to(device).contiguous() for t in region.box().outward(dtype)))
        charged = Rounding(network, precision=precision, sharp=sharp)
        size = rounding.largest(box)
        if not rounding.counted(size, precision):
            known = size < precision.beyond
            box = Bounds(torch.where(known, box.lower, torch.nan), torch.where(known, box.upper, torch.nan))
        ball = region if isinstance(region, LpBall) else round_part(region)
        charged.begin(size if ball is None else torch.maximum(size, _farthest(ball).to(size)))
        return cls(network, [box], _on(region, device), charged, budget=budget)

    @classmethod
    def over(cls, network: Network, bounds: Sequence[Bounds]) -> Relaxed:
        """On given bounds of every node, (samples x shape of the node) each, with nothing charged: gradients pass."""
        relaxed = cls(network, list(bounds))
        relaxed.lines = {i: relax(n.op, relaxed.operand(i)) for i, n in enumerate(network.nodes) if relaxes(n.op)}
        return relaxed

    @property
    def samples(self) -> int:
        """Number of samples in the batch."""
        return len(self.bounds[0].lower)

    def next(self) -> Bounds:
        """The interval of the first node without bounds, over those of its operands, which are relaxed if it is an
        activation: (samples x shape). Raises :class:`Expired` when the time is over."""
        self.budget.check()
        position = len(self.bounds)
        node = self.network.nodes[position]
        operands = [self.bounds[i] for i in node.inputs]
        if self.lined and relaxes(node.op):
            self.lines[position] = relax(node.op, self.operand(position))
        assert self.rounding is not None
        begins = self.lined or position in _behind_activations(self.network)
        return self.rounding.enter(position, operands, propagate(node.op, *operands), begins)

    def operand(self, position: int) -> Bounds:
        """The bounds of an activation's operand: (samples x features [x operands])."""
        node = self.network.nodes[position]
        shape = (len(self.bounds[0].lower), node.size, *([-1] if node.op.several else []))
        z = self.bounds[node.inputs[0]]
        return Bounds(z.lower.reshape(shape), z.upper.reshape(shape))

    def charged(self, position: int, by: Rounding | None = None) -> Lines:
        """The lines of an activation, so far apart that a row which passes loses what rounding takes of it from there
        until the next activations below: (samples x features [x operands]). ``by``: what is charged, if it is not what
        all rows are."""
        lines, by = self.lines[position], by or self.rounding
        return lines if by is None else lines.apart(by.at(position, lines, self.operand(position)))

    def lost(self, position: int) -> Tensor:
        """What rounding takes of one unit of coefficient of a row that begins at a node, until activations are met;
        where it begins at one of these, its lines take it: (samples x features)."""
        assert self.rounding is not None
        if relaxes(self.network.nodes[position].op):
            some = self.bounds[0].lower
            return some.new_zeros(some.shape[0], self.network.nodes[position].size)
        return self.rounding.lost[position].flatten(1)

    def summed(self, position: int) -> Tensor:
        """What the sum over one unit of coefficient's value at a node loses: (samples x shape)."""
        assert self.rounding is not None
        return self.rounding.share(position) * rounding.largest(self.bounds[position])

    @property
    def ball(self) -> LpBall | None:
        """The ball that is no box, and that the region, or a part of what it is the intersection of, is."""
        return None if self.region is None else round_part(self.region)

    @property
    def constraints(self) -> Constraints | None:
        """Those between inputs, where the region is a polytope."""
        return Constraints.of(self.region, self.bounds[0].lower.device)


@per_network
def _behind_activations(network: Network) -> set[int]:
    """Nodes from which no activation is met on the way to the output."""
    behind = {len(network.nodes) - 1}
    for position in range(len(network.nodes) - 1, -1, -1):
        if position in behind and not relaxes(network.nodes[position].op):
            behind.update(network.nodes[position].inputs)
    return behind


def fits_float32(network: Network) -> bool:
    """Whether the numbers of operations that are no tensors are within the range of float32."""
    numbers = [v for node in network.nodes for v in vars(node.op).values() if isinstance(v, float)]
    return all(abs(v) <= torch.finfo(torch.float32).max for v in numbers)


def round_part(region: Region) -> LpBall | None:
    """The ball in l1 or l2 that the region is, or is part of."""
    if isinstance(region, Intersection):
        return region.round
    return region if isinstance(region, LpBall) and region.p != inf else None


def _farthest(ball: LpBall) -> Tensor:
    """Beyond the magnitude of all coordinates of points of the ball, were there no domain."""
    return ball.centre.abs() + ball.radius


def _on(region: Region, device: torch.device) -> Region:
    """The region on a device, of a ball what lies in the domain, too, which its box knows."""
    if device.type == "cpu":
        return region
    if isinstance(region, Intersection):
        region = region.round  # the box of all of them is known
    if not isinstance(region, LpBall):
        return region
    eps = region.eps.to(device) if isinstance(region.eps, Tensor) else region.eps
    return LpBall(region.centre.to(device), eps, region.p, None)


def middle_and_radius(box: Bounds) -> tuple[Tensor, Tensor]:
    """Centre and radius of a box, each of its shape; no sum of large bounds overflows on the way."""
    centre = torch.lerp(box.lower, box.upper, 0.5)
    return centre, box.upper - centre
