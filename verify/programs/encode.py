"""A network over a region as a program: the triangle relaxation (Ehlers 2017, arXiv:1705.01320), or exactly, with one
binary for each unstable neuron (Tjeng et al. 2019, arXiv:1711.07356).

Affine operations are substituted. Neurons that bounds prove stable add at most a column for their value; each
unstable ReLU has a column z for its operand, a column a for its value, and rows that tie them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import singledispatch

import numpy as np
from scipy import sparse
from torch import Tensor

from assay.verify.core.errors import UnsupportedError
from assay.verify.core.network import Network
from assay.verify.core.ops import InverseSumExp, LeakyRelu, Max, Normalised, Op, Product, Relu, Smooth, Step
from assay.verify.core.region import LpBall, Polytope, Region
from assay.verify.core.verifier import Bounds
from assay.verify.programs import between, jumps
from assay.verify.programs.expressions import Expression, as_array, express, is_affine, of_columns
from assay.verify.programs.jumps import Jumps
from assay.verify.programs.maxima import chord_above, contested, largest
from assay.verify.programs.program import Ball, Draft, Index, Program, Vector, widened
from assay.verify.support.floats import TINY, gamma

# Operations that are no more than between lines in any program.
LOOSE = (Smooth, Product, InverseSumExp, Normalised)

# Numbers beyond this may overflow where they are multiplied.
LARGEST = 1e100


class Unbounded(Exception):
    """Bounds of some values are not finite, or too large, or they cross: there is no program to be made of them."""


@dataclass(frozen=True, eq=False)
class UnstableNeurons:
    """The unstable ReLUs, or ReLUs that others are made of, in the order of the network: each field is (neurons).

    ``position`` and ``feature`` of the operation, the columns ``z`` and ``a`` of operand and value, the row ``above``
    that says a - z >= 0, and the row of the ``chord``; where the program is exact the column ``switch``, 1 where the
    neuron is active, stands in its place. What is not there is -1. A split changes bounds alone: inactive is z <= 0
    and a <= 0, active is z >= 0 and a - z <= 0.
    """

    position: Index
    feature: Index
    z: Index
    a: Index
    above: Index
    chord: Index
    switch: Index

    def __len__(self) -> int:
        return len(self.z)


@dataclass(frozen=True, eq=False)
class Operands:
    """The operands of activations that have columns, in the order of the network: each field is (operands)."""

    position: Index
    feature: Index
    column: Index


@dataclass(frozen=True, eq=False)
class Wanted:
    """Operands of the activation at a ``position``, by ``feature`` (operands), which better bounds are asked of: their
    ``values``, and the ``draft`` and the ``neurons`` that there are so far."""

    position: int
    feature: Index
    values: Expression
    draft: Draft
    neurons: UnstableNeurons


# Tighter bounds of some values, given the bounds known of them.
Refine = Callable[[Wanted, Vector, Vector], tuple[Vector, Vector]]


@dataclass(frozen=True, eq=False)
class Encoding:
    """``draft`` holds the network over the region; ``output`` is its output as a function of the columns.

    ``neurons``: the unstable ones; ``operands``: the columns of activations' operands; ``inputs``: the column of each
    input, -1 where it cannot vary; ``centre``: then its value; ``jumps``: those that have columns of their own.
    """

    draft: Draft
    output: Expression
    neurons: UnstableNeurons
    operands: Operands
    inputs: Index
    centre: Vector
    jumps: Jumps

    def cost(self, row: Vector, side: float = 0.0) -> tuple[Vector, float]:
        """``row @ output - side`` (outputs) as a cost vector and an offset, which is never above the true one."""
        matrix = self.output.matrix
        return widened(row @ matrix, self.draft.width), float(self._offsets(row[None], np.array([side]))[0])

    def _offsets(self, A: Vector, b: Vector) -> Vector:
        """``A @ constant - b`` (rows), less what its rounding may have added."""
        size = np.abs(A) @ np.abs(self.output.constant) + np.abs(b)
        offsets: Vector = A @ self.output.constant - b - 4 * gamma(A.shape[1] + 4) * size - TINY
        charged: Vector = np.where(size > 0, offsets, 0.0)
        return charged

    def input(self, x: Vector) -> Vector:
        """The network's flattened input (inputs) at the point ``x`` (columns) of the program."""
        point: Vector = self.inputs_at(x[None])[0]
        return point

    def inputs_at(self, x: Vector) -> Vector:
        """As :meth:`input`, at several points: (points x columns) to (points x inputs)."""
        varied = np.pad(x, ((0, 0), (0, 1)))[:, self.inputs]  # -1 is the column that is added
        return np.where(self.inputs < 0, self.centre, varied)

    def disjunct(self, A: Vector, b: Vector) -> Program:
        """Minimise ``max_i (A y - b)_i``: A (rows x outputs), b (rows), at least one row.

        Several rows are the epigraph of their maximum: one more column, which lies above all of them.
        """
        if len(b) == 1:
            return self.draft.program(*self.cost(A[0], float(b[0])))
        draft = self.draft.copy()
        rows = Expression(sparse.csr_array(A @ self.output.matrix), self._offsets(A, b))
        low, high = interval(rows, *draft.bounds())
        top = draft.columns(low.max(keepdims=True), high.max(keepdims=True))
        above = above_all(draft, rows, np.repeat(top, len(b)))
        draft.rest(above[[low.argmax()]], np.full(1, -1))
        return draft.program(np.eye(1, draft.width, int(top[0]))[0])


