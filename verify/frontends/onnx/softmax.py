"""Softmax: the one that a classifier ends in is left out, as the order of the outputs stays the same; any other is a
function of the differences of its operands."""

from __future__ import annotations

from math import prod
from typing import cast

from assay.verify.frontends import composed
from assay.verify.frontends.onnx.moves import rearrange, view
from assay.verify.frontends.onnx.translation import Call, Handler, Value

PER_AXIS = 13  # the first version of the operator set in which Softmax goes along one axis


def softmax(kind: str) -> Handler:
    """The handler of "softmax" or "log_softmax"."""
    function = composed.log_softmax if kind == "log_softmax" else composed.softmax

    def handle(call: Call) -> Value:
        x, newer = call.traced(), call.translation.graph.opset >= PER_AXIS
        rank = len(x.shape)
        axis = call.integer("axis", -1 if newer else 1)
        axis = axis + rank if axis < 0 else axis
        # Before version 13 it went over all axes from the given one on.
        after = 1 if newer else prod(x.shape[axis + 1 :])
        whole = prod(x.shape) == x.shape[-1] == x.shape[axis] * after
        if call.node.outputs[0] in call.translation.ends and whole:
            call.translation.readout = kind
            return x
        if newer:
            last = cast(Value, rearrange(call, x, lambda t: t.movedim(axis, -1)))
        else:
            last = view(call, x, (prod(x.shape[:axis]), prod(x.shape[axis:])))
        y = call.value(function(call.append, call.sample(last), None), last.shape, x.dtype)
        return cast(Value, rearrange(call, y, lambda t: t.movedim(-1, axis))) if newer else view(call, y, x.shape)

    return handle
