"""What is chosen by a condition: by ReLUs where that is piecewise linear, else by a product with the condition.

Conditions are the numbers 0 and 1. Constants broadcast against one sample's shape, in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from assay.verify.core.network import Node
from assay.verify.core.ops import Add, Relu, Scale, Step, Sub
from assay.verify.frontends.composed import Emit, Value, negated, number, product
from assay.verify.frontends.refusal import Untranslatable

Side = Value | Tensor


def chosen(emit: Emit, nodes: Sequence[Node], condition: Value, a: Side, b: Side) -> Value:
    """``a`` where the condition is 1, ``b`` where it is 0; all values have its shape. ``nodes``: of the network."""
    if any(isinstance(side, Tensor) and not bool(side.isfinite().all()) for side in (a, b)):
        raise Untranslatable("of a constant that is not finite, by a condition that depends on the input")
    shape = condition.shape
    if (bent := _bent(emit, nodes, condition, a, b)) is not None:
        return bent
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return emit(Scale(a - b, b), condition, shape=shape)
    if isinstance(a, Tensor):
        a, b, condition = b, a, negated(emit, condition)
    assert isinstance(a, Value)
    if isinstance(b, Value):
        return emit(Add(), b, product(emit, condition, emit(Sub(), a, b, shape=shape)), shape=shape)
    over = emit(Scale(number(1.0), -b), a, shape=shape)
    return emit(Scale(number(1.0), b), product(emit, condition, over), shape=shape)


def _bent(emit: Emit, nodes: Sequence[Node], condition: Value, a: Side, b: Side) -> Value | None:
    """``b + k max(d, 0)`` where the condition is ``d > 0`` and ``a - b = k d``; None where it is not so."""
    node = nodes[condition.position]
    if isinstance(node.op, Scale) and bool((node.op.factor == -1).all()) and bool((node.op.shift == 1).all()):
        node, a, b = nodes[node.inputs[0]], b, a
    sign = nodes[node.inputs[0]].op if node.inputs else node.op
    if not (isinstance(node.op, Relu) and isinstance(sign, Step) and sign.kind == "sign"):
        return None
    (inner,) = nodes[node.inputs[0]].inputs

    def above() -> Value:
        return emit(Relu(), Value(inner, node.shape), shape=node.shape)

    sides = tuple(side.position for side in (a, b) if isinstance(side, Value))
    if isinstance(b, Value) and isinstance(nodes[inner].op, Sub) and sides == nodes[inner].inputs:
        return emit(Add(), b, above(), shape=b.shape)
    (root, factor, shift), lines = _line(nodes, inner), [_line(nodes, side) for side in (a, b)]
    if any(line[0] not in (None, root) for line in lines) or not bool((factor != 0).all()):
        return None
    (_, first, start), (_, second, end) = lines
    if not bool(((first - second) * shift == (start - end) * factor).all()):
        return None
    bend = emit(Scale((first - second) / factor, number(0.0)), above(), shape=node.shape)
    if isinstance(b, Value):
        return emit(Add(), b, bend, shape=b.shape)
    return emit(Scale(number(1.0), b), bend, shape=bend.shape)


def _line(nodes: Sequence[Node], side: Side | int) -> tuple[int | None, Tensor, Tensor]:
    """``factor * x + shift`` of an earlier value x, by its position; of a constant, None."""
    if isinstance(side, Tensor):
        return None, number(0.0), side
    position, factor, shift = side if isinstance(side, int) else side.position, number(1.0), number(0.0)
    while isinstance(op := nodes[position].op, Scale):
        factor, shift = factor * op.factor.double(), factor * op.shift.double() + shift
        (position,) = nodes[position].inputs
    return position, factor, shift