def above_all(draft: Draft, values: Expression, columns: Index) -> Index:
    """Rows that say ``columns[i] >= values[i]``; returns their numbers: (values)."""
    row, column, value = values.entries()
    each = np.arange(len(values))
    entries = [(row, column, -value), (each, columns, np.ones(len(values)))]
    return draft.rows(entries, values.constant, np.full(len(values), np.inf))


def interval(values: Expression, lower: Vector, upper: Vector) -> tuple[Vector, Vector]:
    """Bounds (values each) of expressions over the columns' bounds (columns), wide enough for the rounding."""
    matrix = values.over(len(lower)).matrix
    positive, negative = matrix.maximum(0), matrix.minimum(0)
    low = positive @ lower + negative @ upper + values.constant
    high = positive @ upper + negative @ lower + values.constant
    slack = 1e-12 * (abs(matrix) @ np.maximum(np.abs(lower), np.abs(upper)) + np.abs(values.constant))
    return low - slack, high + slack


@dataclass(eq=False)
class Encoder:
    """The state of one walk through a network. ``low`` and ``high``: bounds of the operand of each activation."""

    network: Network
    exact: bool
    refine: Refine | None
    inset: float = 0.0
    split: bool = False
    draft: Draft = field(default_factory=Draft)
    neurons: list[tuple[Index, ...]] = field(default_factory=list)
    operands: list[tuple[Index, Index, Index]] = field(default_factory=list)
    jumps: list[Jumps] = field(default_factory=list)

    def note(self, position: int, features: Index, columns: Index) -> None:
        """Remember which columns stand for these operands of the activation at ``position``: (operands) each."""
        self.operands.append((np.full(len(features), position), features, columns))

    def tightened(
        self, position: int, values: Expression, low: Vector, high: Vector, wanted: Index
    ) -> tuple[Vector, Vector]:
        """The bounds (values each) of operands at ``position`` with those of the ``wanted`` ones (numbers) refined."""
        if self.refine is None or not len(wanted):
            return low, high
        low, high = low.copy(), high.copy()
        asked = Wanted(position, wanted, values.take(wanted), self.draft, self.unstable)
        low[wanted], high[wanted] = self.refine(asked, low[wanted], high[wanted])
        _check(low, high)
        return low, high

    def named(self, values: Expression, low: Vector, high: Vector) -> Index:
        """A column for each value (values): its own if it is one already, else a new one and a row that defines it."""
        matrix = values.matrix
        single = (np.diff(matrix.indptr) == 1) & (values.constant == 0)
        first = matrix.indptr[:-1][single]
        single[single] = matrix.data[first] == 1.0
        columns = np.full(len(values), -1, dtype=np.int64)
        columns[single] = matrix.indices[matrix.indptr[:-1][single]]
        new = np.flatnonzero(~single)
        columns[new] = self.draft.columns(low[new], high[new])
        row, column, value = values.take(new).entries()
        own = (np.arange(len(new)), columns[new], np.ones(len(new)))
        rows = self.draft.rows([own, (row, column, -value)], values.constant[new], values.constant[new])
        self.draft.rest(rows, rows)
        return columns

    def relu(self, position: int, z: Index, low: Vector, high: Vector) -> Index:
        """Columns of ``max(z, 0)`` for columns ``z`` (features), z itself if stable; -1 (the value 0) where z is."""
        unstable = np.flatnonzero((z >= 0) & (low < 0) & (high > 0))
        at, count = z[unstable], len(unstable)
        low, high = low[unstable], high[unstable]
        a = self.draft.columns(np.zeros(count), high)
        each, one, free = np.arange(count), np.ones(count), np.full(count, np.inf)
        above = self.draft.rows([(each, a, one), (each, at, -one)], np.zeros(count), free)
        chord = switch = np.full(count, -1)
        if self.exact:
            switch = self.draft.columns(np.zeros(count), one, integer=True)
            self.draft.rows([(each, a, one), (each, at, -one), (each, switch, -low)], -free, -low)
            self.draft.rows([(each, a, one), (each, switch, -high)], -free, np.zeros(count))
        else:
            slope, intercept = chord_above(low, high)
            chord = self.draft.rows([(each, a, one), (each, at, -slope)], -free, intercept)
            self.draft.rest(np.where(high > -low, above, -1), chord)
        self.neurons.append((np.full(count, position), unstable, at, a, above, chord, switch))
        value = z.copy()
        value[unstable] = a
        return value

    @property
    def unstable(self) -> UnstableNeurons:
        """The unstable neurons so far."""
        return UnstableNeurons(*_table(self.neurons, 7))

    def encoding(self, output: Expression, inputs: Index, centre: Vector) -> Encoding:
        """The finished encoding; the arguments are its fields: ``inputs`` and ``centre`` (inputs)."""
        operands, steps = Operands(*_table(self.operands, 3)), Jumps.joined(self.jumps)
        return Encoding(self.draft, output, self.unstable, operands, inputs, centre, steps)


