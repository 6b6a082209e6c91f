"""Comparisons, truth values as the numbers 0 and 1, and what is chosen by them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from assay.verify.core.ops import Add, Relu, Scale, Sub
from assay.verify.core.ops import Step as Piecewise
from assay.verify.frontends import composed
from assay.verify.frontends.composed import Value, number
from assay.verify.frontends.refusal import Untranslatable
from assay.verify.frontends.translation import Handler, Operand, Step
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
        return affine(step, a, number(1.0), -constant(step, b))
    return affine(step, b, number(-1.0), constant(step, a))


def where(step: Step) -> Any:
    """One of two arguments, element by element, as a condition says."""
    return _chosen(step, "condition", "self", "other") if step.traced("condition") else moved(step)


def masked_fill(step: Step) -> Any:
    """A number in the places of a mask."""
    return _chosen(step, "mask", "value", "self") if step.traced("mask") else moved(step)


def negation(step: Step) -> Value:
    """True where it is false."""
    return composed.negated(step.emit, step.value("self"))


def both(step: Step) -> Value:
    """True where both are."""
    return arithmetic.product(step)


def either(step: Step) -> Value:
    """True where one of two is: ``a + b - a b``."""
    if step.traced("self") and step.traced("other"):
        a, b = step.spread("self"), step.spread("other")
        joint = composed.product(step.emit, a, b)
        return step.emit(Sub(), step.emit(Add(), a, b, shape=a.shape), joint, shape=a.shape)
    name, other = ("self", "other") if step.traced("self") else ("other", "self")
    share = constant(step, other)
    return affine(step, name, 1 - share, share)


def refused(why: str) -> Handler:
    """The rule of what is not read, with the reason."""

    def rule(step: Step) -> Tensor:
        raise Untranslatable(why)

    return rule


def _chosen(step: Step, condition: str, first: str, second: str) -> Value:
    c, a, b = step.spread(condition), _side(step, first), _side(step, second)
    if (bent := _bent(step, c, a, b)) is not None:
        return bent
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return step.emit(Scale(a - b, b), c, shape=c.shape)
    if isinstance(a, Tensor):
        a, b, c = b, a, composed.negated(step.emit, c)
    assert isinstance(a, Value)
    if isinstance(b, Value):
        return composed.chosen(step.emit, c, a, b)
    over = step.emit(Scale(number(1.0), -b), a, shape=a.shape)
    return step.emit(Scale(number(1.0), b), composed.product(step.emit, c, over), shape=c.shape)


def _side(step: Step, name: str) -> Value | Tensor:
    """What may be chosen: a value, or a finite constant as it broadcasts against one sample."""
    if isinstance(step[name], Operand) and step.traced(name):
        return step.spread(name)
    given = constant(step, name)
    if not bool(given.isfinite().all()):
        raise Untranslatable("of a constant that is not finite, by a condition that depends on the input")
    return given


def _bent(step: Step, c: Value, a: Value | Tensor, b: Value | Tensor) -> Value | None:
    """``b + k max(d, 0)`` where the condition is ``d > 0`` and ``a - b = k d``; None where it is not so."""
    nodes = step.translation.nodes
    node = nodes[c.position]
    if isinstance(node.op, Scale) and bool((node.op.factor == -1).all()) and bool((node.op.shift == 1).all()):
        node, a, b = nodes[node.inputs[0]], b, a
    if not (isinstance(node.op, Piecewise) and node.op.kind == "sign"):
        return None
    above = Value(node.inputs[0], node.shape)
    if not isinstance(nodes[above.position].op, Relu):
        return None
    (inner,) = nodes[above.position].inputs
    sides = tuple(side.position for side in (a, b) if isinstance(side, Value))
    if isinstance(b, Value) and isinstance(nodes[inner].op, Sub) and sides == nodes[inner].inputs:
        return step.emit(Add(), b, above, shape=b.shape)
    (root, factor, shift), lines = _line(step, inner), [_line(step, side) for side in (a, b)]
    if any(line[0] not in (None, root) for line in lines) or not bool((factor != 0).all()):
        return None
    (_, first, start), (_, second, end) = lines
    if not bool(((first - second) * shift == (start - end) * factor).all()):
        return None
    bend = step.emit(Scale((first - second) / factor, number(0.0)), above, shape=above.shape)
    if isinstance(b, Value):
        return step.emit(Add(), b, bend, shape=b.shape)
    return step.emit(Scale(number(1.0), b), bend, shape=bend.shape)


def _line(step: Step, side: Value | Tensor | int) -> tuple[int | None, Tensor, Tensor]:
    """``factor * x + shift`` of an earlier value x, by its position; of a constant, None."""
    if isinstance(side, Tensor):
        return None, number(0.0), side
    position, factor, shift = side if isinstance(side, int) else side.position, number(1.0), number(0.0)
    while isinstance(op := step.translation.nodes[position].op, Scale):
        factor, shift = factor * op.factor.double(), factor * op.shift.double() + shift
        (position,) = step.translation.nodes[position].inputs
    return position, factor, shift
