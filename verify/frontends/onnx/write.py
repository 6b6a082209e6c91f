"""A network as an ONNX file: every operation that a network is made of has its counterpart there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import singledispatch
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from assay.verify.core.errors import InputError, ResourceError, UnsupportedError
from assay.verify.core.network import Network
from assay.verify.core.ops import (
    Add,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Gather,
    InverseSumExp,
    LeakyRelu,
    Linear,
    Max,
    Normalised,
    Op,
    Product,
    Relu,
    Reshape,
    Scale,
    Smooth,
    Step,
    Sub,
)
from assay.verify.frontends.agreement import agree
from assay.verify.frontends.labels import Labelled
from assay.verify.frontends.onnx.read import decode
from assay.verify.frontends.source import MAX_FILE
from assay.verify.support.files import replace_file

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

OPSET, IR = 13, 8  # old enough for every runtime in use
BATCH = "batch"


def write_onnx(network: Network, path: str | Path) -> Network:
    """Write ``network`` to ``path`` with a symbolic batch dimension; the network that the file reads back as.

    The weights are those of ``network.literal``, before folding, in the network's dtype: those that it does not hold
    are rounded to the nearest. What the file reads back as is compared with the original on random points, within the
    rounding errors of that dtype, before the file appears, whole or not at all.

    Raises :class:`InputError` for weights beyond the dtype's range and where the file cannot be written,
    :class:`ResourceError` beyond 2 GiB, :class:`UnsupportedError` for operations without a counterpart and
    for labels, :class:`InternalError` where the copy differs.
    """
    if isinstance(network.oracle, Labelled):
        raise UnsupportedError("a model that answers with a label is not written: write one that ends in its scores")
    network = network.whole
    content = encode(network)
    copy = decode(content, str(path), network.name)
    original, shape = network.oracle or network, copy.nodes[-1].shape
    agree(replace(copy, oracle=lambda x: original(x).reshape(len(x), *shape)))
    replace_file(Path(path), content)
    return copy


def encode(network: Network) -> bytes:
    """The content of the file for ``network``."""
    from onnx import TensorProto, helper

    network = network.literal or network
    writer = Writer(network.dtype)
    values = ["input"]
    for position, node in enumerate(network.nodes[1:], start=1):
        shapes = [network.nodes[i].shape for i in node.inputs]
        last = position == len(network.nodes) - 1
        values.append(spell(node.op, writer, [values[i] for i in node.inputs], shapes, node.shape))
        if last:
            values[-1] = writer.node("Identity", values[-1], output="output")
    kind = TensorProto.DOUBLE if network.dtype is torch.float64 else TensorProto.FLOAT
    given = helper.make_tensor_value_info("input", kind, [BATCH, *network.input_shape])
    result = helper.make_tensor_value_info("output", kind, [BATCH, *network.nodes[-1].shape])
    graph = helper.make_graph(writer.nodes, network.name or "network", [given], [result], writer.constants)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR, producer_name="assay"
    )
    if model.ByteSize() > MAX_FILE:
        raise ResourceError(f"the network needs {model.ByteSize()} bytes; an ONNX file holds at most {MAX_FILE}")
    content: bytes = model.SerializeToString()
    return content


class Writer:
    """Collects nodes and constants, and names them."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def node(self, op: str, *inputs: str, output: str = "", attributes: dict[str, Any] | None = None) -> str:
        """Append a node; the name of its value."""
        from onnx import helper

        name = output or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes or {}))
        return name

    def constant(self, value: Tensor) -> str:
        """Append a constant, in the network's dtype if it is a floating one; its name."""
        from onnx import numpy_helper

        if value.is_floating_point():
            value = value.to(self.dtype)
            if not bool(value.isfinite().all()):
                raise InputError(f"the network has weights beyond the range of {self.dtype}")
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value.detach().cpu().contiguous().numpy(), name))
        return name

    def number(self, value: float) -> str:
        """Append a number; its name."""
        return self.constant(torch.tensor(value, dtype=torch.float64))

    def shape(self, *lengths: int) -> str:
        """Append whole numbers; their name."""
        return self.constant(torch.tensor(lengths, dtype=torch.int64))


Shapes = Sequence[tuple[int, ...]]


