"""Tests of what verify.frontends.onnx refuses: by which error, in which words, and before anything is allocated."""

from __future__ import annotations

import gzip
import os
import resource
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from assay.verify.core.errors import AssayError, InputError, ResourceError, UnsupportedError
from assay.verify.frontends.onnx import read_onnx
from assay.verify.frontends.source import SMALL
from tests.verify.frontends.onnx_files import ints, model, numbers, one, save

NODE = helper.make_node
VECTOR = (1, 6)
IMAGE = (1, 2, 5, 6)


def refused(path: Path, kind: type[AssayError], *words: str) -> str:
    with pytest.raises(kind) as caught:
        read_onnx(path)
    line = str(caught.value)
    assert type(caught.value) is kind
    assert "\n" not in line
    for word in words:
        assert word in line
    return line


def matrix() -> onnx.ModelProto:
    """x times a matrix."""
    return one("MatMul", VECTOR, numbers(0, 6, 3))


# Files.


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12ab\nsize 7\n", "git lfs pull"),
        (gzip.compress(matrix().SerializeToString()), "ends in .gz"),
        (b"not a model", "no ONNX file"),
        (b"\x00" * 100, "no ONNX file"),
        (matrix().SerializeToString()[:-20], "damaged or cut off"),
        (matrix().SerializeToString()[:60], "damaged or cut off"),
        (onnx.ModelProto(ir_version=8).SerializeToString(), "holds no network"),
    ],
    ids=["empty", "pointer", "packed", "text", "zeros", "truncated", "beginning", "no-graph"],
)
def test_garbage(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    refused(path, InputError, str(path), words)


def test_files_that_are_none(tmp_path: Path) -> None:
    refused(tmp_path / "missing.onnx", InputError, "there is no file", "missing.onnx")
    (tmp_path / "folder.onnx").mkdir()
    refused(tmp_path / "folder.onnx", InputError, "not a regular file")
    os.mkfifo(tmp_path / "pipe.onnx")
    refused(tmp_path / "pipe.onnx", InputError, "not a regular file")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: b[:-30], "cut off"),
        (lambda b: b[:40] + bytes(10) + b[50:], "damaged"),
        (lambda b: b + b, "goes on"),
        (lambda b: b"no gzip", "no gzip file"),
        (lambda b: b"", "is empty"),
        (lambda b: gzip.compress(b""), "is empty"),
        (lambda b: gzip.compress(b"version https://git-lfs.github.com/spec/v1"), "git lfs pull"),
    ],
    ids=["truncated", "damaged", "twice", "text", "empty", "of-nothing", "pointer"],
)
def test_damaged_gzip(change: Callable[[bytes], bytes], words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx.gz"
    path.write_bytes(change(gzip.compress(matrix().SerializeToString())))
    refused(path, InputError, str(path), words)


@pytest.mark.slow
def test_a_gzip_bomb_does_not_go_off(tmp_path: Path) -> None:
    path = tmp_path / "bomb.onnx.gz"
    with gzip.open(path, "wb") as file:
        for _ in range(2**7):
            file.write(bytes(2**21))
    tracemalloc.start()
    refused(path, ResourceError, str(path), "more than 500 times")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * SMALL < 2**28


def test_a_large_file_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)
    refused(path, ResourceError, "2147483648 bytes")


# Tensors.


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_named(value: float, tmp_path: Path) -> None:
    weight = numbers(0, 6, 3)
    weight[2, 1] = value
    refused(save(tmp_path, one("MatMul", VECTOR, weight)), InputError, "'c0'", "NaN or inf")
    constant = NODE("Constant", [], ["w"], value=numpy_helper.from_array(weight))
    proto = model([constant, NODE("MatMul", ["x", "w"], ["y"])], VECTOR)
    refused(save(tmp_path, proto), InputError, "'w'", "NaN or inf")


def changed(change: Callable[[onnx.TensorProto], None]) -> onnx.ModelProto:
    proto = matrix()
    change(proto.graph.initializer[0])
    return proto


