"""Classifiers of one output y: their answer is 1 where y > 0, 0 where y < 0, and at y = 0 no label is right."""

from __future__ import annotations

import torch
from torch import Tensor

from assay.verify.core.errors import UnsupportedError
from assay.verify.core.network import Network, Node
from assay.verify.core.ops import Relu, Reshape, Scale, Tanh


def class_scores(y: Tensor) -> Tensor:
    """One score for each class, y (batch x outputs) as it is; a single output scores class 1 against 0 for class 0.

    Margins are those of the output itself, and the cross-entropy is that of the logistic function.

    >>> class_scores(torch.tensor([[-2.0]]))
    tensor([[ 0., -2.]])
    """
    return torch.cat([torch.zeros_like(y), y], 1) if y.shape[1] == 1 else y


def check_sign(network: Network) -> None:
    """Refuse a network of one output that is never negative: it has another threshold than 0, or no second answer."""
    last = _through(network, network.nodes[-1])
    before = _through(network, network.nodes[last.inputs[0]]) if isinstance(last.op, Scale) else None
    squashed = before is not None and isinstance(before.op, Tanh)
    if isinstance(last.op, Relu) or (
        squashed and isinstance(last.op, Scale) and bool((last.op.shift >= last.op.factor.abs()).all())
    ):
        raise UnsupportedError(
            "the one output of the model is never negative, so that 0 cannot divide its two classes: leave out the "
            f"{'ReLU' if isinstance(last.op, Relu) else 'Sigmoid'} at the end"
        )


def _through(network: Network, node: Node) -> Node:
    """The node whose values ``node`` only reshapes."""
    while isinstance(node.op, Reshape):
        node = network.nodes[node.inputs[0]]
    return node
