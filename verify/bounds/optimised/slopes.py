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
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from assay.verify.bounds.relaxations.lines import Lines
from assay.verify.bounds.relaxations.parameters import Parameters, parameters
from assay.verify.bounds.relaxations.relax import undecided
from assay.verify.core.budget import Expired
from assay.verify.core.network import Network
from assay.verify.core.ops import Op, evaluate
from assay.verify.core.verifier import Bounds

DECAY = 0.9  # of the gradient's running mean
SPREAD = 0.99  # of its running square
PATIENCE = 5  # steps after which it is seen which rows still rise
SHARE = 0.001  # of what a row rose in all: where it changes by less meanwhile, it stops
NOISE = 1e-6  # of a bound in float32
FEWER = 0.8  # of the rows at most go on without the others
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


def in_other_precision(
    network: Network, moved: Moving, lines: Lines, z: Bounds, position: int, grains: int = 0
) -> Lines:
    """The lines of parameters that were moved in a lower precision, about the same activations in that of ``lines``
    and ``z`` (rows x features [x operands]), rounded to so many ``grains`` of 1 if there are any. What overflowed there
    stays where it began."""
    here = moving(network.nodes[position].op, lines, z, moved.columns, choose=False)
    assert here is not None
    for tensor, value in zip(here.parameters.tensors(), moved.parameters.tensors(), strict=True):
        tensor.copy_(torch.where(value.isfinite(), value, tensor))
        if grains:
            tensor.mul_(grains).round_().div_(grains)
    here.parameters.keep()
    return here.into(lines if here.columns is None else lines.map(torch.clone))


def still_rising(first: Tensor, last: Tensor, bound: Tensor) -> Tensor:
    """Which rows changed since the last time by more than a share of what they rose since the first: (rows)."""
    change, noise = (bound - last).abs(), NOISE * (1 + bound.abs())
    return ~(change <= torch.maximum(SHARE * (bound - first), noise))


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
