"""A parsed ONNX model as plain values: inputs, outputs, constants and nodes, with what is wrong named."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.network import Port
from assay.verify.frontends.onnx.tensors import DTYPES, check_shape, to_tensor

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

OLDEST = 7  # the first version of the operator set in which operands broadcast as they do today
DOMAINS = ("", "ai.onnx", "ai.onnx.ml")  # names differ between them, so that they need not be kept apart
FLOATS = (torch.float32, torch.float64)  # that networks are computed in
Attribute = int | float | str | Tensor | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]


@dataclass(frozen=True, eq=False)
class GraphNode:
    """One node of the file, and as it is written there. ``inputs``: names, empty where one is left out. ``fault``: why
    the node is not read."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Attribute]
    proto: NodeProto
    fault: str = ""

    @property
    def label(self) -> str:
        """Its operation and name for messages."""
        name = self.name or next(filter(None, self.outputs), "")
        return f"{self.op} {name!r}" if name else self.op


@dataclass(frozen=True, eq=False)
class Graph:
    """What a model file says. ``inputs``: with their shapes as declared, a symbolic batch dimension, which then all of
    them have, replaced by 1; ``outputs``: by name, those that are read."""

    inputs: tuple[Port, ...]
    symbolic: bool
    dtype: torch.dtype
    outputs: tuple[str, ...]
    nodes: tuple[GraphNode, ...]
    initialisers: dict[str, TensorProto]
    opset: int

    def constant(self, name: str) -> Tensor | None:
        """The initialiser ``name``, read whenever it is asked for; None if there is none."""
        return to_tensor(self.initialisers[name]) if name in self.initialisers else None


def parse(content: bytes, what: str) -> ModelProto:
    """``content`` as a model; :class:`InputError` where it is none."""
    from google.protobuf.message import DecodeError
    from onnx import ModelProto

    model = ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise InputError(f"{what} is no ONNX file, or it is damaged or cut off") from error
    if not model.HasField("graph") or not model.graph.node:
        raise InputError(f"{what} holds no network: an ONNX model has a graph with nodes")
    return model


def read_graph(model: ModelProto, chosen: Sequence[str | int] = ()) -> Graph:
    """The graph of ``model``, which must be self-contained. ``chosen``: the outputs that are read, by name or place.

    Raises :class:`InputError` for what is wrong with it, :class:`UnsupportedError` for an operator set or a type of
    input that is not read.
    """
    opset, graph = _operator_set(model), model.graph
    initialisers = {proto.name: proto for proto in graph.initializer}
    given = [_input(value) for value in graph.input if value.name not in initialisers]
    if not given:
        raise InputError("expected a network with an input, got none")
    dtypes, symbolic = {dtype for _, dtype, _ in given}, {free for _, _, free in given}
    if len(dtypes) > 1 or len(symbolic) > 1:
        what = "of one floating type" if len(dtypes) > 1 else "with a batch dimension each, or none"
        raise UnsupportedError(f"expected inputs {what}, got {', '.join(port.name for port, _, _ in given)}")
    outputs = _outputs(list(graph.output), chosen)
    others = [value.name for value in graph.output if value.name not in outputs]
    beside = _leading_to(graph, others) - _leading_to(graph, outputs)
    nodes = tuple(_node(proto) for i, proto in enumerate(graph.node) if i not in beside)
    inputs = tuple(port for port, _, _ in given)
    return Graph(inputs, symbolic.pop(), dtypes.pop(), outputs, nodes, initialisers, opset)


def _operator_set(model: ModelProto) -> int:
    """The one version of the operator set."""
    versions: dict[str, set[int]] = {"": set()}
    for entry in model.opset_import:
        versions.setdefault(entry.domain if entry.domain != "ai.onnx" else "", set()).add(int(entry.version))
    for domain, several in versions.items():  # duplicates of one entry are allowed
        if len(several) > 1 or (not several and domain == ""):
            which = f"operator set {domain!r}" if domain else "ONNX operator set"
            raise InputError(f"expected one version of the {which}, got {sorted(several)}")
    (version,) = versions[""]
    if version < OLDEST:
        raise UnsupportedError(
            f"the model has operator set {version}; {OLDEST} and later are read: convert it with onnx.version_converter"
        )
    return version