def _table(parts: Sequence[tuple[Index, ...]], width: int) -> list[Index]:
    """Parts of so many fields each as one table."""
    none = (np.zeros(0, dtype=np.int64),) * width
    return [np.concatenate(field).astype(np.int64) for field in zip(none, *parts, strict=True)]


@singledispatch
def activate(op: Op, encoder: Encoder, position: int, z: Expression, low: Vector, high: Vector) -> Expression:
    """The value of the activation ``op`` at ``position``, its operand ``z`` (values) within [low, high]."""
    raise UnsupportedError(f"operation {op.label} has no encoding")


@activate.register
def _(op: Relu, encoder: Encoder, position: int, z: Expression, low: Vector, high: Vector) -> Expression:
    low, high = encoder.tightened(position, z, low, high, np.flatnonzero((low < 0) & (high > 0)))
    live = np.flatnonzero(high > 0)
    columns = np.full(len(z), -1, dtype=np.int64)
    columns[live] = encoder.named(z.take(live), low[live], high[live])
    encoder.note(position, live, columns[live])
    return of_columns(encoder.relu(position, columns, low, high), np.zeros(len(z)))


@activate.register
def _(op: LeakyRelu, encoder: Encoder, position: int, z: Expression, low: Vector, high: Vector) -> Expression:
    """``slope * z + (1 - slope) * max(z, 0)``."""
    low, high = encoder.tightened(position, z, low, high, np.flatnonzero((low < 0) & (high > 0)))
    columns = encoder.named(z, low, high)
    encoder.note(position, np.arange(len(z)), columns)
    positive = of_columns(encoder.relu(position, np.where(high > 0, columns, -1), low, high), np.zeros(len(z)))
    width = encoder.draft.width
    whole = of_columns(columns, np.zeros(len(z))).over(width)
    return Expression(op.slope * whole.matrix + (1 - op.slope) * positive.over(width).matrix, np.zeros(len(z)))


