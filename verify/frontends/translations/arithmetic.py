"""Sums of two values, and a value scaled or shifted by constants."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor

from assay.verify.core.ops import Add, Linear, Scale, Sub
from assay.verify.frontends import composed
from assay.verify.frontends.composed import Value, number
from assay.verify.frontends.refusal import Untranslatable
from assay.verify.frontends.translation import Operand, Step


def addition(step: Step) -> Value | Tensor:
    """``a + alpha b``."""
    return _sum(step, "self", 1.0, "other", float(step["alpha"]))


def subtraction(step: Step) -> Value | Tensor:
    """``a - alpha b``."""
    return _sum(step, "self", 1.0, "other", -float(step["alpha"]))


def reverse_subtraction(step: Step) -> Value | Tensor:
    """``b - alpha a``."""
    return _sum(step, "other", 1.0, "self", -float(step["alpha"]))


def _sum(step: Step, a: str, first: float, b: str, second: float) -> Value | Tensor:
    if step.results[0].dtype is torch.bool:
        raise Untranslatable("of truth values")
    if step.traced(a) and step.traced(b):
        x, y = scaled(step, a, first), step.spread(b) if abs(second) == 1 else scaled(step, b, second)
        return step.emit(Sub() if second == -1 else Add(), x, y, shape=x.shape)
    name, factor, other, times = (a, first, b, second) if step.traced(a) else (b, second, a, first)
    shift = times * constant(step, other)
    if step.live or bool(shift.isfinite().all()):
        return affine(step, name, number(factor), shift)
    finite = affine(step, name, number(factor), shift.nan_to_num(0.0, 0.0, 0.0))  # what is not stays a constant
    absent = (~step.results[0].isfinite()) & ~_broadcast(step, shift).isfinite()
    return step.origins(finite, step.shape).masked_fill(absent, 0.0)


def _broadcast(step: Step, given: Tensor) -> Tensor:
    """A constant of one sample in the shape of the result."""
    return (given if given.dim() == len(step.shape) else given[None]).expand(step.shape)


def product(step: Step) -> Value:
    """A value times a constant, or two values."""
    if step.traced("self") and step.traced("other"):
        return composed.product(step.emit, *_two(step))
    name, other = ("self", "other") if step.traced("self") else ("other", "self")
    return affine(step, name, constant(step, other), number(0.0))


def _two(step: Step) -> tuple[Value, Value]:
    """Two arguments in the shape of the result; one value twice, where they are the same."""
    a, b = step["self"], step["other"]
    x = step.spread("self")
    same = a.number.shape == b.number.shape and torch.equal(a.origins, b.origins) and bool((a.origins != 0).all())
    return x, x if same else step.spread("other")


def quotient(step: Step) -> Value:
    """A value divided by a constant, a constant by a value, or two values."""
    if step.given.get("rounding_mode") is not None:
        raise Untranslatable(f"rounded ({step['rounding_mode']})")
    if step.traced("self") and step.traced("other"):
        return composed.quotient(step.emit, step.spread("self"), step.spread("other"))
    if step.traced("other"):
        inverse = composed.smooth(step.emit, step.spread("other"), "reciprocal")
        return step.emit(Scale(constant(step, "self"), number(0.0)), inverse, shape=inverse.shape)
    return affine(step, "self", 1 / constant(step, "other"), number(0.0))


def negation(step: Step) -> Value:
    """The opposite."""
    return affine(step, "self", number(-1.0), number(0.0))


def scaled(step: Step, name: str, factor: float) -> Value:
    """An argument times a number, in the shape of the result."""
    x = step.spread(name)
    return x if factor == 1 else step.emit(Scale(number(factor), number(0.0)), x, shape=x.shape)


def affine(step: Step, name: str, factor: Tensor, shift: Tensor) -> Value:
    """``factor * x + shift``, x being an argument; all are broadcast to the shape of the result."""
    x = step.spread(name)
    return step.emit(Scale(factor, shift), x, shape=x.shape)


def constant(step: Step, name: str) -> Tensor:
    """A constant argument, a number or a tensor, as it broadcasts against one sample of the result."""
    plain: Any = step.constant(name) if isinstance(step[name], Operand) else step[name]
    if plain is None:
        raise Untranslatable
    given: Tensor = plain if isinstance(plain, Tensor) else number(float(plain))
    if not step.live:
        given = given.detach().double()
    elif not given.is_floating_point():
        given = given.to(step.results[0].dtype)
    return given[0] if step.shape[:1] == (1,) and given.dim() == len(step.shape) else given


def mean(step: Step) -> Value:
    """The mean over some axes, or all."""
    return _over_axes(step, averaged=True)


def summation(step: Step) -> Value:
    """The sum over some axes, or all."""
    return _over_axes(step, averaged=False)


def _over_axes(step: Step, averaged: bool) -> Value:
    if step["dtype"] not in (None, step["self"].number.dtype):
        raise Untranslatable(f"casts to {step['dtype']}")
    axes = axes_of(step)
    shape = step["self"].number.shape
    size = prod(shape[axis] for axis in axes)
    x = step.value("self", lambda x: last(x, axes))
    weight = torch.full((1, size), 1 / size if averaged else 1.0, dtype=torch.float64)
    return step.emit(Linear(weight, torch.zeros(1, dtype=torch.float64)), x)


def axes_of(step: Step) -> list[int]:
    """The axes that an operation reduces: all, where it names none."""
    axes: Any = step.given.get("dim")
    rank = step["self"].number.dim()
    if axes is None or axes == []:
        return list(range(rank))
    return sorted(axis % rank for axis in ([axes] if isinstance(axes, int) else axes))


def last(x: Tensor, axes: list[int]) -> Tensor:
    """``x`` with these axes as one, the last."""
    kept = [axis for axis in range(x.dim()) if axis not in axes]
    moved = x.permute(*kept, *axes)
    return moved.reshape(*moved.shape[: len(kept)], -1)


def between(step: Step) -> Value:
    """``a + weight (b - a)`` of two values, the weight being constant."""
    weight, (a, b) = constant(step, "weight"), (step.spread(name) for name in ("self", "end"))
    moved = step.emit(Scale(weight, number(0.0)), step.emit(Sub(), b, a, shape=a.shape), shape=a.shape)
    return step.emit(Add(), a, moved, shape=a.shape)


def running_sum(step: Step) -> Tensor:
    """Sums of all elements before each one on an axis, and of itself."""
    axis, size = int(step["dim"]), step["self"].number.shape[int(step["dim"])]
    x = step.value("self", lambda x: x.movedim(axis, -1))
    weight = torch.ones(size, size, dtype=torch.float64).tril()
    y = step.emit(Linear(weight, weight.new_zeros(size)), x, shape=x.shape)
    return step.origins(y, step["self"].number.movedim(axis, -1).shape).movedim(-1, axis)
