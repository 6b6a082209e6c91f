"""The shapes of a node's outputs, whether or not it has a translation: what the package onnx infers of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from assay.verify.frontends.onnx.graph import GraphNode
from assay.verify.frontends.onnx.tensors import DTYPES

if TYPE_CHECKING:
    from onnx import ValueInfoProto

FEW = 1024  # elements of whole numbers whose values are told: shapes, axes, indices
TYPES = {dtype: kind for kind, dtype in DTYPES.items()}

Known = tuple[tuple[int, ...], torch.dtype] | None


def output_shapes(
    node: GraphNode, opset: int, operands: Sequence[Known], values: Sequence[Tensor | None]
) -> list[tuple[int, ...] | None]:
    """The shape of each output; None where it is not known, or has no elements.

    ``operands``: their shapes and dtypes, None where one is left out. ``values``: of those that are constant.
    """
    import onnx
    from onnx import helper, numpy_helper

    given = [
        helper.make_tensor_value_info(name, TYPES[known[1]], known[0])
        for name, known in dict(zip(node.inputs, operands, strict=True)).items()
        if name and known is not None
    ]
    told = [
        numpy_helper.from_array(value.numpy(), name)
        for name, value in dict(zip(node.inputs, values, strict=True)).items()
        if value is not None and value.dtype in (torch.int64, torch.int32) and value.numel() <= FEW
    ]
    results = [onnx.ValueInfoProto(name=name) for name in node.outputs if name]
    graph = helper.make_graph([node.proto], "node", given, results, told)
    domain = node.proto.domain
    versions = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    try:
        inferred = onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=versions))
    except Exception:  # whatever is wrong with the node is not what was asked
        return [None] * len(node.outputs)
    shapes = {value.name: _shape(value) for value in inferred.graph.output}
    return [shapes.get(name) for name in node.outputs]


def _shape(value: ValueInfoProto) -> tuple[int, ...] | None:
    kind = value.type.tensor_type
    shape = tuple(dim.dim_value for dim in kind.shape.dim)
    return shape if kind.HasField("shape") and all(n > 0 for n in shape) else None