@activate.register
def _(op: Max, encoder: Encoder, position: int, z: Expression, low: Vector, high: Vector) -> Expression:
    """Operands that cannot be the largest are left out; one that must be is the value itself."""
    operands = encoder.network.nodes[encoder.network.nodes[position].inputs[0]].shape[-1]
    open_ = contested(low.reshape(-1, operands), high.reshape(-1, operands))
    several = open_ & (open_.sum(1, keepdims=True) > 1)
    low, high = encoder.tightened(position, z, low, high, np.flatnonzero(several.flatten()))
    low, high = low.reshape(-1, operands), high.reshape(-1, operands)
    open_ = contested(low, high)
    number = np.arange(len(z)).reshape(low.shape)
    columns = np.full(low.shape, -1, dtype=np.int64)
    used = number[open_]
    columns[open_] = encoder.named(z.take(used), low[open_], high[open_])
    encoder.note(position, used, columns[open_])
    value = columns.max(1)
    several_ = np.flatnonzero(open_.sum(1) > 1)
    value[several_] = largest(encoder.draft, encoder.exact, columns[several_], low[several_], high[several_])
    return of_columns(value, np.zeros(len(value)))


@activate.register(Smooth)
@activate.register(Product)
@activate.register(Normalised)
@activate.register(InverseSumExp)
def _(op: Op, encoder: Encoder, position: int, z: Expression, low: Vector, high: Vector) -> Expression:
    """A column between several lines."""
    operands = encoder.network.nodes[encoder.network.nodes[position].inputs[0]].shape[-1] if op.several else 1
    low, high = encoder.tightened(position, z, low, high, np.flatnonzero(low < high))
    columns = encoder.named(z, low, high)
    encoder.note(position, np.arange(len(z)), columns)
    ends = between.interval(op, low, high, operands)
    _check(*ends)
    value = encoder.draft.columns(*ends)
    between.between(encoder.draft, op, columns, low, high, operands, value)
    return of_columns(value, np.zeros(len(value)))


@activate.register
def _(op: Step, encoder: Encoder, position: int, z: Expression, low: Vector, high: Vector) -> Expression:
    """Whole numbers, each with the closure of the part of the operand's interval where it is the value."""
    low, high = encoder.tightened(position, z, low, high, np.flatnonzero(low < high))
    columns = encoder.named(z, low, high)
    encoder.note(position, np.arange(len(z)), columns)
    ends = between.interval(op, low, high, 1)
    _check(*ends)
    value = encoder.draft.columns(*ends, integer=encoder.exact)
    if encoder.exact:
        open_ = ends[0] < ends[1]
        jumps.pieces(encoder.draft, op, columns[open_], low[open_], high[open_], value[open_], encoder.inset)
    else:
        between.between(encoder.draft, op, columns, low, high, 1, value)
        if encoder.split:
            encoder.jumps.append(jumps.passed(encoder.draft, op, columns, low, high, value, ends, encoder.inset))
    return of_columns(value, np.zeros(len(value)))


def without_relaxation(network: Network) -> str | None:
    """Which operations have no rows in a linear relaxation, in one line; None if all have."""
    default = activate.dispatch(object)
    ops = {n.op.label: n.op for n in network.nodes[1:]}
    missing = sorted(k for k, op in ops.items() if not is_affine(op) and activate.dispatch(type(op)) is default)
    return f"no linear program for {', '.join(missing)}" if missing else None


def without_encoding(network: Network) -> str | None:
    """Which operations no program is exact about after splits, or with integer columns, in one line; None if all are
    so."""
    loose = sorted({n.op.label for n in network.nodes if isinstance(n.op, LOOSE)})
    return without_relaxation(network) or (f"no exact program for {', '.join(loose)}" if loose else None)


