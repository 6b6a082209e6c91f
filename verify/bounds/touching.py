"""Rows of a specification bounded without any rounding, for unsafe sets that are touched and perhaps not entered.

Every float64 number is an integer times a power of two, and so are their sums and products: a backward propagation in
integers of any length charges nothing. The intervals of the activations are those of :mod:`rigorous`, true in the
reals; what is drawn over them, lines of any slope of float64, is true whatever the slope.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import singledispatch
from math import inf, nextafter, prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from assay.verify.bounds import rigorous
from assay.verify.bounds.backward.matrix import Sparse, constant, matrix
from assay.verify.bounds.layers import batch_box
from assay.verify.bounds.optimised.multipliers import Constraints
from assay.verify.bounds.relaxations.relax import relaxes
from assay.verify.core.budget import Budget, Expired
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.network import Network
from assay.verify.core.ops import Add, Concat, Conv2d, ConvTranspose2d, Gather, Linear, Op, Relu, Reshape, Scale, Sub
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, Polytope
from assay.verify.core.verifier import Bounds

MOST = 3_000_000  # products of integers, a few seconds' worth
CHEAP = 100_000  # a few hundredths of one
SECONDS = 5.0  # for the intervals

# Coefficients of the operands, each (rows x features), and the constant that is left (rows x 1).
Pulled = tuple[Sequence["Dyadic"], "Dyadic"]


@dataclass(frozen=True, eq=False)
class Dyadic:
    """``number / 2**shift``, element by element: an array of Python's integers."""

    number: np.ndarray[Any, Any]
    shift: int = 0

    @classmethod
    def of(cls, values: Tensor) -> Dyadic:
        """Finite float64 numbers, exactly: of the shape of ``values``, any."""
        share, exponent = np.frexp(values.double().numpy())
        whole, exponent = (share * 2.0**53).astype(np.int64), exponent.astype(np.int64) - 53
        least = int(exponent[whole != 0].min(initial=0))
        return cls(whole.astype(object) << np.maximum(exponent - least, 0).astype(object), -least)

    def at(self, shift: int) -> np.ndarray[Any, Any]:
        """The integers of a larger shift."""
        return self.number << (shift - self.shift)

    def __add__(self, other: Dyadic) -> Dyadic:
        shift = max(self.shift, other.shift)
        return Dyadic(self.at(shift) + other.at(shift), shift)

    def __mul__(self, other: Dyadic) -> Dyadic:
        return Dyadic(self.number * other.number, self.shift + other.shift)

    def __matmul__(self, other: Dyadic) -> Dyadic:
        return Dyadic(self.number @ other.number, self.shift + other.shift)

    def __getitem__(self, index: Any) -> Dyadic:
        return Dyadic(self.number[index], self.shift)

    @property
    def parts(self) -> tuple[Dyadic, Dyadic]:
        """What is positive, and what is negative."""
        return tuple(Dyadic(np.where(keep, self.number, 0), self.shift) for keep in (self.number > 0, self.number < 0))  # type: ignore[return-value]

    def down(self) -> list[float]:
        """The largest float64 numbers that are not above."""
        return [_down(Fraction(int(v)) / Fraction(2) ** self.shift) for v in self.number.flatten()]


@dataclass(frozen=True, eq=False)
class Exact:
    """Lower bounds of ``A y - b``: (rows), float64; ``unattained``: rows that are above theirs at every point of the
    region, as multipliers of its strict constraints show."""

    rows: Tensor
    unattained: Tensor


def lower_rows(problem: Problem, most: int = MOST) -> Exact | None:
    """Lower bounds of ``A y - b`` over the region's box, or a polytope, rounded down alone; None where that takes more
    than ``most`` products, or the network holds what cannot be bounded so."""
    network = problem.network.to(torch.float64)
    if len(problem.spec.b) * sum(_products(network, i) for i in range(1, len(network.nodes))) > most:
        return None
    box = batch_box(problem.region.box(), network.input_shape)
    assert isinstance(box, Box)
    try:
        with torch.no_grad():
            bounds, _ = rigorous.linear_bounds(network, box, problem.spec.A[None], Budget(SECONDS).started())
            found = [_propagate_backwards(network, bounds, problem, rule) for rule in ("stop", "flat", "adaptive")]
    except (Expired, UnsupportedError, MemoryError):
        return None
    rows = torch.tensor([bounds for bounds, _ in found], dtype=torch.float64)
    best = rows.amax(0)
    above = torch.stack([unattained for _, unattained in found])
    return Exact(best, (above & (rows == best)).any(0))


