"""Lines about activations raised by gradient ascent, one set of them a row (alpha-CROWN: Xu et al. 2021,
arXiv:2011.13824).

A row's bound is its value at the point of the region where it is least, with every activation replaced by the line
that its coefficient takes. Where that point passes through the network so, each activation meets a value of its
operand; the derivative of the bound by a line's parameter is the coefficient there times the derivative of the line at
that value. So a gradient costs one pass forward and no recording.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Protocol

import torch
from torch import Tensor

from assay.verify.bounds.relax import Lines, Tangents, steepness, tangents_below_tanh, undecided
from assay.verify.core.budget import Expired
from assay.verify.core.network import Network
from assay.verify.core.ops import LeakyRelu, Max, Op, Relu, Smooth, evaluate
from assay.verify.core.verifier import Bounds

DECAY = 0.9  # of the gradient's running mean
SPREAD = 0.99  # of its running square
WORTH = 0.7  # of a layer's features at most are looked at apart from the others


@dataclass(frozen=True)
class Ascent:
    """How lines are raised: ``steps``, the size of the first one as a share of what a parameter can range over, and
    the factor by which each is smaller than the one before."""

    steps: int
    rate: float
    decay: float = 1.0


@dataclass(frozen=True, eq=False)
class Functions:
    """Linear functions of the input: ``coef @ x + constant``, coef (... x inputs), constant (...)."""

    coef: Tensor
    constant: Tensor

    def take(self, index: Tensor) -> Functions:
        """The forms at ``index`` of the first axis of (...)."""
        return Functions(self.coef[index], self.constant[index])

    def minimum(self, lower: Tensor, upper: Tensor) -> Tensor:
        """The least value over the box ``lower``, ``upper`` (... x inputs): (...)."""
        centre, radius = lower / 2 + upper / 2, upper / 2 - lower / 2
        at_centre = self.constant + torch.linalg.vecdot(self.coef, centre)
        least: Tensor = at_centre - torch.linalg.vecdot(self.coef.abs(), radius)
        return least

    def corner(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Where the least value is taken: (... x inputs)."""
        return torch.where(self.coef > 0, lower, upper)


class Region(Protocol):
    """Where rows are least."""

    def minimum(self, functions: Functions) -> Tensor:
        """The least value of each row's function: (rows)."""
        ...

    def minimiser(self, functions: Functions) -> Tensor:
        """A point at which it is taken: (rows x inputs)."""
        ...


class Parameters(Protocol):
    """The lines of one layer of activations that may be moved, a row's own ones."""

    def lines(self) -> Lines:
        """The lines as they are now: (rows x features [x operands])."""
        ...

    def gradient(self, coef: Tensor, z: Tensor) -> list[Tensor]:
        """Derivatives of the rows' bounds by each tensor of parameters: coefficients (rows x features) that arrive at
        the activations, values of the operands (rows x features [x operands])."""
        ...

    def tensors(self) -> list[Tensor]:
        """The tensors of parameters, which are moved in place."""
        ...

    def keep(self) -> None:
        """Bring parameters that were moved back to where their lines hold."""
        ...


@dataclass(frozen=True, eq=False)
class Raised:
    """The best bound of each row (rows), the function of the input that it is the least value of, and the
    coefficients that arrived last at each activation, by position (rows x features)."""

    bound: Tensor
    function: Functions
    seen: dict[int, Tensor]


# Rows as functions of the input below them, by the lines given; the coefficients that arrive at activations are noted.
Backward = Callable[[Mapping[int, Lines], dict[int, Tensor]], Functions]


