"""A small group of samples under backward propagation: their boxes, and the relaxations found so far.

Forms are kept only for the features that can matter: a neuron that is inactive for every sample of the group has
coefficient 0 and is left out, and matrices are cut down to the others once for the group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

import torch
from torch import Tensor

from assay.verify.bounds import rounding
from assay.verify.bounds.forms import AnyForm, Patches, Rows, Units, dense, pad
from assay.verify.bounds.interval import propagate, step
from assay.verify.bounds.matrix import Cut, Matrix, matrix
from assay.verify.bounds.relax import Lines, relax
from assay.verify.bounds.rounding import Rounding
from assay.verify.core.budget import Budget
from assay.verify.core.network import Network
from assay.verify.core.ops import Conv2d, Linear, Max, Relu, Reshape, Scale
from assay.verify.core.region import LpBall, Region
from assay.verify.core.verifier import Bounds


@dataclass(eq=False)
class Group:
    """The region of a group of samples, its box, and the relaxation of each activation so far.

    ``lower``, ``upper``: the box (input features x samples), in the dtype of the propagation. Relaxing an activation
    also fixes which of its features can matter (``support``); ``lines`` are of these, ``whole`` of all features.
    ``entrance``: the first layer, if all paths from the input lead through it and the region is a box; the centre's
    share of every bound is then read off that layer's value at the centre (``at_centre``, features x samples), and
    only the radius has to be taken down to the input. ``rounding``: in float64; lower precisions only sieve.
    ``budget``: asked at each layer, on the way up and down.
    """

    network: Network
    region: Region
    lower: Tensor
    upper: Tensor
    lines: dict[int, Lines] = field(default_factory=dict)
    whole: dict[int, Lines] = field(default_factory=dict)
    support: dict[int, Tensor | None] = field(default_factory=dict)
    entrance: int = 0
    at_centre: Tensor | None = None
    rounding: Rounding | None = None
    operands: dict[int, Bounds] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        self.rounding = Rounding(self.network) if self.lower.dtype == torch.float64 else None
        self.centre = torch.lerp(self.lower, self.upper, 0.5)
        self.radius = self.upper - self.centre
        ball = isinstance(self.region, LpBall) and self.region.p != inf
        self.entrance = 0 if ball else _entrance(self.network)
        self._cuts: dict[tuple[int, int], Cut] = {}
        self._padded: dict[tuple[int, tuple[int, int]], Tensor] = {}

    @property
    def samples(self) -> int:
        """Number of samples in the group."""
        return self.lower.shape[1]

    def begin(self) -> Bounds:
        """The input's bounds (samples x shape)."""
        shape = (-1, *self.network.input_shape)
        bounds = Bounds(self.lower.T.reshape(shape), self.upper.T.reshape(shape))
        if self.rounding is not None:
            size = rounding.largest(bounds)
            if isinstance(self.region, LpBall):
                size = torch.maximum(size, _farthest(self.region).view_as(size))
            self.rounding.begin(size)
        return bounds

    def enter(self, position: int, operands: Sequence[Bounds]) -> Bounds:
        """The interval of the node at ``position`` over its operands' (samples x shape), and what has to be known
        before rows of the node go down. Raises :class:`Expired` when the time is over."""
        self.budget.check()
        op = self.network.nodes[position].op
        if self.rounding is None:
            value = step(op, *operands)
        else:
            value = self.rounding.enter(position, operands, propagate(op, *operands))
        if position == self.entrance:  # the interval has the centre's value in its middle
            self.at_centre = torch.lerp(value.lower, value.upper, 0.5).flatten(1).T
        return value

    def relax(self, position: int, z: Bounds) -> None:
        """Relax the activation at ``position``, whose operand lies within ``z`` (features x samples)."""
        node = self.network.nodes[position]
        if isinstance(node.op, Max):
            operands = (node.size, -1, self.samples)
            z = Bounds(z.lower.reshape(operands), z.upper.reshape(operands))
        lines, self.operands[position] = relax(node.op, z), z
        self.whole[position] = lines
        if isinstance(node.op, Relu):
            possible = ~(z.upper <= 0).all(1)  # a NaN is kept: the bound becomes NaN and decides nothing
            kept = possible.nonzero().flatten()
            self.support[position] = kept if len(kept) < 0.9 * len(possible) else None
        support = self.support.get(position)
        self.lines[position] = lines if support is None else lines.take(support)

    def wanted(self, position: int) -> Tensor | None:
        """Features (wanted) of a node that can be other than zero, of an activation or its reshaping; None is all."""
        node = self.network.nodes[position]
        if isinstance(node.op, Reshape):
            return self.wanted(node.inputs[0])
        return self.support.get(position)

    def cut(self, position: int, support: Tensor | None) -> Cut:
        """The matrix of the affine node at ``position``, (wanted features of its operand x ``support``)."""
        key = (position, id(support))  # supports live as long as the group
        if key not in self._cuts:
            (source,) = self.network.nodes[position].inputs
            self._cuts[key] = self.matrix(position).cut(self.wanted(source), support)
        return self._cuts[key]

    def has_cut(self, position: int, support: Tensor | None) -> bool:
        """Whether :meth:`cut` has this matrix at hand."""
        return (position, id(support)) in self._cuts

    def matrix(self, position: int) -> Matrix:
        """All of the matrix of the affine node at ``position``."""
        node = self.network.nodes[position]
        return matrix(node.op, self.network.nodes[node.inputs[0]].shape)

    def gather(self, columns: Tensor, form: Patches, rows: Rows) -> Tensor:
        """For each coefficient of ``form``, its element of an image that the group holds for each of its samples
        (features x samples), 0 beyond the image: (coefficients x rows)."""
        key = (id(columns), form.border)  # columns live as long as the group
        if key not in self._padded:
            self._padded[key] = pad(columns, form)
        return rows.gather(self._padded[key], form)

    def worth_at_centre(self, form: AnyForm, rows: Rows) -> Tensor:
        """A form of the entrance's value at the centre of the box: (rows)."""
        assert self.at_centre is not None
        if isinstance(form, Units):
            return self.at_centre[:, rows.samples][form.feature, rows.sample] * form.value
        if isinstance(form, Patches):
            return (self.gather(self.at_centre, form, rows) * form.coef).sum(0)
        at_centre = self.at_centre if form.support is None else self.at_centre.index_select(0, form.support)
        return rows.dot(at_centre, form.coef)

    def compound(self, position: int, operands: Sequence[Bounds]) -> None:
        """Note what rows of the node's neurons may lose to rounding all the way to the input: (samples x shape)."""
        if self.rounding is None:
            return
        if position in self.whole:
            self.rounding.relax(position, self.whole[position], self.operands[position])
        else:
            self.rounding.compound(position, operands)

    def error(self, position: int, index: Tensor) -> Tensor | float:
        """What rounding may take of neurons of a node, at ``index`` (rows) among those of all samples: (rows)."""
        if self.rounding is None:
            return 0.0
        return self.rounding.error[position].flatten().index_select(0, index) + rounding.DUST

    def loss(self, position: int, form: AnyForm, rows: Rows) -> Tensor:
        """What rounding may take of a form of a node until it meets the next activations below: (rows)."""
        assert self.rounding is not None
        if position in self.whole:
            columns = self.rounding.at(position, self.whole[position], self.operands[position])
        else:
            columns = self.rounding.lost[position].flatten(1).T
        return rows.dot(columns, dense(form, len(columns)).abs())


