"""Comparisons, truth values as the numbers 0 and 1, and what is chosen by them."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from assay.verify.frontends import composed
from assay.verify.frontends.choice import chosen
from assay.verify.frontends.composed import Value as Node
from assay.verify.frontends.onnx.layers import ONE, ZERO, demanded, difference, masked, multiplied, scale, total
from assay.verify.frontends.onnx.moves import broadcast
from assay.verify.frontends.onnx.translation import Call, Handler, Value, aligned, broadcast_shape


def compared(first: int, second: int, equal: bool = False) -> Handler:
    """The handler of ``a > b`` of two operands; with ``equal`` of ``not b > a``, which is ``a >= b``."""

    def handle(call: Call) -> Value:
        if equal:
            return opposite(call, positive(call, difference(call, call.operand(second), call.operand(first))))
        return positive(call, difference(call, call.operand(first), call.operand(second)))

    return handle


def positive(call: Call, x: Value) -> Value:
    """1 where x > 0, else 0."""
    return call.value(composed.positive(call.append, call.sample(x)), x.shape, torch.bool)


def opposite(call: Call, x: Value) -> Value:
    """1 where a truth value is 0, and 0 where it is 1."""
    return scale(call, x, -ONE, ONE)


def negation(call: Call) -> Value:
    """True where it is false."""
    return opposite(call, call.traced())


def both(call: Call) -> Value:
    """True where both are."""
    return multiplied(call, call.operand(0), call.operand(1))


def either(call: Call) -> Value:
    """True where one of two is: ``a + b - a b``."""
    a, b = (x if isinstance(x, Value) else x.to(torch.float64) for x in (call.operand(0), call.operand(1)))
    return difference(call, total(call, a, b), multiplied(call, a, b))


def where(call: Call) -> Value:
    """One of two operands, element by element, as a condition says."""
    condition, a, b = (call.operand(i) for i in range(3))
    if isinstance(condition, Tensor):
        for x, other, mask in ((a, b, condition), (b, a, ~condition)):
            if isinstance(x, Tensor) and isinstance(other, Value) and bool((x == -inf).all()):
                wide = broadcast(call, other, broadcast_shape(other.shape, condition.shape, x.shape))
                assert isinstance(wide, Value)
                return masked(wide, mask)
        parts = []
        for x, mask in ((a, condition), (b, ~condition)):
            share = mask.to(torch.float64)
            parts.append(demanded(call, x) * share if isinstance(x, Tensor) else scale(call, x, share, ZERO))
        return total(call, *parts)
    shape = broadcast_shape(condition.shape, a.shape, b.shape)
    whole = [broadcast(call, x, shape) if isinstance(x, Value) else x for x in (condition, a, b)]
    sides = [call.sample(x) if isinstance(x, Value) else aligned(x, shape) for x in whole]
    assert isinstance(sides[0], Node)
    node = chosen(call.append, call.translation.builder.nodes, sides[0], *sides[1:])
    return call.value(node, shape, a.dtype)
