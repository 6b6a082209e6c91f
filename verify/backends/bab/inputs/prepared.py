"""What is worked out once for a network that is bounded over many boxes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from assay.verify.bounds import rounding
from assay.verify.bounds.backward.affine import fan, homogeneous
from assay.verify.bounds.optimised.slopes import Functions
from assay.verify.bounds.relaxations.relax import MOVERS, moved_from, relaxes
from assay.verify.core.network import Network
from assay.verify.core.ops import LeakyRelu, Product, Relu, evaluate
from assay.verify.core.region import Box
from assay.verify.core.verifier import Bounds


@dataclass(frozen=True, eq=False)
class Factors:
    """The operands of products: features of the nodes at the positions ``sources``, one after the other, at ``index``
    (products x 2)."""

    sources: tuple[int, ...]
    index: Tensor

    @classmethod
    def of(cls, network: Network, position: int) -> Factors:
        """Those of the products at ``position``, past what only moves numbers about."""
        sources = moved_from(network, network.nodes[position].inputs[0])
        values: dict[int, Tensor] = {}
        begin = 0
        for i in sources:
            node = network.nodes[i]
            values[i] = torch.arange(begin, begin + node.size, dtype=torch.float64).view(1, *node.shape)
            begin += node.size
        for i in range(position):
            node = network.nodes[i]
            if (
                i not in values
                and node.inputs
                and all(k in values for k in node.inputs)
                and isinstance(node.op, MOVERS)
            ):
                values[i] = evaluate(node.op, *(values[k] for k in node.inputs))
        return cls(sources, values[network.nodes[position].inputs[0]].view(-1, 2).long())


@dataclass(frozen=True, eq=False)
class Prepared:
    """A network in float64.

    ``inlet``: the values that no activation comes before, by position, as affine functions of the input, coefficients
    (features x inputs). ``relus``: operands of the ReLUs, leaky ones too, and their sizes. ``reads``:
    how many features of any one earlier value a feature of each value depends on, at most. ``error``: how far rounding
    may put the bounds of each value's features off, over any part of a box (features). ``varied``: the positions of the
    inputs that vary there by more than rounding: those worth halving. ``factors``: where the two numbers of each
    product come from, by its position.
    """

    network: Network
    inlet: dict[int, Functions]
    relus: dict[int, int]
    reads: dict[int, int]
    error: list[Tensor]
    varied: Tensor
    factors: dict[int, Factors]

    @classmethod
    def of(cls, network: Network, box: Bounds) -> Prepared:
        """Work it out for a network and a box (1 x input shape)."""
        network = network.to(torch.float64)
        sources = [node.inputs[0] for node in network.nodes if isinstance(node.op, (Relu, LeakyRelu))]
        sizes = {source: network.nodes[source].size for source in sources}
        error = [e.flatten() for e in rounding.worst(network, box)]
        return cls(network, _inlet(network), sizes, _reads(network), error, varied(box), _factors(network))

    @property
    def heaviest(self) -> int:
        """The most numbers that a row is about to be kept beside: features of a value, or slopes of operands."""
        most = max((factors.index.numel() for factors in self.factors.values()), default=0)
        return max(self.widest, most * len(self.varied))

    @property
    def factored(self) -> set[int]:
        """The positions of all values that operands of products are among."""
        return {source for factors in self.factors.values() for source in factors.sources}

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


def _factors(network: Network) -> dict[int, Factors]:
    nodes = enumerate(network.nodes)
    return {position: Factors.of(network, position) for position, node in nodes if isinstance(node.op, Product)}


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
