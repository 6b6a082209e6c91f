"""Sums of two values, and a value scaled or shifted by constants."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor

from assay.verify.core.ops import Add, Linear, Scale, Sub
from assay.verify.frontends.translation import Operand, Step, Untranslatable, Value

PRODUCT = "of two values that depend on the input"


def addition(step: Step) -> Value:
    """``a + alpha b``."""
    return _sum(step, "self", 1.0, "other", float(step["alpha"]))


def subtraction(step: Step) -> Value:
    """``a - alpha b``."""
    return _sum(step, "self", 1.0, "other", -float(step["alpha"]))


def reverse_subtraction(step: Step) -> Value:
    """``b - alpha a``."""
    return _sum(step, "other", 1.0, "self", -float(step["alpha"]))


def _sum(step: Step, a: str, first: float, b: str, second: float) -> Value:
    if step.traced(a) and step.traced(b):
        x, y = scaled(step, a, first), step.spread(b) if abs(second) == 1 else scaled(step, b, second)
        return step.emit(Sub() if second == -1 else Add(), x, y, shape=x.shape)
    name, factor, other, times = (a, first, b, second) if step.traced(a) else (b, second, a, first)
    return affine(step, name, number(factor), times * constant(step, other))


def product(step: Step) -> Value:
    """A value times a constant."""
    if step.traced("self") and step.traced("other"):
        raise Untranslatable(PRODUCT)
    name, other = ("self", "other") if step.traced("self") else ("other", "self")
    return affine(step, name, constant(step, other), number(0.0))


def quotient(step: Step) -> Value:
    """A value divided by a constant."""
    if step.traced("other"):
        raise Untranslatable("by a value that depends on the input")
    if step.given.get("rounding_mode") is not None:
        raise Untranslatable(f"rounded ({step['rounding_mode']})")
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


def number(value: float) -> Tensor:
    """A float64 scalar."""
    return torch.tensor(float(value), dtype=torch.float64)