def encode(
    network: Network,
    region: Region,
    bounds: Sequence[Bounds],
    exact: bool = False,
    refine: Refine | None = None,
    inset: float = 0.0,
    split: bool = False,
) -> Encoding:
    """``network`` over a ``region`` of one sample, with proven ``bounds`` of each node (1 x shape of the node).

    ``exact``: binaries that make it the network itself, in place of its relaxation; ``refine`` is asked for tighter
    bounds of the operands of each activation that is not decided by those at hand, layer by layer. ``inset``: how far
    from where a piecewise constant function jumps its operand is held, as a part of its interval: then some of the
    network's points are left out, and those that are found are clear ones. ``split``: columns for each jump, so that
    splits make the relaxation exact.

    Raises :class:`Unbounded` where a bound that matters is not finite.
    """
    encoder = Encoder(network, exact, refine, inset, split)
    box = region.box()
    low, high = as_array(box.lower.flatten()), as_array(box.upper.flatten())
    inputs = _inputs(encoder.draft, region, low, high)
    values = [of_columns(inputs, low)]
    for position, node in enumerate(network.nodes[1:], start=1):
        operands = [values[i] for i in node.inputs]
        if is_affine(node.op):
            shapes = [network.nodes[i].shape for i in node.inputs]
            values.append(express(node.op, node.shape, shapes, *operands))
            continue
        known = bounds[node.inputs[0]]
        values.append(activate(node.op, encoder, position, operands[0], *_checked(known.lower, known.upper)))
    return encoder.encoding(values[-1], inputs, low)


def _checked(lower: Tensor, upper: Tensor) -> tuple[Vector, Vector]:
    low, high = as_array(lower.flatten()), as_array(upper.flatten())
    _check(low, high)
    return low, high


def _check(low: Vector, high: Vector) -> None:
    if not ((low > -LARGEST) & (low <= high) & (high < LARGEST)).all():  # false for NaN
        raise Unbounded


def _inputs(draft: Draft, region: Region, low: Vector, high: Vector) -> Index:
    """The column of each input that varies, -1 elsewhere; a ball in l1 and a polytope add rows, a ball in l2 itself."""
    _check(low, high)
    columns = np.full(len(low), -1, dtype=np.int64)
    free = np.flatnonzero(low < high)
    columns[free] = draft.columns(low[free], high[free])
    if isinstance(region, LpBall) and region.p in (1, 2):
        centre, radius = as_array(region.centre.flatten())[free], float(region.eps)
        if region.p == 2:
            draft.ball = Ball(columns[free], centre, radius)
        else:
            _l1(draft, columns[free], centre, radius)
    if isinstance(region, Polytope):
        _constraints(draft, columns, as_array(region.A), as_array(region.b), low)
    return columns


def _constraints(draft: Draft, x: Index, A: Vector, b: Vector, fixed: Vector) -> None:
    """``A x <= b``, with the inputs that are ``fixed`` moved to the other side, which is rounded up."""
    free = x >= 0
    limits = b - np.where(free, 0.0, A * fixed).sum(1)
    size = np.where(free, 0.0, np.abs(A * fixed)).sum(1) + np.abs(b)
    limits = np.where(free.all(), b, np.nextafter(limits + 2 * gamma(len(x) + 2) * size + TINY, np.inf))
    row, column = np.nonzero(A * free)
    draft.rows([(row, x[column], A[row, column])], np.full(len(b), -np.inf), limits)


def _l1(draft: Draft, x: Index, centre: Vector, radius: float) -> None:
    """x = centre + p - n with p, n >= 0 that sum up to the radius at most."""
    count = len(x)
    each, one = np.arange(count), np.ones(count)
    p, n = (draft.columns(np.zeros(count), np.full(count, radius)) for _ in range(2))
    draft.rows([(each, x, one), (each, p, -one), (each, n, one)], centre, centre)
    total = (np.zeros(2 * count, dtype=np.int64), np.concatenate([p, n]), np.ones(2 * count))
    draft.rows([total], np.full(1, -np.inf), np.full(1, radius))
