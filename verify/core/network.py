"""A network: operations in topological order, with the callable that it was made from as its oracle."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, singledispatch
from math import prod
from typing import Any

import torch
from torch import Tensor

from assay.verify.core.errors import InputError, InternalError, check_type
from assay.verify.core.ops import Gather, Input, Op, Opaque, Reshape, Scale, evaluate, map_tensors
from assay.verify.core.readout import ending
from assay.verify.core.roundings import curved, drift, magnitude, noise, spread, terms
from assay.verify.support import shown

Oracle = Callable[[Tensor], Tensor]

# Modules that register kinds of models, by name: they are imported on use, since floor 0 imports no floor above.
FRONTENDS = (
    "assay.verify.frontends.torch",
    "assay.verify.frontends.parted",
    "assay.verify.frontends.exported",
    "assay.verify.frontends.onnx",
)
READOUT = "assay.verify.frontends.readout"


@dataclass(frozen=True, eq=False)
class Node:
    """An operation, the positions of its operands, and the shape of its value without the batch dimension."""

    op: Op
    inputs: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of values for one sample."""
        return prod(self.shape)


@dataclass(frozen=True)
class Port:
    """One of the inputs or outputs of a model: its ``name``, and the ``shape`` of one sample. Several of them, each
    flattened, side by side, are the network's one input or output."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of values for one sample."""
        return prod(self.shape)


