"""A network for quadratic programs: neurons h = max(z, 0), each z affine in the input and the neurons before it.

One vector v = (1, x, h_1, h_2, ...) holds all of them. LeakyReLU and the maximum are written with max(z, 0) too:
``leaky(z) = s z + (1 - s) max(z, 0)`` and ``max(a, b) = a + max(b - a, 0)``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import singledispatch
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
    Sub,
    evaluate,
)
from assay.verify.core.roundings import magnitude, spread, terms
from assay.verify.support.floats import TINY, UNIT, gamma

# A float64 matrix or vector.
Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, eq=False)
class Affine:
    """Affine functions of v: ``value`` (entries of v x shape), and what rounding has moved each coefficient by."""

    value: Tensor
    error: Tensor


@dataclass(frozen=True, eq=False)
class Unrolled:
    """``z`` (neurons x entries of v) and ``y`` (outputs x entries of v), with what rounding has moved them by.

    ``places``: for each neuron the node and the feature whose positive part it is, or None for one that stands for a
    comparison of two values.
    """

    inputs: int
    z: Array
    z_error: Array
    y: Array
    y_error: Array
    places: list[tuple[int, int] | None]


@dataclass(eq=False)
class Walk:
    """The state of the pass through a network: the neurons so far, and how many entries v has."""

    entries: int
    inputs: int
    z: list[Affine] = field(default_factory=list)
    places: list[tuple[int, int] | None] = field(default_factory=list)

    def positive_part(self, z: Affine, node: int | None) -> Affine:
        """New neurons: max(z, 0), entry by entry."""
        shape, count = z.value.shape[1:], z.value[0].numel()
        value = torch.zeros(self.entries, count, dtype=torch.float64)
        first = 1 + self.inputs + len(self.places)
        value[torch.arange(first, first + count), torch.arange(count)] = 1.0
        self.z.append(z)
        self.places += [None if node is None else (node, i) for i in range(count)]
        return Affine(value.view(-1, *shape), torch.zeros_like(value).view(-1, *shape))


def unrolled(network: Network) -> Unrolled:
    """``network``, in float64, as functions of v. Raises :class:`UnsupportedError` as :func:`refusal` says."""
    size = network.nodes[0].size
    walk = Walk(1 + size + neurons(network), size)
    start = torch.zeros(walk.entries, size, dtype=torch.float64)
    start[torch.arange(1, size + 1), torch.arange(size)] = 1.0
    shape = (-1, *network.input_shape)
    values = [Affine(start.view(shape), torch.zeros_like(start).view(shape))]
    for node in network.nodes[1:]:
        values.append(step(node.op, walk, [values[i] for i in node.inputs], node.inputs[0]))
    z, z_error = (
        torch.cat([getattr(part, side).flatten(1).T for part in walk.z] or [torch.zeros(0, walk.entries)]).double()
        for side in ("value", "error")
    )
    y, y_error = (getattr(values[-1], side).flatten(1).T for side in ("value", "error"))
    return Unrolled(size, z.numpy(), z_error.numpy(), y.numpy(), y_error.numpy(), walk.places)


def neurons(network: Network) -> int:
    """How many entries of v are neurons."""
    count = 0
    for node in network.nodes:
        if isinstance(node.op, Relu | LeakyRelu):
            count += node.size
        elif isinstance(node.op, Max):
            count += node.size * (network.nodes[node.inputs[0]].shape[-1] - 1)
    return count


def refusal(network: Network) -> str | None:
    """Which operations have no place in a quadratic program, in one line; None if all have."""
    default = step.dispatch(object)
    strange = sorted({n.op.label for n in network.nodes[1:] if step.dispatch(type(n.op)) is default})
    return f"no semidefinite program for {', '.join(strange)}" if strange else None


@singledispatch
def step(op: Op, walk: Walk, parts: list[Affine], before: int) -> Affine:
    """The value of ``op`` as functions of v, from those of its operands, the first of which is node ``before``."""
    raise UnsupportedError(f"operation {op.label} has no place in a quadratic program")


@step.register(Linear)
@step.register(Conv2d)
@step.register(ConvTranspose2d)
@step.register(Scale)
@step.register(Gather)
@step.register(Reshape)
@step.register(Add)
@step.register(Sub)
@step.register(Concat)
def _(op: Op, walk: Walk, parts: list[Affine], before: int) -> Affine:
    """The constants with the bias, the coefficients without."""
    values, errors = [p.value for p in parts], [p.error for p in parts]
    bare = _bare(op)
    value = torch.cat([evaluate(op, *(v[:1] for v in values)), evaluate(bare, *(v[1:] for v in values))])
    error = evaluate(spread(op), *errors)
    if terms(op):
        sizes = [v.abs() + e for v, e in zip(values, errors, strict=True)]
        n = terms(op) + 4
        error = error * (1 + 2 * gamma(n)) + 2 * gamma(n) * evaluate(magnitude(op), *sizes) + n * TINY
    return Affine(value, error)


@step.register
def _(op: Relu, walk: Walk, parts: list[Affine], before: int) -> Affine:
    return walk.positive_part(parts[0], before)


@step.register
def _(op: LeakyRelu, walk: Walk, parts: list[Affine], before: int) -> Affine:
    (z,) = parts
    h = walk.positive_part(z, before)
    value = op.slope * z.value + (1 - op.slope) * h.value
    size = op.slope * z.value.abs() + abs(1 - op.slope) * h.value
    return Affine(value, op.slope * z.error * (1 + 8 * UNIT) + 8 * UNIT * size + TINY)


@step.register
def _(op: Max, walk: Walk, parts: list[Affine], before: int) -> Affine:
    """One comparison after the other."""
    (z,) = parts
    best = Affine(z.value[..., 0], z.error[..., 0])
    for i in range(1, z.value.shape[-1]):
        other = Affine(z.value[..., i], z.error[..., i])
        h = walk.positive_part(_sum(other, best, -1.0), None)
        best = _sum(best, h, 1.0)
    return best


def _sum(a: Affine, b: Affine, sign: float) -> Affine:
    value = a.value + sign * b.value
    return Affine(value, (a.error + b.error + UNIT * value.abs()) * (1 + 8 * UNIT) + TINY)


def _bare(op: Op) -> Op:
    """The operation without its constant."""
    if isinstance(op, Linear | Conv2d | ConvTranspose2d):
        return replace(op, bias=torch.zeros_like(op.bias))
    if isinstance(op, Scale):
        return replace(op, shift=torch.zeros_like(op.shift))
    return replace(op, fill=0.0) if isinstance(op, Gather) else op