def _propagate_backwards(
    network: Network, bounds: Sequence[Bounds], problem: Problem, rule: str
) -> tuple[list[float], Tensor]:
    """The rows, and which are unattained, down to the first activations (``stop``) or to the input, with lower lines of
    slope 0 under ReLUs that are not fixed (``flat``) or of the slope that loses less (``adaptive``)."""
    total = Dyadic.of(-problem.spec.b[:, None])
    pending = {len(network.nodes) - 1: Dyadic.of(problem.spec.A)}
    unattained = torch.zeros(len(problem.spec.b), dtype=torch.bool)
    while pending:
        position = max(pending)
        node, coef = network.nodes[position], pending.pop(position)
        if position == 0 and isinstance(problem.region, Polytope):
            coef, rest, unattained = _tied(coef, bounds[0], problem.region)
            total = total + rest
        if position == 0 or (relaxes(node.op) and (rule == "stop" or not isinstance(node.op, Relu))):
            total = total + _least(coef, bounds[position])
            continue
        if isinstance(node.op, Relu):
            parts, rest = _relu(coef, bounds[node.inputs[0]], rule)
        else:
            parts, rest = pull(node.op, coef, [network.nodes[i].shape for i in node.inputs], node.shape)
        total = total + rest
        for source, part in zip(node.inputs, parts, strict=True):
            pending[source] = pending[source] + part if source in pending else part
    return total.down(), unattained


def _tied(coef: Dyadic, box: Bounds, region: Polytope) -> tuple[Dyadic, Dyadic, Tensor]:
    """The rows with multiples of a polytope's constraints added: coefficients, constants (rows x 1), and whether a
    strict one takes part (rows). Any multipliers do, so that they may be worked out in float64."""
    near = torch.tensor(coef.down(), dtype=torch.float64).view(coef.number.shape).nan_to_num()
    low, high = (t.reshape(1, -1).expand_as(near) for t in (box.lower, box.upper))
    _, multipliers = Constraints(region.A, region.b).weighed(near, low, high)
    weights = Dyadic.of(multipliers.nan_to_num(posinf=0.0))
    rest = weights @ Dyadic.of(-region.b[:, None])
    strict = (multipliers * region.rows.strict > 0).any(1)
    return coef + weights @ Dyadic.of(region.A), rest, strict


def _least(coef: Dyadic, box: Bounds) -> Dyadic:
    """The least value of each row over a box: (rows x 1)."""
    positive, negative = coef.parts
    used = torch.from_numpy(((coef.number != 0).any(0)).astype(bool))
    return positive @ _column(box.lower, used) + negative @ _column(box.upper, used)


def _column(values: Tensor, used: Tensor) -> Dyadic:
    """Bounds (1 x shape) of the features that are ``used``, 0 elsewhere: (features x 1)."""
    flat = torch.where(used, values.flatten(), 0.0)
    if not bool(flat.isfinite().all()):
        raise UnsupportedError("bounds that are not finite")
    return Dyadic.of(flat[:, None])


def _relu(coef: Dyadic, z: Bounds, rule: str) -> Pulled:
    low, high = z.lower.flatten(), z.upper.flatten()
    open_ = (low < 0) & (high > 0)
    used = torch.from_numpy((coef.number != 0).any(0).astype(bool)) & open_
    if not bool((low[used].isfinite() & high[used].isfinite()).all()):
        raise UnsupportedError("bounds that are not finite")
    low, high = torch.where(used, low, 0.0), torch.where(used, high, 0.0)
    sure = (z.lower.flatten() >= 0).double()
    below = torch.where(open_, (high > -low).double() if rule == "adaptive" else 0.0, sure)
    above = torch.where(used, (high / (high - low).clamp(min=5e-324)).nan_to_num(1.0).clamp(0.0, 1.0), sure)
    slope, left, right = Dyadic.of(above), Dyadic.of(-low), Dyadic.of(high)
    one = Dyadic(np.ones_like(slope.number))
    ends = slope * left, (one + Dyadic(-slope.number, slope.shift)) * right
    shift = max(end.shift for end in ends)
    intercept = Dyadic(np.maximum(*(end.at(shift) for end in ends)), shift)
    positive, negative = coef.parts
    return [positive * Dyadic.of(below) + negative * slope], negative @ intercept[:, None]


