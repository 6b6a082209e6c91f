"""What may be moved of the lines about each activation, and how a bound changes with it.

The derivative of a row's bound by a line's parameter is the coefficient that arrives at the activation times the
derivative of the line at the value that its operand has where the row is least.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Protocol

import torch
from torch import Tensor

from assay.verify.bounds.relaxations import normalised, products, tangents
from assay.verify.bounds.relaxations.lines import Lines
from assay.verify.bounds.relaxations.normalised import Side, Touching
from assay.verify.bounds.relaxations.softmax import SoftmaxPlanes
from assay.verify.bounds.relaxations.tangents import Tangents
from assay.verify.core.ops import InverseSumExp, LeakyRelu, Max, Normalised, Op, Product, Relu, Smooth
from assay.verify.core.verifier import Bounds


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
    """Tangents below a curve and below its mirror image: the points at which they touch."""

    below: Tangents
    above: Tangents
    low: Tensor
    high: Tensor

    def lines(self) -> Lines:
        """See :class:`Parameters`."""
        return tangents.between(self.below.line(self.low), self.above.line(self.high))

    def gradient(self, coef: Tensor, z: Tensor) -> list[Tensor]:
        """See :class:`Parameters`. A tangent that touches at t has the value f(t) + f'(t) (z - t)."""
        below = coef.clamp(min=0) * self.below.bend(self.low) * (z - self.low)
        above = coef.clamp(max=0).neg() * self.above.bend(self.high) * (z - self.high)
        return [below.nan_to_num(0.0), above.nan_to_num(0.0)]

    def tensors(self) -> list[Tensor]:
        """See :class:`Parameters`."""
        return [self.low, self.high]

    def keep(self) -> None:
        """See :class:`Parameters`."""
        for at, side in ((self.low, self.below), (self.high, self.above)):
            at.copy_(torch.minimum(torch.maximum(at, side.first), side.last))


@parameters.register
def _(op: Smooth, lines: Lines, z: Bounds) -> Parameters | None:
    below, above = (tangents.tangents(op.of, sign, z.lower, z.upper) for sign in (1, -1))
    return TouchingPoints(below, above, below.best, above.best)


@dataclass(eq=False)
class Turns:
    """Planes about a product, each turned anywhere between two: ``below`` and ``above``, from 0 to 1."""

    z: Bounds
    below: Tensor
    above: Tensor

    def lines(self) -> Lines:
        """See :class:`Parameters`."""
        return products.planes_about(self.z, self.below, self.above)

    def gradient(self, coef: Tensor, z: Tensor) -> list[Tensor]:
        """See :class:`Parameters`. What one plane of McCormick's is higher than the other."""
        (low_x, low_y), (high_x, high_y), (x, y) = (t.unbind(-1) for t in (self.z.lower, self.z.upper, z))
        below = (low_y - high_y) * x + (low_x - high_x) * y - low_x * low_y + high_x * high_y
        above = (high_y - low_y) * x + (low_x - high_x) * y - low_x * high_y + high_x * low_y
        return [coef.clamp(min=0) * below, coef.clamp(max=0) * above]

    def tensors(self) -> list[Tensor]:
        """See :class:`Parameters`."""
        return [self.below, self.above]

    def keep(self) -> None:
        """See :class:`Parameters`."""
        for turn in self.tensors():
            turn.clamp_(0.0, 1.0)


@parameters.register
def _(op: Product, lines: Lines, z: Bounds) -> Parameters | None:
    return Turns(z, *products.flattest(z))


@dataclass(eq=False)
class TouchingSums:
    """Planes about an inverse sum of exponentials: the scaled sum at which the lower one touches, as a share of the way
    from the least to the largest one, and the point at which the upper one does, each as a share of its interval."""

    planes: SoftmaxPlanes
    sums: Tensor
    points: Tensor

    def lines(self) -> Lines:
        """See :class:`Parameters`."""
        return self.planes.lines(*self._at())

    def _at(self) -> tuple[Tensor, Tensor]:
        planes = self.planes
        return torch.lerp(planes.low, planes.high, self.sums), torch.lerp(planes.z.lower, planes.z.upper, self.points)

    def gradient(self, coef: Tensor, z: Tensor) -> list[Tensor]:
        """See :class:`Parameters`."""
        planes, (at, point) = self.planes, self._at()
        by_sum, by_point = planes.gradient(at, point, z)
        below = coef.clamp(min=0) * by_sum * (planes.high - planes.low)
        above = coef.clamp(max=0)[..., None] * by_point * (planes.z.upper - planes.z.lower)
        return [below.nan_to_num(0.0, 0.0, 0.0), above.nan_to_num(0.0, 0.0, 0.0)]

    def tensors(self) -> list[Tensor]:
        """See :class:`Parameters`."""
        return [self.sums, self.points]

    def keep(self) -> None:
        """See :class:`Parameters`."""
        for share in self.tensors():
            share.clamp_(0.0, 1.0)


@parameters.register
def _(op: InverseSumExp, lines: Lines, z: Bounds) -> Parameters | None:
    planes = SoftmaxPlanes.over(z)
    at, point = planes.touching
    share = (at - planes.low) / (planes.high - planes.low).clamp(min=torch.finfo(at.dtype).tiny)
    return TouchingSums(planes, share.clamp(0.0, 1.0).nan_to_num(0.5), torch.full_like(point, 0.5))


@dataclass(eq=False)
class Slopes:
    """Planes about a normalised value: the slopes of each, as shares of the way between those worth looking at."""

    sides: tuple[Side, Side]
    below: Tensor
    above: Tensor

    def lines(self) -> Lines:
        """See :class:`Parameters`."""
        return normalised.planes_about(*self._touching())

    def _touching(self) -> list[Touching]:
        shares = zip(self.sides, self.tensors(), strict=True)
        return [s.touching(torch.lerp(s.steepest.lower, s.steepest.upper, share)) for s, share in shares]

    def gradient(self, coef: Tensor, z: Tensor) -> list[Tensor]:
        """See :class:`Parameters`. A plane that touches at t changes by its slope's change times ``z - t``."""
        mirrored = z * z.new_tensor([-1.0, 1.0])
        weights = coef.clamp(min=0), coef.clamp(max=0).neg()
        parts = zip(self.sides, self._touching(), (z, mirrored), weights, strict=True)
        return [
            (weight[..., None] * (at - plane.at) * (side.steepest.upper - side.steepest.lower)).nan_to_num(0.0)
            for side, plane, at, weight in parts
        ]

    def tensors(self) -> list[Tensor]:
        """See :class:`Parameters`."""
        return [self.below, self.above]

    def keep(self) -> None:
        """See :class:`Parameters`."""
        for share in self.tensors():
            share.clamp_(0.0, 1.0)


@parameters.register
def _(op: Normalised, lines: Lines, z: Bounds) -> Parameters | None:
    sides = normalised.sides(z, op.count)
    shares = []
    for side in sides:
        least, most = side.steepest.lower, side.steepest.upper
        shares.append(((side.best - least) / (most - least).clamp(min=torch.finfo(least.dtype).tiny)).clamp(0.0, 1.0))
    return Slopes(sides, *(share.nan_to_num(0.0) for share in shares))