@dataclass(frozen=True, eq=False, repr=False)
class Network:
    """A directed acyclic graph of operations: one input (node 0), one output (the last node).

    ``oracle`` is the original model, batch in and batch out; replay calls it. ``dtype`` is the floating type that
    the oracle takes. The operations hold float64: original weights widened exactly, folded ones rounded once.
    ``literal`` is the same function as the model writes it, before folding: its rounding errors are the oracle's.
    ``readout``: what the oracle goes on with that leaves the order of the outputs as it is, such as "softmax"; the
    network ends before it, and only properties of that order carry over. ``full``: the network with it, if it is made.
    ``inputs`` and ``outputs``: by name, where the model names them. ``held``: all values
    that the model keeps in types of whole numbers, as shares of what these hold: from 1 on they wrap around there.
    """

    nodes: tuple[Node, ...]
    oracle: Oracle | None = field(default=None, repr=False)
    dtype: torch.dtype = torch.float32
    name: str = ""
    literal: Network | None = field(default=None, repr=False)
    readout: str = ""
    full: Network | None = field(default=None, repr=False)
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    held: Network | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.nodes or not isinstance(self.nodes[0].op, Input):
            raise InternalError("a network starts with its input node")
        for position, node in enumerate(self.nodes):
            if any(not 0 <= i < position for i in node.inputs):
                raise InternalError(f"node {position} ({node.op.label}) is not in topological order")

    def __call__(self, x: Tensor) -> Tensor:
        """The output at ``x`` (batch x input shape), in the dtype of ``x``: (batch x output shape)."""
        return self.values(x)[-1]

    def __repr__(self) -> str:
        return shown.line("Network", self.facts)

    def _repr_html_(self) -> str:
        return shown.table("Network", self.facts)

    @property
    def facts(self) -> dict[str, object]:
        """What people want to see of it."""
        name = {"name": self.name} if self.name else {}
        operations = len(self.nodes) - 1
        return {**name, "inputs": self.input_shape, "outputs": self.output_size, "operations": operations}

    def values(self, x: Tensor) -> list[Tensor]:
        """The value of every node at ``x`` (batch x input shape), each (batch x shape of the node)."""
        if tuple(x.shape[1:]) != self.input_shape:
            raise InputError(f"expected a batch of inputs of shape {self.input_shape}, got {tuple(x.shape)}")
        nodes = self.to(x.dtype, x.device).nodes
        values = [x]
        for node in nodes[1:]:
            values.append(evaluate(node.op, *(values[i] for i in node.inputs)))
        return values

    @cached_property
    def ordered(self) -> Network:
        """The network for properties of the order of its outputs: without what leaves that as it is, at its end."""
        last, factor, names = ending([(node.op, node.inputs) for node in self.nodes])
        if not names or self.output_size < 2:
            return self
        builder = Builder(self.input_shape)
        builder.nodes = list(self.nodes)
        if factor != 1:
            last = builder.add(Scale(torch.tensor(factor, dtype=torch.float64), torch.tensor(0.0)), last)
        cut = builder.build(last, self.oracle, self.dtype, self.name)
        literal = None if self.literal is None else self.literal.ordered
        readout = ", ".join([*names, *([self.readout] if self.readout else [])])
        return replace(cut, literal=literal, readout=readout, full=self, held=self.held)

    @cached_property
    def whole(self) -> Network:
        """The network for properties of its outputs' values: with what its ``readout`` names.

        Raises :class:`UnsupportedError` for a softmax over too many outputs.
        """
        if not self.readout:
            return self
        if self.full is not None:
            return self.full.whole
        made: Network = importlib.import_module(READOUT).whole(self)
        return made

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input sample."""
        return self.nodes[0].shape

    @property
    def output_size(self) -> int:
        """Number of outputs for one sample; specifications speak of the flattened output."""
        return self.nodes[-1].size

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Network:
        """The network with its tensors in another dtype or on another device; kept for the next call."""
        key = (dtype, str(torch.device(device)))
        cache: dict[tuple[torch.dtype, str], Network] = self._casts
        if key not in cache:
            with torch.inference_mode(False):  # kept, so that it must serve callers who need gradients too
                moved = tuple(replace(n, op=map_tensors(n.op, dtype=dtype, device=device)) for n in self.nodes)
            cache[key] = replace(self, nodes=moved)
        return cache[key]

    @cached_property
    def _casts(self) -> dict[tuple[torch.dtype, str], Network]:
        return {}

    @cached_property
    def id(self) -> str:
        """Hash of the operations' content, their wiring, the oracle's dtype and its types of whole numbers."""
        besides = [self.readout] if self.readout else []
        besides += [] if self.held is None else [self.held.id]
        return content_hash("network", str(self.dtype), *besides, *((n.op, n.inputs, n.shape) for n in self.nodes))

    def rounding_error(self, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Bound on ``|y - real y|`` when the network runs in ``dtype`` at ``x``, and the magnitude of the output.

        Running error analysis (Higham 2002, chapter 3): each sum of n products errs by at most
        ``gamma_n |W||h|``, ``gamma_n = n u / (1 - n u)``, in any order of summation, and earlier errors pass
        through ``|W|``, and through a curve by its steepest slope near the value. NaN or infinite where there is no
        bound. ``x``: (batch x input shape). Both results: (batch x output shape), float64.
        """
        unit = torch.finfo(dtype).eps / 2
        last = {i: position for position, node in enumerate(self.nodes) for i in node.inputs}
        first = x.to(torch.float64).abs()
        values = self.values(x.to(torch.float64)) if any(curved(node.op) for node in self.nodes) else []
        found = {0: (first, first * unit)}  # magnitude and error of each value, for as long as it is read
        for position, node in enumerate(self.nodes[1:], start=1):
            op = map_tensors(node.op, torch.float64, x.device)
            if curved(op):
                z, e = values[node.inputs[0]], found[node.inputs[0]][1]
                size = noise(op, z - e, z + e, values[position].abs())  # the real operand is no further away
                error = drift(op, z - e, z + e, e)
            else:
                size = evaluate(magnitude(op), *(found[i][0] for i in node.inputs))
                error = evaluate(spread(op), *(found[i][1] for i in node.inputs))
            if count := terms(op):
                n = (count + 2) * unit
                gamma = n / (1 - n) if n < 1 else float("inf")
                error = error + gamma * (size + error) + (count + 2) * torch.finfo(dtype).tiny
                # What overflows is not off by roundings: a mean is that of a sum, but a mask may be the largest number.
                most = torch.finfo(dtype).max * (1 / count if count > 2 or curved(op) else 4)
                error = torch.where(size < most, error, torch.inf)
            found[position] = (size, error)
            for i in node.inputs:
                if last[i] == position:
                    found.pop(i, None)
        size, error = found[len(self.nodes) - 1]
        return error, size


def chain(shape: Sequence[int], ops: Sequence[Op], oracle: Oracle | None = None, name: str = "") -> Network:
    """A network without branches: ``ops`` one after the other on an input of shape ``shape``."""
    builder = Builder(tuple(shape))
    last = 0
    for op in ops:
        last = builder.add(op, last)
    return builder.build(last, oracle=oracle, name=name)


