"""A relaxed network without the neurons that are inactive on all of a batch: narrower layers, the same bounds."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from assay.verify.bounds.relaxed import Relaxed
from assay.verify.core.network import Node
from assay.verify.core.ops import Linear, Relu
from assay.verify.core.verifier import Bounds

WORTH = 0.9  # of the neurons at most are kept, or the layer stays as it is


def narrowed(relaxed: Relaxed, position: int) -> Relaxed:
    """The network up to the node at ``position``, which stays whole. A ReLU between Linear layers that nothing else
    reads loses its inactive neurons, which pass on 0. What is charged for rounding is what the whole loses."""
    nodes, bounds, lines = list(relaxed.network.nodes[: position + 1]), list(relaxed.bounds), dict(relaxed.lines)
    readers, cut = _readers(nodes), dict[int, Tensor]()
    for i, node in enumerate(nodes[:-1]):
        before = node.inputs[0] if node.inputs else 0
        if not isinstance(node.op, Relu) or len(node.shape) != 1 or readers[before] != [i]:
            continue
        behind = [nodes[r] for r in readers[i]]
        if not isinstance(nodes[before].op, Linear) or not all(isinstance(n.op, Linear) for n in behind):
            continue
        possible = ~(bounds[before].upper <= 0).all(0)
        kept = possible.nonzero().flatten()
        if not 0 < len(kept) <= WORTH * len(possible):
            continue
        nodes[before] = _cut(nodes[before], outputs=kept)
        nodes[i] = replace(node, shape=(len(kept),))
        for r in readers[i]:
            nodes[r] = _cut(nodes[r], inputs=kept)
        for p in (before, i):
            bounds[p] = Bounds(bounds[p].lower[:, kept], bounds[p].upper[:, kept])
        lines[i], cut[before] = lines[i].take(kept, 1), kept
    network = replace(relaxed.network, nodes=tuple(nodes))
    rounding = None if relaxed.rounding is None else relaxed.rounding.of_features(cut)
    return replace(relaxed, network=network, bounds=bounds[: position + 1], lines=lines, rounding=rounding)


def _readers(nodes: list[Node]) -> list[list[int]]:
    readers: list[list[int]] = [[] for _ in nodes]
    for position, node in enumerate(nodes):
        for i in node.inputs:
            readers[i].append(position)
    return readers


def _cut(node: Node, outputs: Tensor | None = None, inputs: Tensor | None = None) -> Node:
    """A Linear node with these outputs and inputs alone, by number."""
    op = node.op
    assert isinstance(op, Linear)
    weight, bias, shape = op.weight, op.bias, node.shape
    if outputs is not None:
        weight, bias, shape = weight[outputs], bias[outputs], (len(outputs),)
    if inputs is not None:
        weight = weight[:, inputs]
    return replace(node, op=Linear(weight.contiguous(), bias), shape=shape)
