"""Neurons whose values are opposite numbers, as differences of which softmax is made: the lower bound of one is the
upper bound of the other, so that half of the rows do."""

from __future__ import annotations

import torch
from torch import Tensor

from assay.verify.core.network import Network
from assay.verify.core.ops import Gather, Sub


def partners(network: Network, position: int, sample: Tensor, feature: Tensor) -> Tensor | None:
    """Of neurons of a node by their samples and features (neurons), in order: which of them has the opposite value, by
    number; None where not all have one among them."""
    opposite = _opposites(network, position)
    if opposite is None or not len(feature):
        return None
    size = network.nodes[position].size
    own, other = sample * size + feature, sample * size + opposite.to(feature.device)[feature]
    place = torch.searchsorted(own, other).clamp(max=len(own) - 1)
    return place if torch.equal(own[place], other) else None


def _opposites(network: Network, position: int) -> Tensor | None:
    """For each feature of a difference of elements of one value, the feature that is the difference the other way."""
    nodes = network.nodes
    if not isinstance(nodes[position].op, Sub):
        return None
    minuend, subtrahend = (nodes[i] for i in nodes[position].inputs)
    a, b = minuend.op, subtrahend.op
    if (
        not isinstance(a, Gather)
        or not isinstance(b, Gather)
        or minuend.inputs != subtrahend.inputs
        or a.fill != b.fill
    ):
        return None
    count = nodes[minuend.inputs[0]].size + 1  # -1 stands for what is filled in
    forth, back = (x * count + y for x, y in ((a.index + 1, b.index + 1), (b.index + 1, a.index + 1)))
    ordered, order = forth.sort()
    found = order[torch.searchsorted(ordered, back).clamp(max=len(order) - 1)]
    return found if torch.equal(forth[found], back) else None
