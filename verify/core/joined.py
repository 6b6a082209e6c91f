"""Networks that give some of their inputs as well, so that a specification can compare outputs with inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from assay.verify.core.errors import UnsupportedError
from assay.verify.core.network import Builder, Network, Oracle
from assay.verify.core.ops import Concat, Gather, Reshape


@dataclass(frozen=True)
class WithInputs:
    """A model whose flattened outputs are followed by the flattened inputs at ``positions``."""

    model: Oracle
    positions: tuple[int, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """(batch x shape) to (batch x outputs and inputs)."""
        return torch.cat([self.model(x).flatten(1), x.flatten(1)[:, list(self.positions)]], 1)


def with_inputs(network: Network, positions: Sequence[int]) -> Network:
    """``network`` with its flattened inputs at ``positions`` behind its flattened outputs, and its oracle likewise.

    Raises :class:`UnsupportedError` for a network that ends before a last softmax, whose values it does not have.
    """
    if network.readout:
        raise UnsupportedError(
            f"the model ends in a {network.readout}, whose outputs are compared with inputs: pose the property of the "
            "model without its last layer"
        )
    oracle = None if network.oracle is None else WithInputs(network.oracle, tuple(positions))
    literal = None if network.literal is None else _extended(network.literal, positions)
    return replace(_extended(network, positions), oracle=oracle, literal=literal)


def _extended(network: Network, positions: Sequence[int]) -> Network:
    builder = Builder(network.input_shape)
    builder.nodes = list(network.nodes)
    outputs = builder.add(Reshape((network.output_size,)), len(network.nodes) - 1)
    inputs = builder.add(Gather(torch.tensor(list(positions)), (len(positions),)), 0)
    last = builder.add(Concat(0), outputs, inputs)
    return replace(network, nodes=builder.build(last).nodes)
