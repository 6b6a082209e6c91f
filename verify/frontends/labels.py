"""Labels and other whole numbers that are computed from the input: which value is the largest, and what is equal.

The frontends share these: each hands over how it appends an operation to its network. Shapes are those of one sample.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from assay.verify.core.network import Builder, Network, Oracle
from assay.verify.core.ops import Add, Concat, Linear, Relu, Reshape, Scale, Sub
from assay.verify.core.spec import Polyhedron, Spec
from assay.verify.frontends.composed import (
    Emit,
    Value,
    negated,
    number,
    picked,
    positive,
    reshaped,
    scaled,
    stepped,
    within,
)

# Types of whole numbers that are read.
WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True)
class Labelled:
    """A model that answers with a label, as one with a score for each: 1 for the label, 0 for the others.

    ``names``: of the labels, by their places. An answer that is none of them has scores that are NaN.
    """

    model: Oracle
    names: tuple[float, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """(batch x shape) to (batch x labels), in the dtype of ``x``."""
        answer = self.model(x).reshape(len(x), 1)
        chosen = answer == torch.tensor(self.names, dtype=torch.float64)
        return chosen.to(x.dtype).masked_fill(~chosen.any(1, keepdim=True), torch.nan)


def of_scores(spec: Spec, names: Sequence[float]) -> Spec:
    """A specification of the label that is chosen, by its name, as one of the scores: each label that is unsafe is a
    disjunct, in which its score is the largest, the first such one."""
    closed, eye, count = [], torch.eye(len(names), dtype=torch.float64), len(names)
    for k, name in enumerate(names):
        if any(_holds(disjunct, Fraction(name)) for disjunct in spec.disjuncts):
            others = torch.tensor([j for j in range(count) if j != k])
            zero = torch.zeros(count - 1, dtype=torch.float64)
            closed.append(Polyhedron(eye[others] - eye[k], zero, others < k))
    return Spec(tuple(closed))


def _holds(disjunct: Polyhedron, label: Fraction) -> bool:
    """Whether the label lies in it, in exact arithmetic."""
    rows = zip(disjunct.A.flatten().tolist(), disjunct.b.tolist(), disjunct.strict.tolist(), strict=True)
    gaps = ((Fraction(b) - Fraction(a) * label, strict) for a, b, strict in rows)
    return all(gap > 0 if strict else gap >= 0 for gap, strict in gaps)


def magnitude(emit: Emit, x: Value) -> Value:
    """``|x| = max(x, 0) + max(-x, 0)``."""
    sides = (emit(Relu(), scaled(emit, x, sign), shape=x.shape) for sign in (1.0, -1.0))
    return emit(Add(), *sides, shape=x.shape)


def zero(emit: Emit, x: Value, whole: bool) -> Value:
    """1 where x is 0, else 0. ``whole``: x is a whole number, so that ``max(1 - |x|, 0)`` tells, and no jump does."""
    size = magnitude(emit, x)
    if whole:
        return emit(Relu(), negated(emit, size), shape=x.shape)
    return negated(emit, stepped(emit, size, "sign"))


def largest(emit: Emit, x: Value, last: bool = False) -> Value:
    """1 at the largest value on the last axis, the first such one, or the ``last``, and 0 elsewhere.

    It is the one that none beats: of two, the one behind where it is larger, or with ``last`` at least as large.
    """
    n, rows = x.shape[-1], x.size // x.shape[-1]
    front, behind = torch.triu_indices(n, n, 1)
    within(max(n, rows) * len(front), "the pairs of values of which the largest is one")
    start = (torch.arange(rows) * n)[:, None]
    shape = (*x.shape[:-1], len(front))
    first, second = (picked(emit, x, start + place, shape) for place in (front, behind))
    if last:
        ahead = negated(emit, positive(emit, emit(Sub(), first, second, shape=shape)))
    else:
        ahead = positive(emit, emit(Sub(), second, first, shape=shape))
    pair = torch.arange(len(front))
    beaten = torch.zeros(n, len(front), dtype=torch.float64)  # how often: by those behind, and by those in front
    beaten[front, pair], beaten[behind, pair] = 1.0, -1.0
    unbeaten = emit(Linear(-beaten, 1.0 - torch.arange(n, dtype=torch.float64)), ahead, shape=x.shape)
    return emit(Relu(), unbeaten, shape=x.shape)


def place(emit: Emit, x: Value, last: bool = False) -> Value:
    """Where the largest value on the last axis is, the first such one, or the ``last``; the axis has length 1 then."""
    n, rows = x.shape[-1], x.size // x.shape[-1]
    if n == 2:  # the second one, where it is chosen
        index = torch.arange(rows) * 2 + 1
        return picked(emit, largest(emit, x, last), index, (*x.shape[:-1], 1))
    weight = torch.arange(n, dtype=torch.float64)[None]
    return emit(Linear(weight, number(0).view(1)), largest(emit, x, last), shape=(*x.shape[:-1], 1))


def one_hot(emit: Emit, x: Value, depth: int) -> Value:
    """A new last axis of length ``depth``: 1 at the place that a whole number x tells, from the end where it is
    negative, and 0 elsewhere."""
    within(2 * depth * x.size, "the places of a one-hot code")
    spread = picked(emit, x, torch.arange(x.size).repeat_interleave(2 * depth), (x.size, 2 * depth))
    places = torch.arange(-depth, depth, dtype=torch.float64)
    hot = zero(emit, emit(Scale(number(1.0), -places), spread, shape=spread.shape), True)
    both = torch.cat([torch.eye(depth), torch.eye(depth)], 1).to(torch.float64)
    code = emit(Linear(both, torch.zeros(depth, dtype=torch.float64)), hot, shape=(x.size, depth))
    return reshaped(emit, code, (*x.shape, depth))


def shares(builder: Builder, held: Collection[tuple[int, torch.dtype]]) -> Network | None:
    """Whole numbers at nodes, by their positions and types, as shares of what these hold: within -1 and 1, if they stay
    there. None where there are none."""
    parts = []
    for position, dtype in sorted(held, key=str):
        ends = torch.iinfo(dtype)
        most, middle = (ends.max - ends.min) / 2 + 1, (ends.max + ends.min) / 2
        flat = builder.add(Reshape((builder.nodes[position].size,)), position)
        parts.append(builder.add(Scale(number(1 / most), number(-middle / most)), flat))
    return builder.build(builder.add(Concat(0), *parts)) if parts else None