def less(tensor: onnx.TensorProto) -> None:
    tensor.raw_data = tensor.raw_data[:-4]


def huge(tensor: onnx.TensorProto) -> None:
    tensor.dims[:] = [2**40, 2**20]


def negative(tensor: onnx.TensorProto) -> None:
    tensor.dims[:] = [-6, -3]


def strings(tensor: onnx.TensorProto) -> None:
    tensor.data_type = TensorProto.STRING


def few(tensor: onnx.TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.float_data.extend([1.0, 2.0])


def beyond(tensor: onnx.TensorProto) -> None:
    tensor.CopyFrom(helper.make_tensor("c0", TensorProto.INT8, [6, 3], list(range(18))))
    tensor.int32_data[0] = 300


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (less, InputError, "expected 72 bytes of data, got 68"),
        (huge, ResourceError, "at most"),
        (negative, InputError, "[-6, -3]"),
        (strings, UnsupportedError, "type 8"),
        (few, InputError, "expected 18 numbers, got 2"),
        (beyond, InputError, "does not fit its type"),
    ],
)
def test_damaged_tensors(
    change: Callable[[onnx.TensorProto], None], kind: type[AssayError], words: str, tmp_path: Path
) -> None:
    refused(save(tmp_path, changed(change)), kind, "'c0'", words)


BIG = 2**20


@pytest.mark.parametrize(
    "proto",
    [
        one("Expand", VECTOR, ints(BIG, BIG, 6)),
        one("Tile", VECTOR, ints(BIG, BIG)),
        one("Pad", VECTOR, ints(0, 0, 0, 2**40)),
        one("Gather", (1, 2**12), np.zeros(2**18, dtype=np.int64), axis=0),
        one("Add", (1, BIG), numbers(0, 2**12, 1)),
        one("Conv", (1, 1, 8, 8), numbers(0, 1, 1, 1, 1), pads=[2**20, 2**20, 2**20, 2**20]),
        one("AveragePool", (1, 1, 8, 8), kernel_shape=[1, 1], pads=[2**20, 2**20, 2**20, 2**20]),
        one("AveragePool", (1, 1, 8, 8), kernel_shape=[2**31, 1], pads=[2**31, 0, 0, 0]),
        one("MaxPool", (1, 1, 2**14, 2**14), kernel_shape=[9, 9]),
        one("ConvTranspose", (1, 1, 8, 8), numbers(0, 1, 1, 1, 1), strides=[2**20, 2**20]),
        one("MatMul", (2**20, 1), numbers(0, 1, 2**12)),
        one("Relu", (1, 2**40)),
        one("Relu", (2**31, 2**31)),
        model(
            [NODE("ConstantOfShape", ["s"], ["c"]), NODE("Mul", ["x", "c"], ["y"])], VECTOR, {"s": ints(2**30, 2**30)}
        ),
        model(
            [
                NODE("Range", ["a", "b", "c"], ["r"]),
                NODE("Cast", ["r"], ["f"], to=1),
                NODE("Mul", ["x", "f"], ["y"]),
            ],
            VECTOR,
            {"a": np.int64(0), "b": np.int64(2**60), "c": np.int64(1)},
        ),
        model(
            [NODE("Add", ["a", "b"], ["c"]), NODE("Mul", ["x", "c"], ["y"])],
            VECTOR,
            {"a": np.zeros((2**16, 1), np.float32), "b": np.zeros((1, 2**16), np.float32)},
        ),
        model(
            [NODE("MatMul", ["a", "b"], ["c"]), NODE("Mul", ["x", "c"], ["y"])],
            VECTOR,
            {"a": np.zeros((2**16, 1), np.float32), "b": np.zeros((1, 2**16), np.float32)},
        ),
    ],
    ids=lambda proto: "-".join(node.op_type for node in proto.graph.node),
)
def test_sizes_are_capped_before_anything_is_allocated(proto: onnx.ModelProto, tmp_path: Path) -> None:
    path = save(tmp_path, proto)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(path, ResourceError)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500 * 2**10  # KiB


