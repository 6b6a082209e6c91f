"""Tests of the operations that are read from ONNX: each must give what onnxruntime gives, whatever its attributes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from assay.verify.core.budget import Budget
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.ops import Conv2d, ConvTranspose2d, Linear, Relu, Reshape, Scale
from assay.verify.core.region import Box
from assay.verify.frontends.onnx import read_onnx
from assay.verify.registry import get_bounder
from tests.nets import generator
from tests.verify.frontends.onnx_files import check, ints, model, numbers, one, save

IMAGE = (1, 2, 5, 6)
LINE = (1, 2, 9)
VECTOR = (1, 6)

F64 = TensorProto.DOUBLE


def vectors() -> dict[str, onnx.ModelProto]:
    """Layers and arithmetic on one row of six numbers."""
    w, v = numbers(0, 6, 4), numbers(1, 4)
    return {
        "MatMul": one("MatMul", VECTOR, w),
        "MatMul-vector": one("MatMul", VECTOR, numbers(0, 6)),
        "MatMul-stack-of-one": one("MatMul", VECTOR, w[None]),
        "Gemm": one("Gemm", VECTOR, w, v),
        "Gemm-no-bias": one("Gemm", VECTOR, w),
        "Gemm-transB": one("Gemm", VECTOR, w.T.copy(), v, transB=1),
        "Gemm-alpha-beta": one("Gemm", VECTOR, w, v, alpha=0.5, beta=-2.0),
        "Gemm-scalar-bias": one("Gemm", VECTOR, w, np.float32(3)),
        "Gemm-row-bias": one("Gemm", VECTOR, w, v[None]),
        "Gemm-one-bias": one("Gemm", VECTOR, w, v[:1]),
        "Gemm-transA-left": one("Gemm", VECTOR, numbers(0, 1, 4), place=1, transA=1),
        "Add": one("Add", VECTOR, numbers(0, 6)),
        "Add-left": one("Add", VECTOR, numbers(0, 1, 6), place=1),
        "Add-scalar": one("Add", VECTOR, np.float32(0.3)),
        "Add-widens": one("Add", VECTOR, numbers(0, 3, 1)),
        "Add-more-axes": one("Add", VECTOR, numbers(0, 2, 1, 6)),
        "Sub": one("Sub", VECTOR, numbers(0, 6)),
        "Sub-left": one("Sub", VECTOR, numbers(0, 6), place=1),
        "Mul": one("Mul", VECTOR, numbers(0, 6)),
        "Mul-left": one("Mul", VECTOR, np.float32(-3), place=1),
        "Mul-widens": one("Mul", VECTOR, numbers(0, 2, 6)),
        "Div": one("Div", VECTOR, np.array([0.1, 3, -7, 2, 0.3, 1], dtype=np.float32)),
        "Neg": one("Neg", VECTOR),
        "Sum": one("Sum", VECTOR, numbers(0, 6), numbers(1, 1)),
        "Sum-of-one": one("Sum", VECTOR),
        "Relu": one("Relu", VECTOR),
        "LeakyRelu": one("LeakyRelu", VECTOR),
        "LeakyRelu-alpha": one("LeakyRelu", VECTOR, alpha=0.3),
        "LeakyRelu-steep": one("LeakyRelu", VECTOR, alpha=2.0),
        "LeakyRelu-negative": one("LeakyRelu", VECTOR, alpha=-0.5),
        "PRelu": one("PRelu", VECTOR, numbers(3, 6)),
        "PRelu-one": one("PRelu", VECTOR, np.array([0.25], dtype=np.float32)),
        "PRelu-one-negative": one("PRelu", VECTOR, np.array([-1.5], dtype=np.float32)),
        "Abs": one("Abs", VECTOR),
        "Max-scalar": one("Max", VECTOR, np.float32(0.3)),
        "Max-left": one("Max", VECTOR, numbers(3, 6), place=1),
        "Max-three": one("Max", VECTOR, numbers(3, 6), numbers(4, 1)),
        "Max-widens": one("Max", VECTOR, numbers(3, 2, 1)),
        "Max-of-one": one("Max", VECTOR),
        "Max-below-all": one("Max", VECTOR, np.full((2, 6), -np.inf, dtype=np.float32)),
        "Min-scalar": one("Min", VECTOR, np.float32(-0.3)),
        "Min-above-all": one("Min", VECTOR, np.float32(np.inf)),
        "Min-three": one("Min", VECTOR, numbers(3, 6), numbers(4, 6)),
        "Mean": one("Mean", VECTOR, numbers(3, 6), numbers(4, 6)),
        "Mean-constants-first": one("Mean", VECTOR, numbers(3, 6), numbers(4, 2, 1), place=2),
        "Where": one("Where", VECTOR, np.arange(6) % 2 == 0, numbers(3, 6), place=1),
        "Where-left": one("Where", VECTOR, np.arange(12).reshape(2, 6) % 5 < 2, numbers(3, 1, 1), place=2),
        "HardSigmoid": one("HardSigmoid", VECTOR),
        "HardSigmoid-steep": one("HardSigmoid", VECTOR, alpha=2.0, beta=-0.5),
        "ReduceMin": one("ReduceMin", VECTOR, axes=[1]),
        "ReduceL1": one("ReduceL1", VECTOR, axes=[1], keepdims=0),
        "Sigmoid": one("Sigmoid", VECTOR),
        "Tanh": one("Tanh", VECTOR),
        "Clip": one("Clip", VECTOR, np.float32(-0.5), np.float32(1.25)),
        "Clip-relu6": one("Clip", VECTOR, np.float32(0), np.float32(6)),
        "Clip-low": one("Clip", VECTOR, np.float32(0.5)),
        "Clip-high": one("Clip", VECTOR, None, np.float32(0.5)),
        "Clip-below-all": one("Clip", VECTOR, np.float32(-np.inf), np.float32(0.5)),
        "Clip-no-ends": one("Clip", VECTOR, np.float32(-np.inf), np.float32(np.inf)),
        "Clip-far": one("Clip", VECTOR, np.float32(-1e10), np.float32(1e10)),
        "Clip-far-below": one("Clip", VECTOR, np.float32(-1e30)),
        "Clip-always": one("Clip", VECTOR, np.float32(1e10)),
        "Clip-none": one("Clip", VECTOR),
        "Clip-one-point": one("Clip", VECTOR, np.float32(0.5), np.float32(0.5)),
        "Clip-attributes": one("Clip", VECTOR, opset=9, min=-0.5, max=0.75),
        "Clip-attribute": one("Clip", VECTOR, opset=9, min=-0.5),
        "Identity": one("Identity", VECTOR),
        "Dropout": one("Dropout", VECTOR),
        "Dropout-ratio": one("Dropout", VECTOR, opset=10, ratio=0.9),
        "Dropout-seed": one("Dropout", VECTOR, np.float32(0.9), np.array(False), seed=3),
        "Cast": one("Cast", VECTOR, to=TensorProto.FLOAT),
        "BatchNormalization": one("BatchNormalization", VECTOR, *(abs(numbers(i, 6)) for i in range(4))),
        "double": one("Gemm", VECTOR, w.astype(np.float64), v.astype(np.float64), kind=F64),
        "double-Sigmoid": one("Sigmoid", VECTOR, kind=F64),
    }


@pytest.mark.parametrize("name", vectors())
def test_layers_on_vectors(name: str, tmp_path: Path) -> None:
    check(tmp_path, vectors()[name], VECTOR)


def moves() -> dict[str, tuple[onnx.ModelProto, tuple[int, ...]]]:
    """What only moves values around, with the shape of x."""
    return {
        "Flatten": (one("Flatten", IMAGE), IMAGE),
        "Flatten-axis-0": (one("Flatten", IMAGE, axis=0), IMAGE),
        "Flatten-axis-2": (one("Flatten", IMAGE, axis=2), IMAGE),
        "Flatten-negative": (one("Flatten", IMAGE, axis=-1), IMAGE),
        "Reshape": (one("Reshape", IMAGE, ints(1, -1)), IMAGE),
        "Reshape-copies": (one("Reshape", IMAGE, ints(0, -1, 6)), IMAGE),
        "Reshape-flat": (one("Reshape", IMAGE, ints(-1)), IMAGE),
        "Reshape-more-rows": (one("Reshape", IMAGE, ints(5, 12)), IMAGE),
        "Reshape-allowzero": (one("Reshape", IMAGE, ints(1, 60), opset=14, allowzero=1), IMAGE),
        "Transpose": (one("Transpose", IMAGE), IMAGE),
        "Transpose-nhwc": (one("Transpose", IMAGE, perm=[0, 2, 3, 1]), IMAGE),
        "Transpose-batch": (one("Transpose", IMAGE, perm=[2, 0, 1, 3]), IMAGE),
        "Squeeze": (one("Squeeze", (1, 1, 6, 1)), (1, 1, 6, 1)),
        "Squeeze-axes": (one("Squeeze", (1, 1, 6, 1), ints(1, -1)), (1, 1, 6, 1)),
        "Squeeze-batch": (one("Squeeze", (1, 1, 6, 1), ints(0)), (1, 1, 6, 1)),
        "Squeeze-attribute": (one("Squeeze", (1, 1, 6, 1), opset=11, axes=[1]), (1, 1, 6, 1)),
        "Unsqueeze": (one("Unsqueeze", VECTOR, ints(1, -1)), VECTOR),
        "Unsqueeze-front": (one("Unsqueeze", VECTOR, ints(0)), VECTOR),
        "Unsqueeze-attribute": (one("Unsqueeze", VECTOR, opset=11, axes=[0, 3]), VECTOR),
        "Concat-constant": (one("Concat", IMAGE, numbers(0, 1, 1, 5, 6), axis=1), IMAGE),
        "Concat-constant-first": (one("Concat", IMAGE, numbers(0, 1, 2, 5, 1), place=1, axis=-1), IMAGE),
        "Concat-batch": (one("Concat", IMAGE, numbers(0, *IMAGE), axis=0), IMAGE),
        "Concat-one": (one("Concat", IMAGE, axis=1), IMAGE),
        "Slice": (one("Slice", IMAGE, ints(1), ints(4), ints(2)), IMAGE),
        "Slice-all-axes": (one("Slice", IMAGE, ints(0, 1), ints(1, 2)), IMAGE),
        "Slice-beyond": (one("Slice", IMAGE, ints(-3, 0), ints(2**31 - 1, 99), ints(-1, 2)), IMAGE),
        "Slice-steps": (one("Slice", IMAGE, ints(0, 1), ints(5, 6), ints(2, 3), ints(2, 3)), IMAGE),
        "Slice-backwards": (one("Slice", IMAGE, ints(-1), ints(-(2**31)), ints(3), ints(-2)), IMAGE),
        "Slice-attributes": (one("Slice", IMAGE, opset=9, starts=[1], ends=[-1], axes=[3]), IMAGE),
        "Gather": (one("Gather", IMAGE, ints(1, 0, 1), axis=1), IMAGE),
        "Gather-scalar": (one("Gather", IMAGE, np.int64(1), axis=1), IMAGE),
        "Gather-negative": (one("Gather", IMAGE, np.array([[-1, 0], [2, 2]]), axis=-2), IMAGE),
        "Gather-batch": (one("Gather", IMAGE, ints(0, 0)), IMAGE),
        "Expand": (one("Expand", (1, 1, 6), ints(3, 1)), (1, 1, 6)),
        "Expand-more-axes": (one("Expand", (1, 1, 6), ints(2, 1, 3, 1)), (1, 1, 6)),
        "Tile": (one("Tile", (1, 2, 3), ints(1, 2, 2)), (1, 2, 3)),
        "Tile-batch": (one("Tile", (1, 2, 3), ints(3, 1, 1)), (1, 2, 3)),
        "Pad": (one("Pad", IMAGE, ints(0, 0, 1, 2, 0, 0, 0, 1)), IMAGE),
        "Pad-value": (one("Pad", IMAGE, ints(0, 1, 1, 2, 0, 0, 3, 1), np.float32(0.7)), IMAGE),
        "Pad-batch": (one("Pad", IMAGE, ints(1, 0, 0, 0, 0, 0, 0, 0), np.float32(0.7)), IMAGE),
        "Pad-crops": (one("Pad", IMAGE, ints(0, 0, -1, 1, 0, 0, -2, 0), np.float32(0.7)), IMAGE),
        "Pad-nothing": (one("Pad", IMAGE, ints(*[0] * 8)), IMAGE),
        "Pad-reflect": (one("Pad", IMAGE, ints(0, 0, 3, 2, 0, 0, 1, 4), mode="reflect"), IMAGE),
        "Pad-edge": (one("Pad", IMAGE, ints(0, 0, 3, 2, 0, 0, 1, 4), mode="edge"), IMAGE),
        "Pad-wrap": (one("Pad", IMAGE, ints(0, 0, 3, 2, 0, 0, 1, 4), mode="wrap", opset=19), IMAGE),
        "Pad-attributes": (one("Pad", IMAGE, opset=10, pads=[0, 0, 1, 0, 0, 0, 0, 2], value=-1.5), IMAGE),
        "Pad-axes": (one("Pad", IMAGE, ints(1, 2), None, ints(-1), opset=18), IMAGE),
        "DepthToSpace": (one("DepthToSpace", (1, 8, 2, 3), blocksize=2), (1, 8, 2, 3)),
        "SpaceToDepth": (one("SpaceToDepth", (1, 2, 4, 6), blocksize=2), (1, 2, 4, 6)),
        "GatherElements": (one("GatherElements", IMAGE, np.full((1, 2, 4, 6), -3), axis=2), IMAGE),
        "GatherND": (one("GatherND", IMAGE, np.array([[0, 1, -1], [0, 0, 2]])), IMAGE),
        "DepthToSpace-crd": (one("DepthToSpace", (1, 8, 2, 3), blocksize=2, mode="CRD"), (1, 8, 2, 3)),
    }


@pytest.mark.parametrize("name", moves())
def test_moves(name: str, tmp_path: Path) -> None:
    check(tmp_path, *moves()[name])


WINDOWS: list[dict[str, Any]] = [
    {},
    {"strides": [2, 1]},
    {"pads": [1, 1, 1, 1]},
    {"pads": [1, 0, 0, 2]},
    {"pads": [0, 1, 1, 1], "strides": [2, 3]},
    {"dilations": [2, 1]},
    {"dilations": [1, 2], "pads": [2, 2, 0, 1], "strides": [1, 2]},
    {"auto_pad": "VALID", "strides": [2, 2]},
    {"auto_pad": "SAME_UPPER"},
    {"auto_pad": "SAME_LOWER"},
    {"auto_pad": "SAME_UPPER", "strides": [2, 3]},
    {"auto_pad": "SAME_LOWER", "strides": [3, 2]},
    {"auto_pad": "NOTSET", "pads": [1, 1, 0, 0]},
]


@pytest.mark.parametrize("kernel", [(3, 2), (2, 3), (1, 1), (4, 4)], ids=str)
@pytest.mark.parametrize("options", WINDOWS, ids=str)
def test_convolutions(options: dict[str, Any], kernel: tuple[int, int], tmp_path: Path) -> None:
    if kernel == (4, 4) and "dilations" in options and "pads" not in options:
        options = {**options, "pads": [1, 1, 1, 1]}
    proto = one("Conv", IMAGE, numbers(0, 3, 2, *kernel), numbers(1, 3), kernel_shape=list(kernel), **options)
    check(tmp_path, proto, IMAGE)


def test_kinds_of_convolutions(tmp_path: Path) -> None:
    check(tmp_path, one("Conv", IMAGE, numbers(0, 4, 1, 3, 3), group=2), IMAGE)
    check(tmp_path, one("Conv", LINE, numbers(0, 4, 2, 3), numbers(1, 4), pads=[1, 2], strides=[2]), LINE)
    check(tmp_path, one("Conv", LINE, numbers(0, 4, 2, 3), strides=[2], auto_pad="SAME_UPPER"), LINE)


def test_symmetric_padding_stays_in_the_convolution(tmp_path: Path) -> None:
    network = check(tmp_path, one("Conv", IMAGE, numbers(0, 3, 2, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2]), IMAGE)
    assert [type(node.op) for node in network.nodes[1:]] == [Conv2d]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strides": [2, 3]},
        {"strides": [2, 2], "pads": [1, 1, 1, 1]},
        {"strides": [2, 2], "pads": [0, 1, 1, 0]},
        {"strides": [2, 2], "output_padding": [1, 0]},
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
        {"dilations": [2, 1], "pads": [1, 0, 1, 0]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
        {"auto_pad": "VALID"},
        {"strides": [2, 2], "output_shape": [9, 11]},
        {"group": 2},
    ],
    ids=str,
)
def test_transposed_convolutions(options: dict[str, Any], tmp_path: Path) -> None:
    proto = one("ConvTranspose", IMAGE, numbers(0, 2, 3, 3, 3), numbers(1, 3 * options.get("group", 1)), **options)
    check(tmp_path, proto, IMAGE)


def test_symmetric_crops_stay_in_the_transposed_convolution(tmp_path: Path) -> None:
    proto = one("ConvTranspose", IMAGE, numbers(0, 2, 3, 3, 3), strides=[2, 2], pads=[1, 2, 1, 2])
    assert [type(node.op) for node in check(tmp_path, proto, IMAGE).nodes[1:]] == [ConvTranspose2d]


def test_transposed_convolution_of_a_sequence(tmp_path: Path) -> None:
    check(tmp_path, one("ConvTranspose", LINE, numbers(0, 2, 3, 3), strides=[2], pads=[1, 0]), LINE)


POOLS = [o for o in WINDOWS if "dilations" not in o] + [
    {"ceil_mode": 1, "strides": [2, 2]},
    {"ceil_mode": 1, "strides": [3, 2], "pads": [1, 1, 1, 1]},
    {"ceil_mode": 1, "strides": [2, 4], "pads": [0, 1, 1, 0]},
]


@pytest.mark.parametrize("kernel", [(3, 3), (2, 3)], ids=str)
@pytest.mark.parametrize("options", [o for o in POOLS if o.get("pads") != [1, 0, 0, 2]], ids=str)
def test_max_pools(options: dict[str, Any], kernel: tuple[int, int], tmp_path: Path) -> None:
    check(tmp_path, one("MaxPool", IMAGE, kernel_shape=list(kernel), **options), IMAGE)


@pytest.mark.parametrize("counted", [0, 1])
@pytest.mark.parametrize("kernel", [(3, 2), (2, 3)], ids=str)
@pytest.mark.parametrize("options", [o for o in POOLS if o.get("pads") != [1, 0, 0, 2]], ids=str)
def test_average_pools(options: dict[str, Any], kernel: tuple[int, int], counted: int, tmp_path: Path) -> None:
    opset = 19
    proto = one("AveragePool", IMAGE, opset=opset, kernel_shape=list(kernel), count_include_pad=counted, **options)
    check(tmp_path, proto, IMAGE)


def test_other_pools(tmp_path: Path) -> None:
    check(tmp_path, one("MaxPool", LINE, kernel_shape=[3], strides=[2], pads=[1, 0]), LINE)
    check(tmp_path, one("MaxPool", IMAGE, opset=12, kernel_shape=[2, 2], dilations=[2, 3], storage_order=1), IMAGE)
    check(tmp_path, one("AveragePool", LINE, kernel_shape=[3], strides=[2], pads=[1, 0]), LINE)
    check(tmp_path, one("AveragePool", IMAGE, opset=19, kernel_shape=[2, 2], dilations=[2, 3]), IMAGE)
    check(tmp_path, one("GlobalAveragePool", IMAGE), IMAGE)
    check(tmp_path, one("GlobalAveragePool", LINE), LINE)
    check(tmp_path, one("GlobalMaxPool", IMAGE), IMAGE)


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceMax"])
@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("axes", [[2, 3], [1], [-1], [1, 3], [0, 2], None], ids=str)
def test_reductions(op: str, keep: int, axes: list[int] | None, tmp_path: Path) -> None:
    given = {} if axes is None else {"axes": axes}
    check(tmp_path, one(op, IMAGE, keepdims=keep, **given), IMAGE)
    if axes:
        check(tmp_path, one(op, IMAGE, ints(*axes), opset=18, keepdims=keep), IMAGE)
    if op == "ReduceMean":
        check(tmp_path, one("ReduceSum", IMAGE, None if axes is None else ints(*axes), keepdims=keep), IMAGE)


def test_a_reduction_over_no_axes(tmp_path: Path) -> None:
    check(tmp_path, one("ReduceSum", IMAGE, noop_with_empty_axes=1), IMAGE)


@pytest.mark.parametrize("shape", [IMAGE, LINE, VECTOR], ids=str)
def test_batch_normalisation(shape: tuple[int, ...], tmp_path: Path) -> None:
    n = shape[1]
    given = (numbers(0, n), numbers(1, n), numbers(2, n), abs(numbers(3, n)))
    check(tmp_path, one("BatchNormalization", shape, *given, epsilon=0.01, momentum=0.8), shape)


def test_batch_normalisation_is_folded(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"]),
        helper.make_node("BatchNormalization", ["h", "g", "b", "m", "v"], ["n"]),
        helper.make_node("Relu", ["n"], ["y"]),
    ]
    constants = {"w": numbers(0, 3, 2, 3, 3), **{name: abs(numbers(i, 3)) for i, name in enumerate("gbmv")}}
    network = check(tmp_path, model(nodes, IMAGE, constants), IMAGE)
    assert [type(node.op) for node in network.nodes[1:]] == [Conv2d, Relu]


def test_a_matrix_and_a_bias_become_one_layer(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Add", ["h", "b"], ["y"])]
    network = check(tmp_path, model(nodes, VECTOR, {"w": numbers(0, 6, 3), "b": numbers(1, 3)}), VECTOR)
    assert [type(node.op) for node in network.nodes[1:]] == [Linear]


COLUMN = (6, 1)


@pytest.mark.parametrize(
    ("proto", "shape"),
    [
        (one("MatMul", COLUMN, numbers(0, 4, 6), place=1), COLUMN),
        (one("MatMul", (6,), numbers(0, 4, 6), place=1), (6,)),
        (one("MatMul", (6,), numbers(0, 6), place=1), (6,)),
        (one("MatMul", (6,), numbers(0, 6, 4)), (6,)),
        (one("MatMul", COLUMN, numbers(0, 6), place=1), COLUMN),
        (one("MatMul", (6, 3), numbers(0, 1, 4, 6), place=1), (6, 3)),
        (one("MatMul", (2, 5, 6), numbers(0, 6, 3)), (2, 5, 6)),
        (one("MatMul", (1, 5, 6), numbers(0, 1, 6, 3)), (1, 5, 6)),
        (one("Gemm", COLUMN, numbers(0, 6, 4), numbers(1, 4, 1), place=1, transA=1), COLUMN),
        (one("Gemm", COLUMN, numbers(0, 6, 4), numbers(1, 4), transA=1), COLUMN),
        (one("Gemm", (3, 6), numbers(0, 6, 4), numbers(1, 3, 1)), (3, 6)),
        (one("Gemm", (3, 6), numbers(0, 6, 4), numbers(1, 3, 4)), (3, 6)),
    ],
)
def test_products_on_either_side(proto: onnx.ModelProto, shape: tuple[int, ...], tmp_path: Path) -> None:
    assert check(tmp_path, proto, shape).input_shape == (shape if shape[0] != 1 else shape[1:])


def test_a_product_of_constants_plus_a_value_is_not_read(tmp_path: Path) -> None:
    path = save(tmp_path, one("Gemm", VECTOR, numbers(0, 1, 3), numbers(1, 3, 6), place=2))
    with pytest.raises(UnsupportedError, match="of constants"):
        read_onnx(path)


def test_two_values_are_added_and_subtracted_where_they_broadcast(tmp_path: Path) -> None:
    for op in ("Add", "Sub", "Sum"):
        nodes = [helper.make_node("ReduceMean", ["x"], ["m"], axes=[2, 3]), helper.make_node(op, ["x", "m"], ["y"])]
        check(tmp_path, model(nodes, IMAGE), IMAGE)
        nodes = [helper.make_node("ReduceMean", ["x"], ["m"], axes=[1]), helper.make_node(op, ["m", "x"], ["y"])]
        check(tmp_path, model(nodes, IMAGE), IMAGE)


def test_split(tmp_path: Path) -> None:
    join = helper.make_node("Concat", ["b", "a"], ["y"], axis=1)
    for opset, given, attributes in (
        (11, [], {"split": [2, 4]}),
        (13, ["s"], {}),
        (13, [], {}),
        (18, [], {"num_outputs": 2}),
    ):
        node = helper.make_node("Split", ["x", *given], ["a", "b"], axis=1, **attributes)
        check(tmp_path, model([node, join], VECTOR, {"s": ints(2, 4)}, opset), VECTOR)
    uneven = [
        helper.make_node("Split", ["x"], ["a", "b", "c", "d"], axis=-1, num_outputs=4),
        helper.make_node("Concat", ["d", "c", "b", "a"], ["y"], axis=-1),
    ]
    check(tmp_path, model(uneven, (1, 7), opset=18), (1, 7))


def test_concatenation_of_values(tmp_path: Path) -> None:
    for axis in (0, 1, 2, -1):
        nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Concat", ["h", "x"], ["y"], axis=axis)]
        check(tmp_path, model(nodes, IMAGE), IMAGE)
    rows = [
        helper.make_node("Reshape", ["x", "s"], ["h"]),
        helper.make_node("Concat", ["h", "h"], ["y"], axis=1),
    ]
    check(tmp_path, model(rows, IMAGE, {"s": ints(5, 12)}), IMAGE)


def test_casts_that_are_exact(tmp_path: Path) -> None:
    """Weights of fewer bits are widened; a value goes from float to double."""
    half = numbers(0, 6, 3).astype(np.float16)
    nodes = [
        helper.make_node("Cast", ["w"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "f"], ["y"]),
    ]
    network = check(tmp_path, model(nodes, VECTOR, {"w": half}), VECTOR)
    (linear,) = [node.op for node in network.nodes if isinstance(node.op, Linear)]
    assert torch.equal(linear.weight, torch.from_numpy(half).double().T)
    integers = np.arange(-9, 9, dtype=np.int8).reshape(6, 3)
    check(tmp_path, model(nodes, VECTOR, {"w": integers}), VECTOR)
    wide = [helper.make_node("Cast", ["x"], ["d"], to=F64), helper.make_node("MatMul", ["d", "w"], ["y"])]
    proto = model(wide, VECTOR, {"w": numbers(0, 6, 3).astype(np.float64)})
    proto.graph.output[0].type.tensor_type.elem_type = F64
    check(tmp_path, proto, VECTOR)


@pytest.mark.parametrize("op", ["Max", "Min", "Mean"])
def test_values_that_broadcast_against_each_other(op: str, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Reshape", ["h", "s"], ["c"]),
        helper.make_node(op, ["c", "x", "k"], ["y"]),
    ]
    check(tmp_path, model(nodes, VECTOR, {"w": numbers(0, 6, 3), "s": ints(3, 1), "k": numbers(1, 6)}), VECTOR)


def test_far_ends_of_a_clip_take_no_digits(tmp_path: Path) -> None:
    network = check(tmp_path, one("Clip", VECTOR, np.float32(-1e10), np.float32(1e10)), VECTOR)
    x = torch.rand(9, 6, generator=generator(0), dtype=torch.float64)
    assert torch.equal(network(x), x)


def test_affine_operations_of_scikit_learn(tmp_path: Path) -> None:
    domain = {"domain": "ai.onnx.ml"}
    nodes = [
        helper.make_node("Scaler", ["x"], ["a"], offset=[0.5, -1.0, 0, 0, 2, 3], scale=[2.0, 1, 1, 3, 1, -1], **domain),
        helper.make_node(
            "LinearRegressor",
            ["a"],
            ["y"],
            coefficients=numbers(0, 12).tolist(),
            intercepts=[0.5, -2.0],
            targets=2,
            **domain,
        ),
    ]
    proto = model(nodes, VECTOR)
    for version, name in ((1, "ai.onnx.ml"), (13, ""), (1, "ai.onnx.ml")):
        proto.opset_import.append(helper.make_opsetid(name, version))
    check(tmp_path, proto, VECTOR)
    proto.graph.node[1].attribute.append(helper.make_attribute("post_transform", "PROBIT"))
    with pytest.raises(UnsupportedError, match="post_transform 'PROBIT'"):
        read_onnx(save(tmp_path, proto))


# What depends on constants and shapes only.


def foldable() -> dict[str, onnx.ModelProto]:
    """Networks of which a part can be computed beforehand."""
    node = helper.make_node
    w, v = numbers(0, 6, 3), abs(numbers(1, 6)) + 0.5
    batch = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"]),
        node("Unsqueeze", ["n", "first"], ["n1"]),
        node("Concat", ["n1", "minus"], ["target"], axis=0),
        node("Reshape", ["x", "target"], ["y"]),
    ]
    parts = [
        node("Add", ["v", "e"], ["u"]),
        node("Sqrt", ["u"], ["s"]),
        node("Reciprocal", ["s"], ["r"]),
        node("Mul", ["g", "r"], ["f"]),
        node("Mul", ["x", "f"], ["y"]),
    ]
    attributes = [
        node("Constant", [], ["a"], value_floats=[1.0, 2.0, 3.0, -1.0, 0.5, 0.25]),
        node("Constant", [], ["b"], value_float=0.1),
        node("Mul", ["x", "a"], ["h"]),
        node("Add", ["h", "b"], ["y"]),
    ]
    value = onnx.numpy_helper.from_array(np.array([2.5], np.float32))
    filled = [node("ConstantOfShape", ["s"], ["c"], value=value), node("Mul", ["x", "c"], ["y"])]
    counted = [
        node("Range", ["a", "b", "c"], ["i"]),
        node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        node("Mul", ["x", "f"], ["y"]),
    ]
    chosen = [
        node("Greater", ["v", "e"], ["m"]),
        node("Where", ["m", "v", "g"], ["c"]),
        node("Sub", ["x", "c"], ["y"]),
    ]
    whole = [
        node("Size", ["x"], ["n"]),
        node("Div", ["n", "four"], ["d"]),
        node("Unsqueeze", ["d", "first"], ["d1"]),
        node("Concat", ["d1", "m"], ["s"], axis=0),
        node("Reshape", ["x", "s"], ["y"]),
    ]
    bytes_, zeros = np.arange(-90, 90, 30, dtype=np.int8), np.array([1, -2, 0, 5, 7, -128], dtype=np.int8)
    stored = [node("DequantizeLinear", ["w", "s", "z"], ["v"], axis=0), node("Mul", ["x", "v"], ["y"])]
    stored_whole = [node("DequantizeLinear", ["w", "s"], ["v"]), node("Mul", ["x", "v"], ["y"])]
    first, minus = ints(0), ints(-1)
    turned = [node("Transpose", ["wt"], ["w"]), node("MatMul", ["x", "w"], ["y"])]
    multiplied = [node("MatMul", ["w", "u"], ["p"]), node("MatMul", ["x", "p"], ["y"])]
    rectified = [node("Relu", ["w"], ["p"]), node("MatMul", ["x", "p"], ["y"])]
    steps = {"a": np.int64(1), "b": np.int64(13), "c": np.int64(2)}
    return {
        "batch-of-shape": model(batch, VECTOR, {"zero": np.int64(0), "first": first, "minus": minus}),
        "weights-transposed": model(turned, VECTOR, {"wt": w.T.copy()}),
        "weights-multiplied": model(multiplied, VECTOR, {"w": w, "u": numbers(2, 3, 2)}),
        "weights-rectified": model(rectified, VECTOR, {"w": w}),
        "normalisation-in-parts": model(parts, VECTOR, {"v": v, "e": np.float32(1e-5), "g": numbers(3, 6)}),
        "constant-nodes": model(attributes, VECTOR),
        "filled": model(filled, VECTOR, {"s": ints(1, 6)}),
        "range": model(counted, VECTOR, steps),
        "where": model(chosen, VECTOR, {"v": v, "e": np.float32(1), "g": numbers(3, 6)}),
        "dequantised": model(stored, VECTOR, {"w": bytes_, "s": np.float32(0.1), "z": np.int8(3)}),
        "dequantised-by-element": model(stored, VECTOR, {"w": bytes_, "s": abs(numbers(5, 6)), "z": zeros}),
        "dequantised-about-zero": model(stored_whole, VECTOR, {"w": bytes_.astype(np.int32), "s": np.float32(0.1)}),
        "whole-numbers": model(whole, VECTOR, {"four": np.int64(4), "first": first, "m": minus}),
    }


@pytest.mark.parametrize("name", foldable())
def test_constants_are_folded(name: str, tmp_path: Path) -> None:
    network = check(tmp_path, foldable()[name], VECTOR)
    assert len(network.nodes) <= 2
    assert all(isinstance(node.op, (Linear, Scale, Reshape)) for node in network.nodes[1:])


@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin", "ReduceL1", "ReduceSum"])
def test_single_numbers_in_the_midst_of_a_network_have_bounds(op: str, tmp_path: Path) -> None:
    """A maximum over everything is one number; what follows it counts it as a vector of one."""
    nodes = [
        helper.make_node(op, ["x"], ["m"], keepdims=0),
        helper.make_node("Neg", ["m"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("Add", ["r", "x"], ["y"]),
    ]
    network = check(tmp_path, model(nodes, VECTOR), VECTOR)
    points = 2 * torch.rand(64, 6, generator=generator(0), dtype=torch.float64) - 1
    box = Box(-torch.ones(6, dtype=torch.float64), torch.ones(6, dtype=torch.float64))
    for name in ("ibp", "crown"):
        bounds = get_bounder(name).bound(network, box, torch.eye(6, dtype=torch.float64), Budget())
        assert bool((bounds.lower <= network(points)).all() and (network(points) <= bounds.upper).all())


@pytest.mark.parametrize("n", [4, 7])
@pytest.mark.parametrize("mode", ["floor", "round_prefer_ceil"])
def test_places_that_hang_on_rounding_are_the_runtimes_or_refused(mode: str, n: int, tmp_path: Path) -> None:
    """Where an element is taken halfway between two, the runtime's own rounding decides: never an internal error."""
    options = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": mode}
    refused: list[str] = []
    for length in range(1, 10):
        sizes = np.array([1, 1, 2, length], dtype=np.int64)
        proto = one("Resize", (1, 1, 2, n), None, None, sizes, opset=19, **options)
        try:
            check(tmp_path, proto, (1, 1, 2, n))
        except UnsupportedError as error:
            refused.append(str(error))
    assert len(refused) < 4
    assert all("takes elements by places that onnxruntime rounds otherwise" in reason for reason in refused)
