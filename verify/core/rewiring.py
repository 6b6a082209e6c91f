"""Networks put together and wired anew, with their oracles: several as one or one after the other, inputs shared,
inputs given as outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from assay.verify.core.errors import InputError
from assay.verify.core.network import Builder, Network, Oracle, chain
from assay.verify.core.ops import Concat, Gather, Reshape, Scale


@dataclass(frozen=True)
class WithInputs:
    """A model whose flattened outputs are followed by the flattened inputs at ``positions``."""

    model: Oracle
    positions: tuple[int, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """(batch x shape) to (batch x outputs and inputs)."""
        return torch.cat([self.model(x).flatten(1), x.flatten(1)[:, list(self.positions)]], 1)


@dataclass(frozen=True)
class Followed:
    """A model and then, in float64, a network of its flattened outputs."""

    model: Oracle
    after: Network

    def __call__(self, x: Tensor) -> Tensor:
        """(batch x shape) to (batch x outputs)."""
        return self.after(self.model(x).flatten(1).to(torch.float64))


@dataclass(frozen=True)
class Rewired:
    """A model of inputs of ``shape`` whose flattened inputs are those at ``index`` of other ones; ``stated``: where
    those are that the question states, one after the other."""

    model: Oracle
    index: tuple[int, ...]
    shape: tuple[int, ...]
    stated: tuple[int, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """(batch x other inputs) to (batch x outputs)."""
        return self.model(x.flatten(1)[:, list(self.index)].reshape(len(x), *self.shape))


@dataclass(frozen=True)
class SideBySide:
    """Several models as one: flattened inputs, and flattened outputs, one after the other. ``shapes``: of the inputs
    of each."""

    models: tuple[Oracle, ...]
    shapes: tuple[tuple[int, ...], ...]

    def __call__(self, x: Tensor) -> Tensor:
        """(batch x all inputs) to (batch x all outputs)."""
        parts = torch.split(x.flatten(1), [prod(shape) for shape in self.shapes], 1)
        together = zip(self.models, parts, self.shapes, strict=True)
        return torch.cat([model(part.reshape(len(x), *shape)).flatten(1) for model, part, shape in together], 1)


def with_inputs(network: Network, positions: Sequence[int]) -> Network:
    """``network``, with what its readout names, and its flattened inputs at ``positions`` behind its outputs."""
    network = network.whole
    literal = None if network.literal is None else _extended(network.literal, positions)
    oracle = WithInputs(network.oracle or network, tuple(positions))
    return replace(_extended(network, positions), oracle=oracle, literal=literal)


def followed(network: Network, after: Network) -> Network:
    """``network``, with what its readout names, and then ``after``, a network of its flattened outputs."""
    network = network.whole
    literal = None if network.literal is None else _continued(network.literal, after)
    oracle = Followed(network.oracle or network, after)
    return replace(_continued(network, after), oracle=oracle, literal=literal)


def _continued(network: Network, after: Network) -> Network:
    builder = Builder(network.input_shape)
    outputs = builder.add(Reshape((network.output_size,)), builder.embed(network, 0))
    return replace(network, nodes=builder.build(builder.embed(after, outputs)).nodes)


def _extended(network: Network, positions: Sequence[int]) -> Network:
    builder = Builder(network.input_shape)
    outputs = builder.add(Reshape((network.output_size,)), builder.embed(network, 0))
    inputs = builder.add(Gather(torch.tensor(list(positions)), (len(positions),)), 0)
    return replace(network, nodes=builder.build(builder.add(Concat(0), outputs, inputs)).nodes)


def rewired(network: Network, index: Sequence[int], stated: Sequence[int]) -> Network:
    """``network`` as one of flat inputs, as many as ``stated`` needs: its own flattened inputs are those at ``index``,
    and the inputs that the question states those at ``stated``."""
    size = max(stated) + 1
    literal = None if network.literal is None else _regathered(network.literal, index, size)
    oracle = Rewired(network.oracle or network, tuple(index), network.input_shape, tuple(stated))
    full = None if network.full is None else rewired(network.full, index, stated)
    held = None if network.held is None else _regathered(network.held, index, size)
    made = _regathered(network, index, size)
    return replace(made, oracle=oracle, literal=literal, full=full, inputs=(), held=held)


def _regathered(network: Network, index: Sequence[int], size: int) -> Network:
    builder = Builder((size,))
    first = builder.add(Gather(torch.tensor(list(index)), network.input_shape), 0)
    return replace(network, nodes=builder.build(builder.embed(network, first)).nodes)


def side_by_side(networks: Sequence[Network]) -> Network:
    """Several networks, with what their readouts name, as one, of flat inputs and outputs.

    Raises :class:`InputError` for networks of different dtypes.
    """
    networks = [network.whole for network in networks]
    if len(dtypes := {network.dtype for network in networks}) > 1:
        raise InputError(f"expected networks of one floating type side by side, got {sorted(map(str, dtypes))}")
    oracles = tuple(network.oracle or network for network in networks)
    literals = [network.literal for network in networks if network.literal is not None]
    together = _together(networks)
    return replace(
        together,
        oracle=SideBySide(oracles, tuple(network.input_shape for network in networks)),
        literal=_together(literals) if len(literals) == len(networks) else None,
        held=_together([n.held or _nothing(n) for n in networks]) if any(n.held for n in networks) else None,
        inputs=tuple(port for network in networks for port in network.inputs),
        outputs=tuple(port for network in networks for port in network.outputs),
    )


def _nothing(network: Network) -> Network:
    """Zeros, of the same inputs."""
    return chain(network.input_shape, [Scale(torch.zeros(1), torch.zeros(1))])


def _together(networks: Sequence[Network]) -> Network:
    builder = Builder((sum(network.nodes[0].size for network in networks),))
    begin, outputs = 0, []
    for network in networks:
        end = begin + network.nodes[0].size
        first = builder.add(Gather(torch.arange(begin, end), network.input_shape), 0)
        outputs.append(builder.add(Reshape((network.output_size,)), builder.embed(network, first)))
        begin = end
    name = " and ".join(dict.fromkeys(network.name for network in networks if network.name))
    return builder.build(builder.add(Concat(0), *outputs), dtype=networks[0].dtype, name=name)