class Climb:
    """Lines on their way up: ``lines`` and the bounds of their ``operands``, by position, (rows x features [x
    operands])."""

    def __init__(
        self,
        network: Network,
        backward: Backward,
        region: Region,
        lines: Mapping[int, Lines],
        operands: Mapping[int, Bounds],
        ascent: Ascent,
    ) -> None:
        self.network, self.backward, self.region, self.operands = network, backward, region, operands
        self.lines, self.ascent = dict(lines), ascent
        moved = ((i, moving(network.nodes[i].op, lines[i], operands[i])) for i in lines)
        self.free = {i: layer for i, layer in moved if layer is not None}
        for i, layer in self.free.items():
            if layer.columns is not None:  # they are written into
                self.lines[i] = lines[i].map(torch.clone)
        self.seen: dict[int, Tensor] = {}

    def take(self, rows: Tensor, backward: Backward, region: Region) -> Climb:
        """The climb of some rows alone, by number, from where they are."""
        climb = copy(self)
        climb.backward, climb.region = backward, region
        climb.seen = {i: coef.index_select(0, rows) for i, coef in self.seen.items()}
        climb.lines = {i: lines.take(rows) for i, lines in self.lines.items()}
        climb.operands = {i: taken(z, rows) for i, z in self.operands.items()}
        climb.free = {}
        for i, layer in self.free.items():
            part = moving(self.network.nodes[i].op, climb.lines[i], climb.operands[i], layer.columns, choose=False)
            assert part is not None
            for mine, whole in zip(part.state(), layer.state(), strict=True):
                mine.copy_(whole.index_select(0, rows))
            climb.free[i] = part
        return climb

    def leave(self, ends: Mapping[int, Moving], here: Tensor, rows: Tensor) -> None:
        """Note the parameters of the rows ``here``, by number, which are ``rows`` of those that ``ends`` are of."""
        for i, layer in self.free.items():
            for end, mine in zip(ends[i].parameters.tensors(), layer.parameters.tensors(), strict=True):
                end.index_copy_(0, rows[here], mine.index_select(0, here))

    def functions(self) -> Functions:
        """The rows as functions of the input, by the lines as they are. Raises :class:`Expired`."""
        self.seen = {}
        return self.backward(self.lines, self.seen)

    def move(self, functions: Functions, step: int) -> list[Tensor]:
        """Move the lines by their gradient where these functions, the last ones, are least; the value there of every
        node, on the lines of before: each (rows x shape of the node)."""
        values = values_on_lines(self.network, self.lines, self.region.minimiser(functions), self.seen)
        for position, moved in self.free.items():
            if position in self.seen:
                z = values[self.network.nodes[position].inputs[0]].view_as(self.operands[position].lower)
                moved.ascend(self.seen[position], z, self.ascent, step)
                self.lines[position] = moved.into(self.lines[position])
        return values


def raise_lines(climb: Climb, steps: int) -> Raised:
    """The best bounds on the way, those by the lines that it begins with among them.

    Raises :class:`Expired` when the time is over before the first bounds are there; later it is content with these.
    """
    best: Raised | None = None
    for step in range(1, steps + 2):
        try:
            functions = climb.functions()
        except Expired:
            if best is None:
                raise
            break
        bound = climb.region.minimum(functions)
        best = Raised(bound, functions, climb.seen) if best is None else _better(best, functions, bound, climb.seen)
        if step > steps or not climb.free:
            break
        climb.move(functions, step)
    assert best is not None
    return best


def in_other_precision(network: Network, moved: Moving, lines: Lines, z: Bounds, position: int) -> Lines:
    """The lines of parameters that were moved in a lower precision, about the same activations in that of ``lines``
    and ``z`` (rows x features [x operands]). What overflowed there stays where it began."""
    here = moving(network.nodes[position].op, lines, z, moved.columns, choose=False)
    assert here is not None
    for tensor, value in zip(here.parameters.tensors(), moved.parameters.tensors(), strict=True):
        tensor.copy_(torch.where(value.isfinite(), value, tensor))
    here.parameters.keep()
    return here.into(lines if here.columns is None else lines.map(torch.clone))


