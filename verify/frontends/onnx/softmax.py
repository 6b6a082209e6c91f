"""Softmax: the one that a classifier ends in is left out, as the order of the outputs stays the same; any other is a
function of the differences of its operands."""

from __future__ import annotations

from math import prod
from typing import cast

from torch import Tensor

from assay.verify.frontends import composed
from assay.verify.frontends.onnx.moves import rearrange, view
from assay.verify.frontends.onnx.translation import Call, Handler, Value
from assay.verify.frontends.refusal import Untranslatable

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
        if call.node.outputs[0] in call.translation.compared and whole and x.absent is None:
            return x
        if call.node.outputs[0] in call.translation.ends and whole and x.absent is None:
            call.translation.readout = kind
            return x

        def move(t: Tensor) -> Tensor:
            return t.movedim(axis, -1) if newer else t.reshape(prod(x.shape[:axis]), -1)

        last = cast(Value, rearrange(call, x, move))
        absent = None if x.absent is None else move(x.absent)
        if absent is not None and bool(absent.all(-1).any()):
            raise Untranslatable("of which a mask leaves nothing in some row, so that it is NaN")
        node = call.sample(last)
        y = call.value(
            function(call.append, node, None if absent is None else absent.view(node.shape)), last.shape, x.dtype
        )
        if absent is not None:
            y = cast(Value, rearrange(call, y, lambda t: t.masked_fill(absent, -1)))
        return cast(Value, rearrange(call, y, lambda t: t.movedim(-1, axis))) if newer else view(call, y, x.shape)

    return handle
