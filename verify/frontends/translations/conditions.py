"""Comparisons, truth values as the numbers 0 and 1, and what is chosen by them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from assay.verify.core.ops import Add, Sub
from assay.verify.frontends import composed
from assay.verify.frontends.choice import chosen
from assay.verify.frontends.composed import Value, number
from assay.verify.frontends.refusal import Untranslatable
from assay.verify.frontends.translation import Handler, Step
from assay.verify.frontends.translations import arithmetic
from assay.verify.frontends.translations.arithmetic import affine, constant
from assay.verify.frontends.translations.moves import moved


def compared(less: bool, equal: bool) -> Handler:
    """The rule of ``a > b``, or of ``a < b``; with ``equal``, also where they are equal."""
    first, second = ("self", "other") if less == equal else ("other", "self")

    def rule(step: Step) -> Value:
        above = composed.positive(step.emit, _difference(step, first, second))
        return composed.negated(step.emit, above) if equal else above  # a >= b where not b > a

    return rule


def _difference(step: Step, a: str, b: str) -> Value:
    """``a - b`` of two arguments, one of which may be constant."""
    if step.traced(a) and step.traced(b):
        x = step.spread(a)
        return step.emit(Sub(), x, step.spread(b), shape=x.shape)
    if step.traced(a):
        return affine(step, a, number(1.0), -_held(step, b, step[a].number.dtype))
    return affine(step, b, number(-1.0), _held(step, a, step[b].number.dtype))


def _held(step: Step, name: str, dtype: torch.dtype) -> Tensor:
    """A constant as ``dtype`` holds it: what is compared and filled in has the precision of what it is among."""
    return constant(step, name).to(dtype).to(torch.float64)


def where(step: Step) -> Any:
    """One of two arguments, element by element, as a condition says."""
    return _chosen(step, "condition", "self", "other") if step.traced("condition") else moved(step)


def masked_fill(step: Step) -> Any:
    """A number in the places of a mask."""
    return _chosen(step, "mask", "value", "self") if step.traced("mask") else moved(step)


def negation(step: Step) -> Value:
    """True where it is false."""
    _demand_truths(step, "self")
    return composed.negated(step.emit, step.value("self"))


def both(step: Step) -> Value:
    """True where both are."""
    _demand_truths(step, "self", "other")
    return arithmetic.product(step)


def either(step: Step) -> Value:
    """True where one of two is: ``a + b - a b``."""
    _demand_truths(step, "self", "other")
    if step.traced("self") and step.traced("other"):
        a, b = step.spread("self"), step.spread("other")
        joint = composed.product(step.emit, a, b)
        return step.emit(Sub(), step.emit(Add(), a, b, shape=a.shape), joint, shape=a.shape)
    name, other = ("self", "other") if step.traced("self") else ("other", "self")
    share = constant(step, other)
    return affine(step, name, 1 - share, share)


def _demand_truths(step: Step, *names: str) -> None:
    if any(step[name].number.dtype is not torch.bool for name in names):
        raise Untranslatable("of numbers that are no truth values")


def _chosen(step: Step, condition: str, first: str, second: str) -> Value:
    dtype = step.results[0].dtype
    sides = [step.spread(name) if step.traced(name) else _held(step, name, dtype) for name in (first, second)]
    return chosen(step.emit, step.translation.nodes, step.spread(condition), *sides)
