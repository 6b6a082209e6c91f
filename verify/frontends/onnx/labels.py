"""Labels: places of the largest values, one-hot codes and what is equal; a label that is the model's answer is read as
the scores that it is chosen from."""

from __future__ import annotations

from math import prod
from typing import cast

import torch

from assay.verify.core.errors import InputError
from assay.verify.core.ops import Gather
from assay.verify.frontends import labels
from assay.verify.frontends.onnx.layers import ONE, ZERO, difference, linear, scale
from assay.verify.frontends.onnx.moves import different_axes, rearrange, view
from assay.verify.frontends.onnx.translation import Call, Handler, Operand, Value
from assay.verify.frontends.refusal import Untranslatable


def extremum(sign: float) -> Handler:
    """The handler of the place of the largest value along an axis, or with -1 of the smallest: the first one."""

    def handle(call: Call) -> Value:
        x, last = call.traced(), bool(call.integer("select_last_index", 0))
        (axis,) = different_axes((call.integer("axis", 0),), len(x.shape))
        keep = bool(call.integer("keepdims", 1))
        n = x.shape[axis]
        scores = cast(Value, rearrange(call, x, lambda t: t.movedim(axis, -1)))
        if sign < 0:
            scores = scale(call, scores, -ONE, ZERO)
        shape = tuple(1 if a == axis else m for a, m in enumerate(x.shape) if keep or a != axis)
        if call.node.outputs[0] in call.translation.labels and prod(x.shape) == n > 1 and not last:
            call.translation.label(view(call, scores, (1, n)), torch.arange(n))
            first = call.append(Gather(torch.zeros(1, dtype=torch.int64), (1,)), call.sample(scores), shape=(1,))
            return call.value(first, shape, torch.int64)  # stands for the label, which leads nowhere
        return call.value(labels.place(call.append, call.sample(scores), last), shape, torch.int64)

    return handle


def one_hot(call: Call) -> Value:
    """One value at the place that each whole number tells on a new axis, another elsewhere."""
    x, depth, values = call.traced(), int(call.constant(1, "the depth")), call.constant(2, "the values")
    if x.dtype.is_floating_point:
        raise Untranslatable("of places that are no whole numbers")
    if values.numel() != 2 or depth < 1:
        raise InputError(f"{call.node.label} has {values.numel()} values and a depth of {depth}, expected two values")
    axis, rank = call.integer("axis", -1), len(x.shape) + 1
    off, on = values.flatten().to(torch.float64)
    code = labels.one_hot(call.append, call.sample(x), depth)
    hot = scale(call, call.value(code, (*x.shape, depth), values.dtype), on - off, off)
    return cast(Value, rearrange(call, hot, lambda t: t.movedim(-1, axis % rank)))


def equal(call: Call) -> Value:
    """Where two operands are equal; of numbers that depend on the input in whole steps, no jump tells."""
    a, b = call.operand(0), call.operand(1)
    whole = not a.dtype.is_floating_point
    gap = difference(call, *(x if isinstance(x, Value) else x.to(torch.float64) for x in (a, b)))
    return call.value(labels.zero(call.append, call.sample(gap), whole), gap.shape, torch.bool)


def extracted(call: Call) -> Operand:
    """Of constants on one row those at the places that whole numbers tell: classes by their index."""
    given, x = call.constant(0, "what is chosen from"), call.traced(1)
    row = given.flatten()
    if given.shape[-1] != len(row) or x.dtype.is_floating_point:
        raise Untranslatable("of several rows, or at places that are no whole numbers")
    shape = (1, prod(x.shape))
    if call.translation.renamed(call.node.outputs[0], row):
        return Value(x.position, shape, row.dtype)
    code = labels.one_hot(call.append, call.sample(x), len(row))
    hot = call.value(code, (*shape, len(row)), row.dtype)
    return view(call, linear(call, hot, row.to(torch.float64)[None]), shape)
