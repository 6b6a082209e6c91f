"""Networks that were read up to a last softmax, with it: for properties of the probabilities themselves."""

from __future__ import annotations

from dataclasses import replace

from assay.verify.core.errors import UnsupportedError
from assay.verify.core.network import Builder, Network
from assay.verify.core.ops import Op
from assay.verify.frontends import composed
from assay.verify.frontends.agreement import agree
from assay.verify.frontends.composed import Value

SOFTMAX = {"softmax": composed.softmax, "log_softmax": composed.log_softmax}


def whole(network: Network) -> Network:
    """The network with what its ``readout`` names, compared with its oracle again.

    Raises :class:`InternalError` where they differ, :class:`UnsupportedError` where there are too many outputs, and for
    labels, of which only the order of the scores is known.
    """
    if network.readout not in SOFTMAX:
        raise UnsupportedError("the model answers with a label: a specification may only say which label that is")
    literal = None if network.literal is None else _with_softmax(network.literal, network.readout)
    full = replace(_with_softmax(network, network.readout), literal=literal, held=network.held)
    agree(full)
    return full


def _with_softmax(network: Network, kind: str) -> Network:
    builder = Builder(network.input_shape)
    builder.nodes = list(network.nodes)

    def emit(op: Op, *values: Value, shape: tuple[int, ...]) -> Value:
        return Value(builder.add(op, *(value.position for value in values), shape=shape), shape)

    last = len(network.nodes) - 1
    end = SOFTMAX[kind](emit, Value(last, network.nodes[last].shape), None)
    return builder.build(end.position, network.oracle, network.dtype, network.name)
