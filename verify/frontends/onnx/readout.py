"""The softmax that a classifier ends in, or its logarithm: left out, as the order of the outputs stays the same."""

from __future__ import annotations

from math import prod

from assay.verify.frontends.onnx.translation import Call, Handler, Value
from assay.verify.frontends.refusal import Untranslatable

PER_AXIS = 13  # the first version of the operator set in which Softmax goes along one axis


def readout(kind: str) -> Handler:
    """The handler that gives the logits; the network says what its oracle goes on with."""

    def handle(call: Call) -> Value:
        x, newer = call.traced(), call.translation.graph.opset >= PER_AXIS
        axis = call.integer("axis", -1 if newer else 1)
        if call.node.outputs[0] not in call.translation.ends:
            raise Untranslatable("is read as the last layer only")
        # Before version 13 it went over all axes from the given one on.
        if x.shape[-1] != prod(x.shape) or (newer and axis not in (-1, len(x.shape) - 1)):
            raise Untranslatable("is read over all outputs of a sample only")
        call.translation.readout = kind
        return x

    return handle