@singledispatch
def pull(op: Op, coef: Dyadic, shapes: Sequence[tuple[int, ...]], shape: tuple[int, ...]) -> Pulled:
    """``coef`` (rows x features) of the value of ``op``, which has ``shape``, as coefficients of its operands."""
    raise UnsupportedError(f"operation {op.label} has no exact rule")


@pull.register(Linear)
@pull.register(Conv2d)
@pull.register(ConvTranspose2d)
def _(
    op: Linear | Conv2d | ConvTranspose2d, coef: Dyadic, shapes: Sequence[tuple[int, ...]], shape: tuple[int, ...]
) -> Pulled:
    rest = coef @ Dyadic.of(constant(op, shape))[:, None]
    if isinstance(op, Linear) and len(shape) == 1:
        return [coef @ Dyadic.of(op.weight)], rest
    whole = matrix(op, shapes[0])
    if not isinstance(whole, Sparse):
        raise UnsupportedError("a convolution this large")
    products = coef[:, whole.outputs.numpy()] * Dyadic.of(whole.values)
    return [_summed(products, whole.inputs, whole.shape[0])], rest


@pull.register
def _(op: Scale, coef: Dyadic, shapes: Sequence[tuple[int, ...]], shape: tuple[int, ...]) -> Pulled:
    factor, shift = (Dyadic.of(t.expand(shape).flatten()) for t in (op.factor, op.shift))
    return [coef * factor], coef @ shift[:, None]


@pull.register
def _(op: Reshape, coef: Dyadic, shapes: Sequence[tuple[int, ...]], shape: tuple[int, ...]) -> Pulled:
    return [coef], _nothing(coef)


@pull.register
def _(op: Gather, coef: Dyadic, shapes: Sequence[tuple[int, ...]], shape: tuple[int, ...]) -> Pulled:
    outside = (op.index < 0).double()
    rest = coef @ Dyadic.of(outside * op.fill)[:, None] if op.fill else _nothing(coef)
    inside = (op.index >= 0).numpy()
    return [_summed(coef[:, inside], op.index[op.index >= 0], torch.Size(shapes[0]).numel())], rest


@pull.register
def _(op: Concat, coef: Dyadic, shapes: Sequence[tuple[int, ...]], shape: tuple[int, ...]) -> Pulled:
    axis = op.axis % len(shape)
    ends = np.cumsum([s[axis] for s in shapes])[:-1]
    pieces = np.split(coef.number.reshape(-1, *shape), ends, axis + 1)
    return [Dyadic(piece.reshape(len(piece), prod(piece.shape[1:])), coef.shift) for piece in pieces], _nothing(coef)


@pull.register
def _(op: Add, coef: Dyadic, shapes: Sequence[tuple[int, ...]], shape: tuple[int, ...]) -> Pulled:
    return [coef, coef], _nothing(coef)


@pull.register
def _(op: Sub, coef: Dyadic, shapes: Sequence[tuple[int, ...]], shape: tuple[int, ...]) -> Pulled:
    return [coef, Dyadic(-coef.number, coef.shift)], _nothing(coef)


def _nothing(coef: Dyadic) -> Dyadic:
    return Dyadic(np.zeros((len(coef.number), 1), dtype=object))


def _summed(products: Dyadic, index: Tensor, size: int) -> Dyadic:
    """Columns added up at their ``index``: (rows x size)."""
    total = np.zeros((size, len(products.number)), dtype=object)
    np.add.at(total, index.numpy(), products.number.T)
    return Dyadic(total.T, products.shift)


def _products(network: Network, position: int) -> int:
    """How many products one row takes at a node."""
    node = network.nodes[position]
    fan = node.op.weight[0].numel() if isinstance(node.op, (Linear, Conv2d, ConvTranspose2d)) else 1
    return node.size * int(fan)


def _down(value: Fraction) -> float:
    try:
        near = float(value)
    except OverflowError:
        return -inf
    return near if Fraction(near) <= value else nextafter(near, -inf)