class Builder:
    """Collects nodes in topological order and works out their shapes by evaluation."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        self.nodes: list[Node] = [Node(Input(), (), tuple(input_shape))]

    def add(self, op: Op, *inputs: int, shape: tuple[int, ...] | None = None) -> int:
        """Append ``op`` applied to the nodes at ``inputs``, with its ``shape`` where it is known; its position."""
        op = map_tensors(op, dtype=torch.float64)
        if op.several and len(self.nodes[inputs[0]].shape) == 1:  # of a vector a vector of one is made, not a scalar
            inputs = (self.add(Reshape((1, self.nodes[inputs[0]].size)), *inputs),)
        if shape is None:
            samples = [torch.zeros(1, *self.nodes[i].shape, dtype=torch.float64) for i in inputs]
            with torch.no_grad():
                shape = tuple(evaluate(op, *samples).shape[1:])
        if isinstance(op, Scale) and shape != self.nodes[inputs[0]].shape:
            raise InputError(f"a Scale cannot widen its operand from {self.nodes[inputs[0]].shape} to {shape}")
        self.nodes.append(Node(op, tuple(inputs), shape))
        return len(self.nodes) - 1

    def embed(self, network: Network, first: int) -> int:
        """Append ``network`` with the node at ``first`` for its input; returns the position of its output."""
        places = [first]
        for node in network.nodes[1:]:
            self.nodes.append(replace(node, inputs=tuple(places[i] for i in node.inputs)))
            places.append(len(self.nodes) - 1)
        return places[-1]

    def build(
        self, output: int, oracle: Oracle | None = None, dtype: torch.dtype = torch.float32, name: str = ""
    ) -> Network:
        """The network that ends at node ``output``; nodes that do not lead there are left out.

        A scalar is kept as a vector of one, so that every value has a dimension beside the batch's.
        """
        needed = {0, output}
        for position in range(output, 0, -1):
            if position in needed:
                needed.update(self.nodes[position].inputs)
        order = sorted(needed)
        new = {old: position for position, old in enumerate(order)}
        kept = [replace(self.nodes[i], inputs=tuple(new[j] for j in self.nodes[i].inputs)) for i in order]
        nodes = (kept[0], *(node if node.shape else _of_one(node) for node in kept[1:]))
        return Network(nodes, oracle=oracle, dtype=dtype, name=name)


def _of_one(node: Node) -> Node:
    op = replace(node.op, shape=(1,)) if isinstance(node.op, Reshape | Gather) else node.op
    return replace(node, op=op, shape=(1,))


def check_network(value: object) -> None:
    """Raise :class:`InputError` for what is no network, such as the module that one is made from."""
    check_type(value, Network, "a Network", "to_network(model, shape_of_one_sample) makes one")


@singledispatch
def to_network(model: Any, input_shape: Sequence[int] | None = None) -> Network:
    """``model`` as a :class:`Network`; the frontends register the kinds of model that they read.

    Raises :class:`InputError` for a kind of model that no frontend reads, :class:`UnsupportedError` with all the
    operations that cannot be represented.
    """
    for module in FRONTENDS:
        importlib.import_module(module)
    if to_network.dispatch(type(model)) is to_network.dispatch(object):
        raise InputError(
            f"expected a torch.nn.Module, a Network, or the Path of an ONNX file, got {type(model).__name__}"
        )
    return to_network(model, input_shape)


@to_network.register
def _(model: Network, input_shape: Sequence[int] | None = None) -> Network:
    if input_shape is not None and tuple(input_shape) != model.input_shape:
        raise InputError(f"expected inputs of shape {model.input_shape}, got {tuple(input_shape)}")
    return model


def content_hash(*parts: Any) -> str:
    """SHA-256 of nested plain values, tensors and dataclasses by content: 32 hexadecimal digits."""
    digest = hashlib.sha256()
    _absorb(digest, parts)
    return digest.hexdigest()[:32]


def _absorb(digest: hashlib._Hash, value: Any) -> None:
    if isinstance(value, Tensor):
        digest.update(f"tensor {value.dtype} {tuple(value.shape)};".encode())
        dense = value.detach().cpu().clone(memory_format=torch.contiguous_format)  # contiguous() keeps strides of 0
        digest.update(dense.flatten().view(torch.uint8).numpy().tobytes())
    elif isinstance(value, (tuple, list)):
        digest.update(f"sequence {len(value)};".encode())
        for item in value:
            _absorb(digest, item)
    elif isinstance(value, float):
        digest.update(f"float {value.hex()};".encode())
    elif isinstance(value, Opaque):
        digest.update(f"Opaque {value.content};".encode())
    elif hasattr(value, "__dataclass_fields__"):
        digest.update(f"{type(value).__name__};".encode())
        for item in fields(value):
            _absorb(digest, getattr(value, item.name))
    else:
        digest.update(f"{type(value).__name__} {value!r};".encode())
