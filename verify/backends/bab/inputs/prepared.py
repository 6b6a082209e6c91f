"""What is worked out once for a network that is bounded over many boxes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from assay.verify.bounds import rounding
from assay.verify.bounds.backward.affine import fan, homogeneous
from assay.verify.bounds.optimised.slopes import Functions
from assay.verify.bounds.relaxations.relax import relaxes
from assay.verify.core.network import Network
from assay.verify.core.ops import LeakyRelu, Relu, evaluate
from assay.verify.core.region import Box
from assay.verify.core.verifier import Bounds


@dataclass(frozen=True, eq=False)
class Prepared:
    """A network in float64.

    ``inlet``: the values that no activation comes before, by position, as affine functions of the input, coefficients
    (features x inputs). ``relus``: operands of the ReLUs, leaky ones too, and their sizes. ``reads``:
    how many features of any one earlier value a feature of each value depends on, at most. ``error``: how far rounding
    may put the bounds of each value's features off, over any part of a box (features). ``varied``: the positions of the
    inputs that vary there by more than rounding: those worth halving.
    """

    network: Network
    inlet: dict[int, Functions]
    relus: dict[int, int]
    reads: dict[int, int]
    error: list[Tensor]
    varied: Tensor

    @classmethod
    def of(cls, network: Network, box: Bounds) -> Prepared:
        """Work it out for a network and a box (1 x input shape)."""
        network = network.to(torch.float64)
        sources = [node.inputs[0] for node in network.nodes if isinstance(node.op, (Relu, LeakyRelu))]
        sizes = {source: network.nodes[source].size for source in sources}
        error = [e.flatten() for e in rounding.worst(network, box)]
        return cls(network, _inlet(network), sizes, _reads(network), error, varied(box))

    @property
    def widest(self) -> int:
        """The most features that any value has."""
        return max(node.size for node in self.network.nodes)


def inlet_size(network: Network) -> int:
    """How many coefficients the values hold that no activation comes before, as functions of the input."""
    plain = {0}
    for position, node in enumerate(network.nodes[1:], start=1):
        if not relaxes(node.op) and plain.issuperset(node.inputs):
            plain.add(position)
    return network.nodes[0].size * sum(network.nodes[position].size for position in plain)


def varied(box: Bounds | Box) -> Tensor:
    """The positions of the inputs of one sample that vary by more than float32 rounds them."""
    lower, upper = box.lower.flatten(), box.upper.flatten()
    rounded = torch.finfo(torch.float32).eps * torch.maximum(lower.abs(), upper.abs())
    return (upper - lower > rounded).nonzero().flatten()


def _inlet(network: Network) -> dict[int, Functions]:
    """The constant and the linear part are carried forwards apart, so that neither rounds the other."""
    inputs = network.nodes[0].size
    origin = torch.zeros(1, *network.input_shape, dtype=torch.float64)
    values = {0: (origin, torch.eye(inputs, dtype=torch.float64).view(inputs, *network.input_shape))}
    for position, node in enumerate(network.nodes[1:], start=1):
        if not relaxes(node.op) and all(i in values for i in node.inputs):
            constants, linear = zip(*(values[i] for i in node.inputs), strict=True)
            values[position] = evaluate(node.op, *constants), evaluate(homogeneous(node.op), *linear)
    return {i: Functions(linear.flatten(1).T.contiguous(), value.flatten()) for i, (value, linear) in values.items()}


def _reads(network: Network) -> dict[int, int]:
    most: list[dict[int, float]] = [{}]
    for node in network.nodes[1:]:
        here: dict[int, float] = {}
        for source in node.inputs:
            there = {source: 1.0} | most[source]
            for earlier, number in there.items():
                total = here.get(earlier, 0.0) + number * fan(node.op)
                here[earlier] = min(network.nodes[earlier].size, total)
        most.append(here)
    return {position: int(max(here.values(), default=1)) for position, here in enumerate(most)}