def _outputs(values: list[ValueInfoProto], chosen: Sequence[str | int]) -> tuple[str, ...]:
    """The outputs that are ``chosen``; else the one output, of several the only one that holds floating-point numbers,
    as scores beside labels do, or that is called as models call their
    answer."""
    names = [value.name for value in values]
    if chosen:
        for one in chosen:
            if one not in names and not (isinstance(one, int) and one < len(names)):
                raise InputError(f"the network has no output {one!r}; it has {', '.join(map(repr, names))}")
        return tuple(names[one] if isinstance(one, int) else one for one in chosen)
    scores = [value.name for value in values if DTYPES.get(value.type.tensor_type.elem_type) in FLOATS]
    called = [name for name in scores if name in ("logits", "out", "output")]
    for only in (names, called, scores):
        if len(only) == 1:
            return tuple(only)
    listed = f"{len(names)}: {names}" if names else "0"
    hint = "; choose one or several by name (by itself only one that alone holds floating-point numbers, or that is "
    hint += "called logits, out or output)"
    raise InputError(f"expected a network with one output, got {listed}{hint if names else ''}")


def _leading_to(graph: GraphProto, names: Iterable[str]) -> set[int]:
    """The positions of the nodes that the values ``names`` are computed by."""
    wanted, leading = set(names), set()
    for i in range(len(graph.node) - 1, -1, -1) if wanted else ():
        if not wanted.isdisjoint(graph.node[i].output):
            leading.add(i)
            wanted.update(graph.node[i].input)
    return leading


def _input(value: ValueInfoProto) -> tuple[Port, torch.dtype, bool]:
    """Name and shape with a batch of one, dtype, and whether the batch dimension is symbolic."""
    kind = value.type.tensor_type
    dtype = DTYPES.get(kind.elem_type)
    if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
        raise InputError(f"the input {value.name!r} is declared without a shape")
    if dtype not in FLOATS:
        raise UnsupportedError(f"the input {value.name!r} is of type {dtype}; float32 and float64 are read")
    declared = [d.dim_value if d.HasField("dim_value") else str(d.dim_param or "?") for d in kind.shape.dim]
    symbolic = len(declared) > 1 and (isinstance(declared[0], str) or declared[0] <= 0)
    shape = [1, *declared[1:]] if symbolic else declared
    fixed = tuple(n for n in shape if isinstance(n, int) and n > 0)
    if len(fixed) != len(shape) or not shape:
        raise InputError(
            f"expected an input with fixed dimensions after the batch, got {value.name!r} with {declared}: "
            "set them in the file"
        )
    return Port(value.name, check_shape(fixed, f"the input {value.name!r}")), dtype, symbolic


def _node(proto: NodeProto) -> GraphNode:
    fault = "" if proto.domain in DOMAINS else f"domain {proto.domain!r}"
    attributes: dict[str, Attribute] = {}
    for attribute in proto.attribute:
        value = _attribute(attribute)
        if value is None:
            fault = fault or f"attribute {attribute.name!r}"
        else:
            attributes[attribute.name] = value
    return GraphNode(proto.op_type, proto.name, tuple(proto.input), tuple(proto.output), attributes, proto, fault)


def _attribute(proto: AttributeProto) -> Attribute | None:
    """The attribute's value; None for graphs and whatever else has no plain one."""
    if proto.type == proto.INT:
        return int(proto.i)
    if proto.type == proto.FLOAT:
        return float(proto.f)
    if proto.type == proto.STRING:
        return proto.s.decode(errors="replace")
    if proto.type == proto.INTS:
        return tuple(proto.ints)
    if proto.type == proto.FLOATS:
        return tuple(proto.floats)
    if proto.type == proto.STRINGS:
        return tuple(s.decode(errors="replace") for s in proto.strings)
    if proto.type == proto.TENSOR and proto.t.data_type in DTYPES:
        return to_tensor(proto.t)
    return None
