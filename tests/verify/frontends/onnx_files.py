"""Small ONNX models for tests, built node by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from assay.verify.core.network import Network
from assay.verify.frontends.onnx import read_onnx
from tests.nets import generator

Node = onnx.NodeProto
Shape = Sequence[int | str | None]


def numbers(seed: int, *shape: int) -> np.ndarray[Any, Any]:
    """Normal float32 numbers."""
    return torch.randn(shape, generator=generator(seed)).numpy()


def ints(*values: int) -> np.ndarray[Any, Any]:
    """An int64 vector."""
    return np.array(values, dtype=np.int64)


def model(
    nodes: Sequence[Node],
    shape: Shape,
    constants: Mapping[str, Any] | None = None,
    opset: int = 13,
    kind: int = TensorProto.FLOAT,
    output: str = "y",
) -> onnx.ModelProto:
    """A model with the input x, the output y, and initialisers; the shape of y is left open."""
    given = helper.make_tensor_value_info("x", kind, shape)
    result = helper.make_tensor_value_info(output, kind, None)
    arrays = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "graph", [given], [result], arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def one(
    op: str,
    shape: Shape,
    *constants: Any,
    opset: int = 13,
    kind: int = TensorProto.FLOAT,
    place: int = 0,
    **attributes: Any,
) -> onnx.ModelProto:
    """A model of one node: x is its operand ``place``, the constants are the others; None leaves one out."""
    names = [f"c{i}" if c is not None else "" for i, c in enumerate(constants)]
    names.insert(place, "x")
    given = {f"c{i}": c for i, c in enumerate(constants) if c is not None}
    return model([helper.make_node(op, names, ["y"], name="node", **attributes)], shape, given, opset, kind)


def save(folder: Path, proto: onnx.ModelProto) -> Path:
    """The model as a file."""
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def run(proto: onnx.ModelProto, x: Tensor) -> Tensor:
    """What onnxruntime makes of x, in the shape that the file gives it."""
    import onnxruntime

    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


def check(folder: Path, proto: onnx.ModelProto, shape: Sequence[int], seed: int = 0) -> Network:
    """Read the model, compare network and oracle with onnxruntime at x of ``shape`` (a batch of one), and return it."""
    network = read_onnx(save(folder, proto))
    for k in range(3):
        x = 2 * torch.randn(tuple(shape), generator=generator(seed + k), dtype=network.dtype)
        true = run(proto, x)
        sample = x.reshape(1, *network.input_shape)
        output = network(sample.double()).flatten()
        torch.testing.assert_close(output, true.double().flatten(), rtol=1e-4, atol=1e-4)
        assert network.oracle is not None
        torch.testing.assert_close(network.oracle(sample).flatten(), true.flatten(), rtol=1e-5, atol=1e-5)
        assert network.nodes[-1].shape in (tuple(true.shape) or (1,), tuple(true.shape[1:]) or (1,))
    return network