def _entrance(network: Network) -> int:
    """The first Linear or convolution, if nothing else reads the input or what lies between; otherwise 0."""
    readers: list[list[int]] = [[] for _ in network.nodes]
    for position, node in enumerate(network.nodes):
        for i in node.inputs:
            readers[i].append(position)
    here = 0
    while len(readers[here]) == 1:
        here = readers[here][0]
        if isinstance(network.nodes[here].op, (Linear, Conv2d)):
            return here
        if not isinstance(network.nodes[here].op, (Reshape, Scale)):
            return 0
    return 0


def _farthest(ball: LpBall) -> Tensor:
    """Beyond the magnitude of all coordinates of points of the ball, were there no domain."""
    return ball.centre.abs() + ball.radius


def by_feature(bounds: Bounds) -> Bounds:
    """(samples x shape) to (features x samples)."""
    return Bounds(bounds.lower.flatten(1).T, bounds.upper.flatten(1).T)


def box_minimum(coef: Tensor, centre: Tensor, radius: Tensor, rows: Rows) -> Tensor:
    """The least value of each row over its sample's box (features x samples); ``coef`` is used up."""
    middle = rows.dot(centre, coef)
    return middle - rows.dot(radius, coef.abs_())


def middle_and_radius(box: Bounds) -> tuple[Tensor, Tensor]:
    """Centre and radius of a box, each of its shape; no sum of large bounds overflows on the way."""
    centre = torch.lerp(box.lower, box.upper, 0.5)
    return centre, box.upper - centre