@singledispatch
def spell(op: Op, writer: Writer, inputs: Sequence[str], shapes: Shapes, shape: tuple[int, ...]) -> str:
    """Append the nodes of ``op``; the name of its value. ``shapes``: of one sample of the operands, ``shape``: of
    the value."""
    raise UnsupportedError(f"operation {op.label} cannot be written to ONNX")


@spell.register
def _(op: Linear, writer: Writer, inputs: Sequence[str], shapes: Shapes, shape: tuple[int, ...]) -> str:
    if len(shape) == 1:
        weight, bias = writer.constant(op.weight), writer.constant(op.bias)
        return writer.node("Gemm", *inputs, weight, bias, attributes={"transB": 1})
    product = writer.node("MatMul", *inputs, writer.constant(op.weight.T))
    return writer.node("Add", product, writer.constant(op.bias))


@spell.register
def _(op: Conv2d, writer: Writer, inputs: Sequence[str], shapes: Shapes, shape: tuple[int, ...]) -> str:
    attributes = _sliding(op)
    return writer.node("Conv", *inputs, writer.constant(op.weight), writer.constant(op.bias), attributes=attributes)


@spell.register
def _(op: ConvTranspose2d, writer: Writer, inputs: Sequence[str], shapes: Shapes, shape: tuple[int, ...]) -> str:
    attributes = {**_sliding(op), "output_padding": op.output_padding}
    weights = writer.constant(op.weight), writer.constant(op.bias)
    return writer.node("ConvTranspose", *inputs, *weights, attributes=attributes)


def _sliding(op: Conv2d | ConvTranspose2d) -> dict[str, Any]:
    return {
        "strides": op.stride,
        "pads": [*op.padding, *op.padding],
        "dilations": op.dilation,
        "group": op.groups,
        "kernel_shape": op.weight.shape[2:],
    }


@spell.register
def _(op: Scale, writer: Writer, inputs: Sequence[str], shapes: Shapes, shape: tuple[int, ...]) -> str:
    (x,) = inputs
    if bool((op.factor != 1).any()):
        x = writer.node("Mul", x, writer.constant(op.factor))
    return writer.node("Add", x, writer.constant(op.shift)) if bool((op.shift != 0).any()) else x


@spell.register
def _(op: LeakyRelu, writer: Writer, inputs: Sequence[str], shapes: Shapes, shape: tuple[int, ...]) -> str:
    return writer.node("LeakyRelu", *inputs, attributes={"alpha": op.slope})


@spell.register
def _(op: Max, writer: Writer, inputs: Sequence[str], shapes: Shapes, shape: tuple[int, ...]) -> str:
    return writer.node("ReduceMax", *inputs, attributes={"axes": [-1], "keepdims": 0})


@spell.register(Relu)
@spell.register(Add)
@spell.register(Sub)
def _(op: Op, writer: Writer, inputs: Sequence[str], shapes: Shapes, shape: tuple[int, ...]) -> str:
    return writer.node(op.label, *inputs)


@spell.register
def _(op: Smooth, writer: Writer, inputs: Sequence[str], shapes: Shapes, shape: tuple[int, ...]) -> str:
    (x,) = inputs
    if op.curve in ALONE:
        return writer.node(ALONE[op.curve], x)
    if op.curve not in COMPOSED:
        raise UnsupportedError(f"operation {op.label} cannot be written to ONNX")
    return COMPOSED[op.curve](writer, x, op.parameter)


# Curves that are one operation of the operator set, and that operation.
ALONE = {
    "arcsinh": "Asinh",
    "arctan": "Atan",
    "cos": "Cos",
    "cosh": "Cosh",
    "erf": "Erf",
    "exp": "Exp",
    "log": "Log",
    "reciprocal": "Reciprocal",
    "sigmoid": "Sigmoid",
    "sin": "Sin",
    "sinh": "Sinh",
    "softplus": "Softplus",
    "softsign": "Softsign",
    "sqrt": "Sqrt",
    "tanh": "Tanh",
}


def _elu(writer: Writer, x: str, parameter: float) -> str:
    return writer.node("Elu", x, attributes={"alpha": parameter})


def _gelu(writer: Writer, x: str, parameter: float) -> str:
    share = writer.node("Erf", writer.node("Mul", x, writer.number(math.sqrt(0.5))))
    return _half_of(writer, x, share)


