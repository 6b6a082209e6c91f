"""From a network and a region to a :class:`Question`: what is affine, or linear or constant in pieces, exactly.

Weights and bounds are float64 numbers, hence dyadic rationals. A node's values are kept as integers with one common
exponent. What is affine is substituted; a neuron that its bounds prove stable is, too; each other one is a variable.
A LeakyReLU is ``slope * z + (1 - slope) * relu(z)``, and a maximum ``q + relu(p - q)``, operand by operand; what is
constant in pieces is its least value and a jump for each step up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import singledispatch
from itertools import pairwise
from math import ceil, floor, inf
from typing import Any, Literal

import numpy as np
from torch import Tensor

from assay.verify.backends.smt.question import Form, Neuron, Question
from assay.verify.bounds.backward.matrix import Dense, Sparse, constant, matrix
from assay.verify.core.budget import Budget
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.network import Network
from assay.verify.core.ops import (
    Add,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Gather,
    LeakyRelu,
    Linear,
    Max,
    Op,
    Relu,
    Reshape,
    Scale,
    Step,
    Sub,
)
from assay.verify.core.region import Polytope, Region
from assay.verify.core.spec import Spec
from assay.verify.core.verifier import Bounds

# An array of Python integers.
Integers = np.ndarray[Any, np.dtype[np.object_]]

CELL = 64  # bytes that an entry takes, about
JUMPS = 64  # that one value may make


@dataclass(frozen=True, eq=False)
class Values:
    """``numbers * 2**exponent``, exactly: affine functions (shape of the node x 1 + variables), the constant first."""

    numbers: Integers
    exponent: int

    def over(self, width: int, exponent: int) -> Integers:
        """The numbers over more variables, for an exponent that is no larger."""
        wide = _wide(self.numbers, width)
        return wide << (self.exponent - exponent) if exponent < self.exponent else wide

    def flat(self) -> Values:
        """One function after the other."""
        return Values(self.numbers.reshape(-1, self.numbers.shape[-1]), self.exponent)

    def __getitem__(self, index: Any) -> Values:
        return Values(self.numbers[index], self.exponent)

    def __add__(self, other: Values) -> Values:
        (a, b), exponent = aligned([self, other])
        return Values(a + b, exponent)

    def __sub__(self, other: Values) -> Values:
        return self + Values(-other.numbers, other.exponent)

    def times(self, factor: Values) -> Values:
        """Each function times a constant of its own, or one for all: factor (shape of the node x 1)."""
        return Values(self.numbers * factor.numbers, self.exponent + factor.exponent)

    def form(self) -> Form:
        """One function (1 + variables) as a form."""
        unit = Fraction(2) ** self.exponent
        terms = tuple((int(j) - 1, int(self.numbers[j]) * unit) for j in np.flatnonzero(self.numbers) if j > 0)
        return Form(terms, int(self.numbers[0]) * unit)


def aligned(parts: Sequence[Values]) -> tuple[list[Integers], int]:
    """The numbers of all parts over the same variables and for one exponent."""
    width, exponent = max(p.numbers.shape[-1] for p in parts), min(p.exponent for p in parts)
    return [p.over(width, exponent) for p in parts], exponent


def _wide(numbers: Integers, width: int) -> Integers:
    """The same functions of more variables. (numpy's own padding puts in numbers of 64 bits.)"""
    missing = np.zeros((*numbers.shape[:-1], width - numbers.shape[-1]), dtype=object)
    return np.concatenate([numbers, missing], -1)


def constants(t: Tensor) -> Values:
    """A tensor's float64 values, exactly, as functions without variables: (shape x 1).

    Raises :class:`UnsupportedError` for values that are no numbers.
    """
    values = t.detach().cpu().double().numpy()
    if not np.isfinite(values).all():
        raise UnsupportedError("the network or its specification has constants that are not finite")
    mantissa, exponent = np.frexp(values)
    whole = (mantissa * 2.0**53).astype(np.int64)
    trailing = np.frexp((whole & -whole).astype(np.float64))[1] - 1  # zeros at the end of the binary number
    trailing = np.where(whole == 0, 0, trailing)
    exponent = np.where(whole == 0, 0, exponent - 53 + trailing)
    lowest = int(exponent.min(initial=0))
    numbers = (whole >> trailing).astype(object) << (exponent - lowest).astype(object)
    return Values(np.asarray(numbers, dtype=object)[..., None], lowest)


@dataclass(eq=False)
class Encoder:
    """Collects the neurons of a network over a box."""

    budget: Budget
    box: tuple[tuple[Fraction, Fraction], ...] = ()
    neurons: list[Neuron] = field(default_factory=list)

    def inputs(self, lower: Tensor, upper: Tensor) -> Values:
        """The network's input (shape x 1 + variables), one variable for each that has a width; bounds (shape)."""
        low, high = ([Fraction(v) for v in t.flatten().tolist()] for t in (lower, upper))
        free = [i for i in range(len(low)) if low[i] < high[i]]
        self.box = tuple((low[i], high[i]) for i in free)
        values = constants(lower.flatten())
        numbers = _wide(values.numbers, 1 + len(free))
        numbers[free, 0] = 0
        numbers[free, np.arange(len(free)) + 1] = 1 << -values.exponent
        return Values(numbers.reshape(*lower.shape, -1), values.exponent)

    def relu(self, z: Values, lower: float, upper: float) -> Values:
        """``max(z, 0)`` for one function z that lies within bounds: 0, z itself, or a new variable."""
        if upper <= 0 or lower >= 0:
            return z if lower >= 0 else ZERO
        form = z.form()
        least, greatest = _inside(form, lower, upper, self._bounds())
        if greatest <= 0 or least >= 0:
            return z if least >= 0 else ZERO
        self.neurons.append(Neuron(form, least, greatest))
        return Values(np.array([0] * (len(self.box) + len(self.neurons)) + [1], dtype=object), 0)

    def step(self, kind: str, z: Values, lower: float, upper: float) -> Values:
        """The step function of one function z that lies within bounds: its least value, and a new variable for each
        jump that may be passed."""
        form, low, high = z.form(), *_inside(z.form(), lower, upper, self._bounds())
        if high - low > JUMPS:
            raise UnsupportedError(f"more than {JUMPS} steps of one {kind}")
        value = Values(np.array([STEP[kind](low)], dtype=object), 0)
        for at, jump in jumps(kind, low, high):
            self.neurons.append(Neuron(replace(form, constant=form.constant - at), low - at, high - at, jump))
            value = value + Values(np.array([0] * (len(self.box) + len(self.neurons)) + [1], dtype=object), 0)
        return value

    def room(self, rows: int) -> None:
        """Raise :class:`MemoryError` where so many functions are too many."""
        self.budget.check()
        if rows * (1 + len(self.box) + len(self.neurons)) * CELL > self.budget.memory:
            raise MemoryError(f"{rows} functions of {len(self.box)} inputs and {len(self.neurons)} neurons")

    def _bounds(self) -> list[tuple[Fraction, Fraction]]:
        return [*self.box, *((Fraction(0), neuron.most) for neuron in self.neurons)]


def _inside(
    form: Form, lower: float, upper: float, bounds: Sequence[tuple[Fraction, Fraction]]
) -> tuple[Fraction, Fraction]:
    """The range of a form over the bounds of its variables, within bounds that it has besides."""
    least, greatest = form.range(bounds)
    least = max(least, Fraction(lower)) if lower > -inf else least
    return least, min(greatest, Fraction(upper)) if upper < inf else greatest


STEP: Mapping[str, Callable[[Fraction], int]] = {
    "sign": lambda z: (z > 0) - (z < 0),
    "floor": floor,
    "ceil": ceil,
    "round": round,  # half to even
}


def jumps(kind: str, low: Fraction, high: Fraction) -> list[tuple[Fraction, Literal[">=", ">"]]]:
    """Where a step function goes up by 1 in [low, high], beyond its value at ``low``: from that point on, or after it.
    A sign does so twice at 0."""
    first, last = STEP[kind](low), STEP[kind](high)
    if kind == "sign":
        both: list[tuple[Fraction, Literal[">=", ">"]]] = [(Fraction(0), ">="), (Fraction(0), ">")]
        return both[first + 1 : last + 1]
    if kind == "floor":
        return [(Fraction(k + 1), ">=") for k in range(first, last)]
    if kind == "ceil":
        return [(Fraction(k), ">") for k in range(first, last)]
    return [(k + Fraction(1, 2), ">" if k % 2 == 0 else ">=") for k in range(first, last)]


ZERO = Values(np.array([0], dtype=object), 0)


def encode(
    network: Network, bounds: Sequence[Bounds], spec: Spec, budget: Budget, region: Region | None = None
) -> Question:
    """The question whether the network can reach the unsafe set from the box of its input, or from the ``region`` in it
    that is a polytope.

    ``bounds``: of every node (1 x shape), valid in real arithmetic; those of node 0 are the box itself.
    Raises :class:`assay.verify.core.budget.Expired`, and :class:`MemoryError` for a network that is too large for this.
    """
    encoder = Encoder(budget)
    values = [encoder.inputs(bounds[0].lower[0], bounds[0].upper[0])]
    for node in network.nodes[1:]:
        encoder.room(node.size)
        operands, known = [values[i] for i in node.inputs], [bounds[i] for i in node.inputs]
        value = express(node.op, node.shape, operands, known, encoder)
        values.append(replace(value, numbers=value.numbers.reshape(*node.shape, -1)))
    output = values[-1].flat()
    disjuncts: list[tuple[Form, ...]] = []
    for disjunct in spec.disjuncts:
        if not len(disjunct.b):  # every output is unsafe: 0 <= 0
            disjuncts.append((Form((), Fraction(0)),))
            continue
        rows = combined(constants(disjunct.A), output, encoder) - constants(disjunct.b)
        disjuncts.append(tuple(rows[i].form() for i in range(len(disjunct.b))))
    strict = tuple(tuple(d.strict.tolist()) or (False,) for d in spec.disjuncts)
    limits: tuple[Form, ...] = ()
    if isinstance(region, Polytope):
        rows = combined(constants(region.A), values[0].flat(), encoder) - constants(region.b)
        limits = tuple(rows[i].form() for i in range(len(region.b)))
    return Question(encoder.box, tuple(encoder.neurons), tuple(disjuncts), strict, limits)


def combined(weights: Values, x: Values, encoder: Encoder) -> Values:
    """A matrix of constants (outputs x inputs x 1) applied to functions (inputs x 1 + variables)."""
    alive = np.array([bool(row.any()) for row in x.numbers], dtype=bool)
    rows = []
    for row in weights.numbers[..., 0]:
        encoder.budget.check()
        used = np.flatnonzero(row.astype(bool) & alive)
        rows.append(row[used] @ x.numbers[used] if len(used) else np.zeros(x.numbers.shape[-1], dtype=object))
    return Values(np.stack(rows), weights.exponent + x.exponent)


@singledispatch
def express(
    op: Op, shape: tuple[int, ...], operands: Sequence[Values], known: Sequence[Bounds], encoder: Encoder
) -> Values:
    """The value of ``op`` (of this ``shape``, or flat), from its operands' values and proven bounds."""
    raise UnsupportedError(f"operation {op.label} is not piecewise linear")


@express.register(Linear)
@express.register(Conv2d)
@express.register(ConvTranspose2d)
def _(
    op: Linear | Conv2d | ConvTranspose2d,
    shape: tuple[int, ...],
    operands: Sequence[Values],
    known: Sequence[Bounds],
    encoder: Encoder,
) -> Values:
    whole = matrix(op, tuple(known[0].lower.shape[1:]))
    x, bias = operands[0].flat(), constants(constant(op, shape))
    if isinstance(whole, Dense):
        return combined(constants(whole.transposed.T), x, encoder) + bias
    if not isinstance(whole, Sparse):
        raise MemoryError("a convolution too large to be written out")
    entries, starts = constants(whole.values), whole.starts.tolist()
    inputs = whole.inputs.cpu().numpy()
    rows = []
    for begin, end in pairwise(starts):
        encoder.budget.check()
        rows.append(entries.numbers[begin:end, 0] @ x.numbers[inputs[begin:end]])
    return Values(np.stack(rows), entries.exponent + x.exponent) + bias


@express.register
def _(
    op: Scale, shape: tuple[int, ...], operands: Sequence[Values], known: Sequence[Bounds], encoder: Encoder
) -> Values:
    return operands[0].times(constants(op.factor.expand(shape))) + constants(op.shift.expand(shape))


@express.register
def _(op: Add, shape: tuple[int, ...], operands: Sequence[Values], known: Sequence[Bounds], encoder: Encoder) -> Values:
    return operands[0] + operands[1]


@express.register
def _(op: Sub, shape: tuple[int, ...], operands: Sequence[Values], known: Sequence[Bounds], encoder: Encoder) -> Values:
    return operands[0] - operands[1]


@express.register
def _(
    op: Reshape, shape: tuple[int, ...], operands: Sequence[Values], known: Sequence[Bounds], encoder: Encoder
) -> Values:
    return operands[0]


@express.register
def _(
    op: Concat, shape: tuple[int, ...], operands: Sequence[Values], known: Sequence[Bounds], encoder: Encoder
) -> Values:
    parts, exponent = aligned(operands)
    return Values(np.concatenate(parts, op.axis), exponent)


@express.register
def _(
    op: Gather, shape: tuple[int, ...], operands: Sequence[Values], known: Sequence[Bounds], encoder: Encoder
) -> Values:
    index = op.index.cpu().numpy()
    (x, fill), exponent = aligned(
        [operands[0].flat(), constants(op.index.new_tensor(op.fill, dtype=known[0].lower.dtype))]
    )
    picked = x[np.maximum(index, 0)]
    picked[index < 0] = fill
    return Values(picked, exponent)


@express.register(Relu)
@express.register(LeakyRelu)
def _(
    op: Relu | LeakyRelu,
    shape: tuple[int, ...],
    operands: Sequence[Values],
    known: Sequence[Bounds],
    encoder: Encoder,
) -> Values:
    z = operands[0].flat()
    lower, upper = known[0].lower.flatten().tolist(), known[0].upper.flatten().tolist()
    rows = []
    for i in range(len(lower)):
        encoder.room(len(lower))
        active = encoder.relu(z[i], lower[i], upper[i])
        if isinstance(op, LeakyRelu):
            slope = constants(known[0].lower.new_tensor(op.slope))
            active = active + (z[i] - active).times(slope)
        rows.append(active)
    return _stacked(rows)


@express.register
def _(op: Max, shape: tuple[int, ...], operands: Sequence[Values], known: Sequence[Bounds], encoder: Encoder) -> Values:
    """Operands that never exceed the one with the largest lower bound are left out."""
    x = operands[0].numbers
    windows = Values(x.reshape(-1, *x.shape[-2:]), operands[0].exponent)
    lower, upper = (t.reshape(len(windows.numbers), -1).tolist() for t in (known[0].lower, known[0].upper))
    rows = []
    for i, (lows, highs) in enumerate(zip(lower, upper, strict=True)):
        encoder.room(len(lower))
        best = max(range(len(lows)), key=lows.__getitem__)
        largest = windows[i, best]
        for j in range(len(lows)):
            if j != best and highs[j] > lows[best]:
                largest = largest + encoder.relu(windows[i, j] - largest, -inf, inf)
        rows.append(largest)
    return _stacked(rows)


@express.register
def _(
    op: Step, shape: tuple[int, ...], operands: Sequence[Values], known: Sequence[Bounds], encoder: Encoder
) -> Values:
    z = operands[0].flat()
    lower, upper = known[0].lower.flatten().tolist(), known[0].upper.flatten().tolist()
    rows = []
    for i in range(len(lower)):
        encoder.room(len(lower))
        rows.append(encoder.step(op.kind, z[i], lower[i], upper[i]))
    return _stacked(rows)


def _stacked(rows: Sequence[Values]) -> Values:
    numbers, exponent = aligned(rows)
    return Values(np.stack(numbers), exponent)


def unsupported(network: Network) -> list[str]:
    """The operations of ``network`` that have no rule here."""
    default = express.dispatch(object)
    return sorted({n.op.label for n in network.nodes[1:] if express.dispatch(type(n.op)) is default})
