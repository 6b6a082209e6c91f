"""Classifiers of one output y: their answer is 1 where y > 0, 0 where y < 0, and at y = 0 no label is right."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from assay.verify.core.errors import UnsupportedError
from assay.verify.core.network import Network
from assay.verify.core.ops import Relu, Reshape, Scale, Smooth


def class_scores(y: Tensor) -> Tensor:
    """One score for each class, y (batch x outputs) as it is; a single output scores class 1 against 0 for class 0.

    Margins are those of the output itself, and the cross-entropy is that of the logistic function.

    >>> class_scores(torch.tensor([[-2.0]]))
    tensor([[ 0., -2.]])
    """
    return torch.cat([torch.zeros_like(y), y], 1) if y.shape[1] == 1 else y


def check_sign(network: Network) -> None:
    """Refuse a network of one output whose last steps fix its sign: it has another threshold than 0, or one answer."""
    factor, shift, node = 1.0, 0.0, network.nodes[-1]
    while isinstance(node.op, (Reshape, Scale)):
        if isinstance(node.op, Scale):
            shift += factor * float(node.op.shift.flatten()[0])
            factor *= float(node.op.factor.flatten()[0])
        node = network.nodes[node.inputs[0]]
    if isinstance(node.op, Smooth) and node.op.curve == "tanh":
        low, high = shift - abs(factor), shift + abs(factor)
    elif isinstance(node.op, Smooth) and node.op.curve == "sigmoid":
        low, high = sorted((shift, shift + factor))
    elif isinstance(node.op, Relu):
        low, high = (shift, inf) if factor >= 0 else (-inf, shift)
    else:
        return
    if low >= 0 or high <= 0:
        last = "ReLU" if isinstance(node.op, Relu) else "Sigmoid"
        raise UnsupportedError(
            f"the one output of the model is never {'negative' if low >= 0 else 'positive'}, so that 0 cannot divide "
            f"its two classes: leave out the {last} at the end"
        )