def _gelu_tanh(writer: Writer, x: str, parameter: float) -> str:
    cube = writer.node("Mul", writer.node("Mul", x, writer.node("Mul", x, x)), writer.number(0.044715))
    inner = writer.node("Mul", writer.node("Add", x, cube), writer.number(math.sqrt(2 / math.pi)))
    return _half_of(writer, x, writer.node("Tanh", inner))


def _half_of(writer: Writer, x: str, share: str) -> str:
    """``x (1 + share) / 2``."""
    return writer.node("Mul", writer.node("Mul", x, writer.node("Add", share, writer.number(1.0))), writer.number(0.5))


def _hardswish(writer: Writer, x: str, parameter: float) -> str:
    share = writer.node("HardSigmoid", x, attributes={"alpha": 1 / 6, "beta": 0.5})
    return writer.node("Mul", x, share)


def _logsigmoid(writer: Writer, x: str, parameter: float) -> str:
    return writer.node("Neg", writer.node("Softplus", writer.node("Neg", x)))


def _mish(writer: Writer, x: str, parameter: float) -> str:
    return writer.node("Mul", x, writer.node("Tanh", writer.node("Softplus", x)))


def _power(writer: Writer, x: str, parameter: float) -> str:
    return writer.node("Pow", x, writer.number(parameter))


def _silu(writer: Writer, x: str, parameter: float) -> str:
    return writer.node("Mul", x, writer.node("Sigmoid", x))


def _square(writer: Writer, x: str, parameter: float) -> str:
    return writer.node("Mul", x, x)


COMPOSED: dict[str, Callable[[Writer, str, float], str]] = {
    "elu": _elu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "hardswish": _hardswish,
    "logsigmoid": _logsigmoid,
    "mish": _mish,
    "power": _power,
    "silu": _silu,
    "square": _square,
}


@spell.register
def _(op: Step, writer: Writer, inputs: Sequence[str], shapes: Shapes, shape: tuple[int, ...]) -> str:
    return writer.node(op.kind.capitalize(), *inputs)


@spell.register
def _(op: Product, writer: Writer, inputs: Sequence[str], shapes: Shapes, shape: tuple[int, ...]) -> str:
    sides = [writer.node("Gather", *inputs, writer.constant(torch.tensor(i)), attributes={"axis": -1}) for i in (0, 1)]
    return writer.node("Mul", *sides)


@spell.register
def _(op: Normalised, writer: Writer, inputs: Sequence[str], shapes: Shapes, shape: tuple[int, ...]) -> str:
    x, s = (writer.node("Gather", *inputs, writer.constant(torch.tensor(i)), attributes={"axis": -1}) for i in (0, 1))
    squares = writer.node("Add", writer.node("Mul", x, x), s)
    size = writer.node("Sqrt", writer.node("Mul", squares, writer.number(1 / op.count)))
    return writer.node("Div", x, size)


@spell.register
def _(op: InverseSumExp, writer: Writer, inputs: Sequence[str], shapes: Shapes, shape: tuple[int, ...]) -> str:
    total = writer.node("ReduceLogSumExp", *inputs, attributes={"axes": [-1], "keepdims": 0})
    return writer.node("Exp", writer.node("Neg", total))


@spell.register
def _(op: Reshape, writer: Writer, inputs: Sequence[str], shapes: Shapes, shape: tuple[int, ...]) -> str:
    return writer.node("Reshape", *inputs, writer.shape(-1, *shape))


@spell.register
def _(op: Gather, writer: Writer, inputs: Sequence[str], shapes: Shapes, shape: tuple[int, ...]) -> str:
    count, index = prod(shapes[0]), op.index
    x = writer.node("Reshape", *inputs, writer.shape(-1, count))
    if bool((index < 0).any()):  # one element more, which those that are filled take
        fill = writer.constant(torch.tensor(op.fill, dtype=torch.float64))
        x = writer.node("Pad", x, writer.shape(0, 0, 0, 1), fill)
        index = torch.where(index < 0, count, index)
    x = writer.node("Gather", x, writer.constant(index), attributes={"axis": 1})
    return writer.node("Reshape", x, writer.shape(-1, *shape))


@spell.register
def _(op: Concat, writer: Writer, inputs: Sequence[str], shapes: Shapes, shape: tuple[int, ...]) -> str:
    return writer.node("Concat", *inputs, attributes={"axis": op.axis + 1})