# External data.


def external(folder: Path, location: str, **entries: str) -> Path:
    """A model of which the matrix lies elsewhere."""
    proto = matrix()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return save(folder, proto)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with data in it, and data beside it."""
    folder = tmp_path / "home"
    folder.mkdir()
    for place in (folder / "in.bin", tmp_path / "out.bin"):
        place.write_bytes(numbers(0, 6, 3).tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "out.bin")
    (folder / "inside.bin").symlink_to(folder / "in.bin")
    (folder / "up").symlink_to(tmp_path)
    (folder / "folder.bin").mkdir()
    (folder / "short.bin").write_bytes(b"1234")
    os.mkfifo(folder / "pipe.bin")
    return folder


def test_external_data_that_may_be_read(home: Path) -> None:
    for location in ("in.bin", "./in.bin", "inside.bin"):
        assert read_onnx(external(home, location)).output_size == 3


@pytest.mark.parametrize(
    "location",
    [
        "../out.bin",
        "up/out.bin",
        "link.bin",
        "folder.bin",
        "pipe.bin",
        "short.bin",
        "missing.bin",
        "sub/../../out.bin",
        "",
        ".",
        "in.bin\0",
        "/etc/passwd",
        "/dev/zero",
        "x" * 5000,
    ],
)
def test_external_data_elsewhere(location: str, home: Path) -> None:
    refused(external(home, location), InputError, "'c0'")


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"offset": "4"}, "bytes 4 to 76"),
        ({"offset": "-4"}, "bytes -4"),
        ({"offset": "here"}, "no number"),
        ({"length": "71"}, "expected 72 bytes"),
        ({"length": "9999999999999"}, "expected 72 bytes"),
        ({"offset": "99999999999999999999"}, "bytes 9999"),
    ],
    ids=str,
)
def test_external_data_of_the_wrong_size(entries: dict[str, str], words: str, home: Path) -> None:
    refused(external(home, "in.bin", **entries), InputError, "'c0'", words)


def test_external_data_that_git_lfs_did_not_fetch(home: Path) -> None:
    (home / "in.bin").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:12ab\nsize 7\n")
    refused(external(home, "in.bin"), InputError, "'c0'", "git lfs pull")


# Graphs.


def test_all_unsupported_operations_are_listed_at_once(tmp_path: Path) -> None:
    nodes = [
        NODE("LSTM", ["x", "w", "w"], ["a"], name="memory"),
        NODE("Relu", ["a"], ["b"]),
        NODE("Tan", ["x"], ["c"], name="tangent"),
        NODE("FusedMatMul", ["x", "w"], ["d"], name="fused", domain="com.microsoft"),
        NODE("Pow", ["x", "x"], ["e"], name="power"),
        NODE("Relu", ["x"], ["f"], name="odd", colour="red"),
        NODE("Hardmax", ["b"], ["g"], name="after"),
        NODE("If", ["i"], ["h"], name="branch", then_branch=helper.make_graph([], "t", [], [])),
        NODE("Add", ["b", "f"], ["y"]),
    ]
    path = save(tmp_path, model(nodes, VECTOR, {"w": numbers(0, 6, 3), "i": np.array(True)}))
    words = ["LSTM 'memory'", "Tan 'tangent'", "FusedMatMul 'fused' (domain 'com.microsoft')"]
    words += ["Pow 'power' (to a power that depends on the input)", "Relu 'odd' (attribute 'colour')"]
    words += ["Hardmax 'after'", "If 'branch' (attribute 'then_branch')", "assay reads Abs, Add"]
    refused(path, UnsupportedError, *words)


def test_what_follows_an_unsupported_operation_is_looked_at(tmp_path: Path) -> None:
    nodes = [
        NODE("Tan", ["x"], ["a"], name="first"),
        NODE("MatMul", ["a", "w"], ["b"]),
        NODE("Tan", ["b"], ["c"], name="second"),
        NODE("Pow", ["x", "c"], ["d"], name="power"),
        NODE("Gemm", ["d", "u"], ["e"], transB=1),
        NODE("Hardmax", ["e"], ["f"], name="hard"),
        NODE("Fused", ["x"], ["g"], name="strange", domain="com.example"),
        NODE("Mul", ["g", "x"], ["h"], name="product"),
        NODE("TopK", ["h", "u"], ["i", "j"], name="last"),
        NODE("Add", ["f", "i"], ["y"]),
    ]
    proto = model(nodes, ("N", 6), {"w": numbers(0, 6, 6), "u": numbers(1, 6, 6)})
    words = ["Tan 'first' and 1 more,", "Pow 'power' (to a power that depends on the input)"]
    words += ["Hardmax 'hard'", "Fused 'strange' (domain", "TopK 'last'"]
    line = refused(save(tmp_path, proto), UnsupportedError, *words)
    assert "product" not in line  # of which nothing is known


def test_constants_that_are_not_read_are_not_taken_for_values(tmp_path: Path) -> None:
    nodes = [NODE("Det", ["w"], ["v"], name="bad"), NODE("Gemm", ["x", "v"], ["y"], name="good")]
    line = refused(save(tmp_path, model(nodes, VECTOR, {"w": numbers(0, 6, 3)})), UnsupportedError, "Det 'bad'")
    assert "good" not in line


@pytest.mark.parametrize(
    ("proto", "words"),
    [
        (one("Resize", (1, 1, 3), np.float32([1, 1, 0.2]), opset=10), "without elements"),
        (one("Resize", (1, 1, 3), None, np.float32([1, 1, 2]), mode="cubic"), "mode 'cubic'"),
        (one("DequantizeLinear", VECTOR, np.float32(1)), "not quantised"),
        (one("PRelu", VECTOR, numbers(0, 6), place=1), "constant"),
        (one("Conv", (1, 1, 3, 3, 3, 3), numbers(0, 1, 1, 2, 2, 2, 2)), "[1, 1, 3, 3, 3, 3]"),
        (one("Conv", (3, 2, 5, 6), numbers(0, 1, 2, 2, 2)), "[3, 2, 5, 6]"),
        (one("Conv", (1, 2, 5, 6), numbers(0, 1, 2, 5, 6), place=1), "constant"),
        (one("Pow", VECTOR, numbers(0, 6)), "several powers"),
        (one("Pow", VECTOR, np.float32(-1), place=1), "not positive"),
        (one("Clip", VECTOR, np.float32(1), np.float32(0)), "to [1, 0]"),
        (one("Cast", VECTOR, to=TensorProto.FLOAT16), "rounds"),
        (one("Cast", VECTOR, to=TensorProto.STRING), "type"),
        (one("Cast", VECTOR, to=TensorProto.FLOAT, kind=TensorProto.DOUBLE), "rounds"),
        (one("Dropout", VECTOR, np.float32(0.5), np.array(True)), "training mode"),
        (one("BatchNormalization", VECTOR, *[numbers(0, 6)] * 4, training_mode=1, opset=15), "training mode"),
        (one("NonZero", VECTOR), "depends on the input"),
        (one("Reshape", ints(1, 6).tolist(), ints(1, 6), place=1), "shape depends on the input"),
        (one("Slice", VECTOR, ints(6), ints(9), ints(1)), "without elements"),
        (one("MaxPool", (1, 1, 3, 3), kernel_shape=[4, 4]), "without elements"),
        (one("AveragePool", (1, 1, 3, 3), kernel_shape=[4, 3]), "without elements"),
        (model([NODE("MaxPool", ["x"], ["m", "i"], kernel_shape=[2]), NODE("Relu", ["i"], ["y"])], (1, 1, 4)), "'i'"),
        (model([NODE("Dropout", ["x"], ["d", "m"]), NODE("Not", ["m"], ["y"])], VECTOR), "reads 'm'"),
    ],
)
def test_what_has_no_translation_says_why(proto: onnx.ModelProto, words: str, tmp_path: Path) -> None:
    refused(save(tmp_path, proto), UnsupportedError, words, proto.graph.node[-1].op_type)


@pytest.mark.parametrize(
    ("proto", "words"),
    [
        (one("MatMul", VECTOR, numbers(0, 5, 3)), "MatMul 'node' multiplies shapes [1, 6] and [5, 3]"),
        (one("MatMul", VECTOR, np.float32(3)), "MatMul 'node' multiplies shapes"),
        (one("Gemm", VECTOR, numbers(0, 6, 3), numbers(0, 4)), "Gemm 'node' does not fit"),
        (one("Add", VECTOR, numbers(0, 5)), "do not broadcast"),
        (one("Conv", IMAGE, numbers(0, 3, 3, 2, 2)), "Conv 'node' does not fit"),
        (one("Conv", IMAGE, numbers(0, 3, 2, 2, 2), kernel_shape=[3, 3]), "kernel [3, 3]"),
        (one("Conv", IMAGE, numbers(0, 3, 2, 9, 9)), "do not fit into"),
        (one("Conv", IMAGE, numbers(0, 3, 2, 2, 2), strides=[0, 1]), "strides [0, 1]"),
        (one("Conv", IMAGE, numbers(0, 3, 2, 2, 2), pads=[-1, 0, 0, 0]), "pads [-1"),
        (one("Conv", IMAGE, numbers(0, 3, 2, 2, 2), pads=[1, 1]), "pads [1, 1]"),
        (one("Conv", IMAGE, numbers(0, 3, 2, 2, 2), group=0), "Conv 'node'"),
        (one("Conv", IMAGE, numbers(0, 3, 2, 2, 2), numbers(0, 4)), "Conv 'node' does not fit"),
        (one("Reshape", VECTOR, ints(4, 2)), "Reshape 'node' does not fit"),
        (one("Reshape", VECTOR, ints(-1, -1)), "Reshape 'node' does not fit"),
        (one("Reshape", VECTOR, numbers(0, 2)), "whole numbers"),
        (one("Reshape", VECTOR), "no shape"),
        (one("Transpose", VECTOR, perm=[0, 2]), "Transpose 'node'"),
        (one("Transpose", VECTOR, perm="10"), "whole numbers"),
        (one("Squeeze", VECTOR, ints(1)), "not all of length 1"),
        (one("Gather", VECTOR, ints(7), axis=1), "Gather 'node'"),
        (one("Slice", VECTOR, ints(0), ints(1), ints(1), ints(0)), "Slice 'node'"),
        (one("Slice", VECTOR, ints(0, 0), ints(1)), "Slice 'node'"),
        (one("Concat", VECTOR, numbers(0, 2, 5), axis=1), "Concat 'node'"),
        (one("Div", VECTOR, np.float32(0)), "divides by zero"),
        (one("BatchNormalization", VECTOR, *[-abs(numbers(0, 6))] * 4), "negative variance"),
        (one("LeakyRelu", VECTOR, alpha=1), "must be a number"),
        (one("Flatten", VECTOR, axis=1.5), "must be a whole number"),
        (one("MaxPool", IMAGE), "no kernel_shape"),
        (one("MaxPool", IMAGE, kernel_shape=[9, 9]), "do not fit into"),
        (one("AveragePool", IMAGE, kernel_shape=[9, 9]), "do not fit into"),
        (model([NODE("Relu", ["z"], ["y"], name="n")], VECTOR), "Relu 'n' reads the value 'z'"),
        (model([NODE("Relu", ["h"], ["y"]), NODE("Relu", ["x"], ["h"])], VECTOR), "'h', which nothing before it gives"),
        (model([NODE("Relu", ["x"], ["x"])], VECTOR), "gives the value 'x', which there is already"),
        (model([NODE("Relu", ["x"], ["z"])], VECTOR), "no node gives the output 'y'"),
        (model([NODE("Relu", [], ["y"], name="n")], VECTOR), "Relu 'n' has no operand 0"),
        (model([NODE("Constant", [], ["y"], value_float=1.0)], VECTOR), "does not depend on the input"),
    ],
)
def test_graphs_that_do_not_fit(proto: onnx.ModelProto, words: str, tmp_path: Path) -> None:
    refused(save(tmp_path, proto), InputError, words)


@pytest.mark.parametrize("shape", [("N", 3, "H", "W"), (1, "n"), (None, None), ("n",), (1, 0), (1, -1), ()], ids=str)
def test_inputs_of_no_fixed_shape(shape: tuple[int | str | None, ...], tmp_path: Path) -> None:
    line = refused(save(tmp_path, one("Relu", shape)), InputError, "fixed dimensions", "'x'")
    assert all(str(n) in line for n in shape if n is not None)


def test_an_input_without_a_shape(tmp_path: Path) -> None:
    proto = matrix()
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    refused(save(tmp_path, proto), InputError, "without a shape")
    proto.graph.input[0].ClearField("type")
    refused(save(tmp_path, proto), InputError, "'x'")


@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.INT64, TensorProto.FLOAT16, TensorProto.STRING])
def test_inputs_of_other_types(kind: int, tmp_path: Path) -> None:
    refused(save(tmp_path, one("Relu", VECTOR, kind=kind)), UnsupportedError, "'x'", "float32 and float64")


@pytest.mark.parametrize("proto", [one("Clip", VECTOR, np.float32(np.nan)), one("Max", VECTOR, np.float32(np.nan))])
def test_ends_that_are_no_numbers(proto: onnx.ModelProto, tmp_path: Path) -> None:
    refused(save(tmp_path, proto), InputError, "NaN")


def test_several_outputs_and_none_at_all(tmp_path: Path) -> None:
    for field, words in (("input", "with an input, got none"), ("output", "one output, got 0")):
        proto = matrix()
        getattr(proto.graph, field).append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 6]))
        if field == "output":
            refused(save(tmp_path, proto), InputError, "one output, got 2", "'z'")
        del getattr(proto.graph, field)[:]
        refused(save(tmp_path, proto), InputError, words)


def test_scores_beside_labels_are_the_output(tmp_path: Path) -> None:
    proto = matrix()
    proto.graph.node.append(NODE("ArgMax", ["y"], ["label"], axis=1))
    proto.graph.output.insert(0, helper.make_tensor_value_info("label", TensorProto.INT64, None))
    network = read_onnx(save(tmp_path, proto))
    assert network.output_size == 3
    assert network.oracle is not None
    assert network.oracle(torch.zeros(2, 6)).shape == (2, 3)  # and not the labels
    proto.graph.node.append(NODE("Softmax", ["y"], ["shares"]))
    proto.graph.output.append(helper.make_tensor_value_info("shares", TensorProto.FLOAT, None))
    refused(save(tmp_path, proto), InputError, "one output, got 3: ['label', 'y', 'shares']; choose one or several")


def test_the_same_operator_set_twice(tmp_path: Path) -> None:
    proto = matrix()
    proto.opset_import.append(proto.opset_import[0])
    assert read_onnx(save(tmp_path, proto)).output_size == 3
    proto.opset_import.append(helper.make_opsetid("ai.onnx", 11))
    refused(save(tmp_path, proto), InputError, "one version of the ONNX operator set, got [11, 13]")


def test_operator_sets(tmp_path: Path) -> None:
    for version, kind, words in ((6, UnsupportedError, "operator set 6"), (999, InputError, "onnxruntime refuses")):
        refused(save(tmp_path, one("Relu", VECTOR, opset=version)), kind, words)
    proto = one("Relu", VECTOR)
    del proto.opset_import[:]
    refused(save(tmp_path, proto), InputError, "version of the ONNX operator set")


def test_what_onnxruntime_refuses(tmp_path: Path) -> None:
    """An operand that the translation does not look at, of a type that the operation does not take."""
    proto = one("Dropout", VECTOR, ints(1))
    refused(save(tmp_path, proto), InputError, "onnxruntime refuses the model")