def at_rest(tensors: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """The moments of tensors that have not been moved: each of its shape."""
    return [(torch.zeros_like(tensor), torch.zeros_like(tensor)) for tensor in tensors]


def ascend(tensor: Tensor, gradient: Tensor, moments: tuple[Tensor, Tensor], ascent: Ascent, step: int) -> None:
    """One step upward of Kingma and Ba 2015 (arXiv:1412.6980), of a tensor and its moments, all of its shape."""
    mean, square = moments
    mean.mul_(DECAY).add_(gradient, alpha=1 - DECAY)
    square.mul_(SPREAD).addcmul_(gradient, gradient, value=1 - SPREAD)
    size = ascent.rate * ascent.decay ** (step - 1) * (1 - SPREAD**step) ** 0.5 / (1 - DECAY**step)
    tensor.addcdiv_(mean, square.sqrt().add_(1e-30), value=size)


@dataclass(eq=False)
class Moving:
    """The lines of one layer on their way: ``parameters`` of the features ``columns``, by number (None: of all), and
    the running means of each tensor's gradient and its square."""

    columns: Tensor | None
    parameters: Parameters
    moments: list[tuple[Tensor, Tensor]]

    def gradient(self, coef: Tensor, z: Tensor) -> list[Tensor]:
        """See :class:`Parameters`; of all features (rows x features [x operands])."""
        if self.columns is not None:
            coef, z = (t.index_select(1, self.columns) for t in (coef, z))
        return self.parameters.gradient(coef, z)

    def ascend(self, coef: Tensor, z: Tensor, ascent: Ascent, step: int) -> None:
        """One step up by the :meth:`gradient`."""
        gradients = self.gradient(coef, z)
        for tensor, gradient, moments in zip(self.parameters.tensors(), gradients, self.moments, strict=True):
            ascend(tensor, gradient, moments, ascent, step)
        self.parameters.keep()

    def into(self, lines: Lines) -> Lines:
        """The lines as they are now; others than those of ``columns`` are ``lines``, which are written into."""
        here = self.parameters.lines()
        return here if self.columns is None else lines.put(self.columns, here, 1)

    def state(self) -> list[Tensor]:
        """All tensors that change on the way."""
        return [*self.parameters.tensors(), *(t for pair in self.moments for t in pair)]


def moving(op: Op, lines: Lines, z: Bounds, columns: Tensor | None = None, choose: bool = True) -> Moving | None:
    """The lines about ``op`` over ``z`` (rows x features [x operands]) to be moved, None where none can be: those of
    the features ``columns``, or where they are to be chosen, of those that are undecided in any row."""
    if choose:
        some = undecided(op, z)
        some = some.flatten(2).any(2).any(0) if some.dim() > 2 else some.any(0)
        kept = some.nonzero().flatten()
        columns = kept if len(kept) <= WORTH * len(some) else None
    if columns is not None:
        lines, z = lines.take(columns, 1), taken(z, columns, 1)
    moved = parameters(op, lines, z)
    if moved is None:
        return None
    return Moving(columns, moved, at_rest(moved.tensors()))


def taken(bounds: Bounds, index: Tensor, axis: int = 0) -> Bounds:
    """The bounds at ``index``, numbers, of an axis."""
    return Bounds(bounds.lower.index_select(axis, index), bounds.upper.index_select(axis, index))


def _better(best: Raised, function: Functions, bound: Tensor, seen: dict[int, Tensor]) -> Raised:
    better = (bound > best.bound) | best.bound.isnan()
    coef = torch.where(better[:, None], function.coef, best.function.coef)
    constant = torch.where(better, function.constant, best.function.constant)
    return Raised(torch.where(better, bound, best.bound), Functions(coef, constant), seen)


def values_on_lines(
    network: Network, lines: Mapping[int, Lines], point: Tensor, seen: Mapping[int, Tensor]
) -> list[Tensor]:
    """The value of every node at a point a row (rows x inputs), every activation replaced by the line that its
    coefficient takes: each (rows x shape of the node)."""
    values = [point.view(-1, *network.input_shape)]
    for position, node in enumerate(network.nodes[1:], start=1):
        operands = [values[i] for i in node.inputs]
        if position in lines:
            value = _on_line(lines[position], seen.get(position), operands[0].flatten(1))
            values.append(value.view(-1, *node.shape))
        else:
            values.append(evaluate(node.op, *operands))
    return values


def _on_line(lines: Lines, coef: Tensor | None, z: Tensor) -> Tensor:
    """The lower line's value at ``z`` (rows x features), or the upper line's where the coefficient is negative."""
    if lines.slope.dim() > lines.intercept_gap.dim():
        z = z.view_as(lines.slope)
        low, extra = (lines.slope * z).sum(-1), (lines.slope_gap * z).sum(-1)
    else:
        low, extra = lines.slope * z, lines.slope_gap * z
    low = low if lines.intercept is None else low + lines.intercept
    return low if coef is None else torch.addcmul(low, (coef < 0).to(z), extra + lines.intercept_gap)


@singledispatch
def parameters(op: Op, lines: Lines, z: Bounds) -> Parameters | None:
    """The lines about ``op`` over ``z`` that may be moved, beginning with ``lines``; None where none are."""
    return None


@dataclass(eq=False)
class LowerSlopes:
    """Lines through 0 below a convex kink: any slope between those of its two sides, ``least`` and 1."""

    start: Lines
    unstable: Tensor
    least: float
    slope: Tensor
    above: Tensor

    def lines(self) -> Lines:
        """See :class:`Parameters`."""
        return replace(self.start, slope=self.slope, slope_gap=self.above - self.slope)

    def gradient(self, coef: Tensor, z: Tensor) -> list[Tensor]:
        """See :class:`Parameters`."""
        return [coef.clamp(min=0).mul_(z).mul_(self.unstable)]

    def tensors(self) -> list[Tensor]:
        """See :class:`Parameters`."""
        return [self.slope]

    def keep(self) -> None:
        """See :class:`Parameters`."""
        self.slope.clamp_(self.least, 1.0)


@parameters.register(Relu)
@parameters.register(LeakyRelu)
def _(op: Relu | LeakyRelu, lines: Lines, z: Bounds) -> Parameters | None:
    least = op.slope if isinstance(op, LeakyRelu) else 0.0
    if least >= 1:
        return None
    unstable = ((z.lower < 0) & (z.upper > 0)).to(lines.slope)
    return LowerSlopes(lines, unstable, least, lines.slope.clone(), lines.slope + lines.slope_gap)


@dataclass(eq=False)
class Weights:
    """Below a maximum: any mean of its operands, with weights at least 0 of sum 1, those that can be largest."""

    start: Lines
    contested: Tensor
    weights: Tensor

    def lines(self) -> Lines:
        """See :class:`Parameters`."""
        return replace(self.start, slope=self.weights, slope_gap=self.start.slope + self.start.slope_gap - self.weights)

    def gradient(self, coef: Tensor, z: Tensor) -> list[Tensor]:
        """See :class:`Parameters`. Only differences between operands count: the weights' sum is fixed."""
        count = self.contested.sum(-1, keepdim=True).clamp(min=1)
        middle = (z * self.contested).sum(-1, keepdim=True) / count
        return [coef.clamp(min=0)[..., None] * (z - middle) * self.contested]

    def tensors(self) -> list[Tensor]:
        """See :class:`Parameters`."""
        return [self.weights]

    def keep(self) -> None:
        """See :class:`Parameters`. All at 0 begin again with the first line."""
        self.weights.clamp_(min=0)
        total = self.weights.sum(-1, keepdim=True)
        torch.where(total > 1e-3, self.weights / total.clamp(min=1e-3), self.start.slope, out=self.weights)


@parameters.register
def _(op: Max, lines: Lines, z: Bounds) -> Parameters | None:
    contested = (z.upper > z.lower.amax(-1, keepdim=True)) | (lines.slope > 0)
    return Weights(lines, contested.to(lines.slope), lines.slope.clone())


@dataclass(eq=False)
class TouchingPoints:
    """Tangents below and above tanh: the points at which they touch, those above in the mirrored curve."""

    start: Lines
    below: Tangents
    above: Tangents
    low: Tensor
    high: Tensor

    def lines(self) -> Lines:
        """See :class:`Parameters`."""
        start, upper = self.start, self.start.slope + self.start.slope_gap
        assert start.intercept is not None
        slope, intercept = self._chosen(self.below, self.low, start.slope, start.intercept)
        mirrored = -start.intercept - start.intercept_gap
        slope_above, mirrored = self._chosen(self.above, self.high, upper, mirrored)
        return Lines(slope, slope_above - slope, -mirrored - intercept, intercept)

    @staticmethod
    def _chosen(tangents: Tangents, at: Tensor, slope: Tensor, intercept: Tensor) -> tuple[Tensor, Tensor]:
        line = tangents.line(at)
        return torch.where(tangents.allowed, line[0], slope), torch.where(tangents.allowed, line[1], intercept)

    def gradient(self, coef: Tensor, z: Tensor) -> list[Tensor]:
        """See :class:`Parameters`. A tangent that touches at t has the value tanh(t) + tanh'(t) (z - t)."""
        below = coef.clamp(min=0) * _bend(self.low) * (z - self.low) * self.below.allowed
        above = coef.clamp(max=0).neg() * _bend(self.high) * (-z - self.high) * self.above.allowed
        return [below, above]

    def tensors(self) -> list[Tensor]:
        """See :class:`Parameters`."""
        return [self.low, self.high]

    def keep(self) -> None:
        """See :class:`Parameters`."""
        for at, tangents in ((self.low, self.below), (self.high, self.above)):
            at.copy_(torch.minimum(torch.maximum(at, tangents.low), tangents.last))


def _bend(at: Tensor) -> Tensor:
    """The second derivative of tanh: of the shape of ``at``."""
    return -2 * at.tanh() * steepness(at)


@parameters.register
def _(op: Smooth, lines: Lines, z: Bounds) -> Parameters | None:
    below, above = tangents_below_tanh(z.lower, z.upper), tangents_below_tanh(-z.upper, -z.lower)
    low, high = (torch.where(t.high <= 0, (t.low + t.high) / 2, t.last) for t in (below, above))
    return TouchingPoints(lines, below, above, low, high)
