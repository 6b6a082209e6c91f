"""The softmax that a classifier ends in, or its logarithm: left out, as the order of the outputs stays the same."""

from __future__ import annotations

from torch import Tensor

from assay.verify.frontends.translation import Step, Untranslatable


def readout(step: Step) -> Tensor:
    """The logits; the network says what its oracle goes on with."""
    axis = int(step["dim"]) % max(len(step.shape), 1)
    if step.live:
        raise Untranslatable("is read as the last layer only")
    if len(step.shape) != 2 or step.shape[0] != 1 or axis != 1 or step["half_to_float"]:
        raise Untranslatable("is read over the classes of (batch x classes) only, as the last layer")
    return step.translation.ends_in(step, step.call.operation.strip("_"), step.value("self"))
