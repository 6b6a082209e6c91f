"""Tests of verify.frontends.onnx on whole networks: layouts, batch dimensions, the oracle, errors that add up."""

from __future__ import annotations

import copy
import gzip
import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from assay.verify import Problem, Verdict, solve
from assay.verify.core.errors import InputError, InternalError
from assay.verify.core.network import Network, to_network
from assay.verify.frontends import agreement
from assay.verify.frontends.onnx import read_onnx
from assay.verify.frontends.onnx.external import fingerprint
from assay.verify.frontends.onnx.runtime import Runtime
from tests.nets import generator
from tests.verify.frontends.onnx_files import check, ints, model, numbers, one, save

NODE = helper.make_node


def perceptron(shape: tuple[int | str | None, ...] = (1, 6), opset: int = 13) -> onnx.ModelProto:
    """Six inputs, five hidden neurons, three outputs; Flatten first where the shape needs it."""
    nodes = [
        *([NODE("Flatten", ["x"], ["f"])] if len(shape) > 2 else []),
        NODE("Gemm", ["f" if len(shape) > 2 else "x", "w", "b"], ["h"]),
        NODE("Relu", ["h"], ["r"]),
        NODE("Gemm", ["r", "v", "c"], ["y"]),
    ]
    weights = {"w": numbers(0, 6, 5), "b": numbers(1, 5), "v": numbers(2, 5, 3), "c": numbers(3, 3)}
    return model(nodes, shape, weights, opset)


@pytest.mark.parametrize(
    ("declared", "sample"),
    [
        ((1, 6), (6,)),
        (("batch", 6), (6,)),
        ((None, 6), (6,)),
        ((-1, 6), (6,)),
        ((1, 6, 1), (6, 1)),
        ((1, 1, 1, 6), (1, 1, 6)),
        (("N", 2, 3), (2, 3)),
    ],
    ids=str,
)
def test_the_batch_dimension(declared: tuple[Any, ...], sample: tuple[int, ...], tmp_path: Path) -> None:
    network = check(tmp_path, perceptron(declared), (1, *sample))
    assert network.input_shape == sample
    assert network.nodes[-1].shape == (3,)
    assert isinstance(network.oracle, Runtime)
    assert network.oracle.together == (declared[0] != 1)
    assert network(torch.zeros(5, *sample)).shape == network.oracle(torch.zeros(5, *sample)).shape == (5, 3)


def test_a_network_without_a_batch_dimension_gets_one(tmp_path: Path) -> None:
    nodes = [NODE("MatMul", ["x", "w"], ["h"]), NODE("Add", ["h", "b"], ["a"]), NODE("Relu", ["a"], ["y"])]
    network = check(tmp_path, model(nodes, (6,), {"w": numbers(0, 6, 4), "b": numbers(1, 4)}), (6,))
    assert network.input_shape == (6,)
    assert network.oracle is not None
    assert network.oracle(torch.zeros(5, 6)).shape == (5, 4)
    column = [NODE("MatMul", ["w", "x"], ["h"]), NODE("Add", ["h", "b"], ["a"]), NODE("Relu", ["a"], ["y"])]
    network = check(tmp_path, model(column, (6, 1), {"w": numbers(0, 4, 6), "b": numbers(1, 4, 1)}), (6, 1))
    assert (network.input_shape, network.nodes[-1].shape) == ((6, 1), (4, 1))
    single = [NODE("MatMul", ["x", "w"], ["h"]), NODE("Relu", ["h"], ["y"])]
    assert check(tmp_path, model(single, (1,), {"w": numbers(0, 1, 1)}), (1,)).input_shape == (1,)


def test_channels_last(tmp_path: Path) -> None:
    """As converters from TensorFlow write it: Transpose around the convolutions, then one big matrix."""
    nodes = [
        NODE("Transpose", ["x"], ["c"], perm=[0, 3, 1, 2]),
        NODE("Conv", ["c", "k", "kb"], ["h"], strides=[2, 2], auto_pad="SAME_UPPER"),
        NODE("Relu", ["h"], ["r"]),
        NODE("Transpose", ["r"], ["l"], perm=[0, 2, 3, 1]),
        NODE("Reshape", ["l", "flat"], ["f"]),
        NODE("MatMul", ["f", "w"], ["m"]),
        NODE("Add", ["m", "b"], ["y"]),
    ]
    constants = {"k": numbers(0, 4, 3, 3, 3), "kb": numbers(1, 4), "w": numbers(2, 36, 5), "b": numbers(3, 5)}
    for shape in (("N", 6, 5, 3), (1, 6, 5, 3)):
        network = check(tmp_path, model(nodes, shape, {**constants, "flat": ints(-1, 36)}), (1, 6, 5, 3))
        assert network.input_shape == (6, 5, 3)


def test_a_residual_network(tmp_path: Path) -> None:
    nodes = [
        NODE("Conv", ["x", "k"], ["a"], pads=[1, 1, 1, 1]),
        NODE("BatchNormalization", ["a", "g", "s", "m", "v"], ["n"]),
        NODE("Relu", ["n"], ["r"]),
        NODE("Add", ["r", "x"], ["e"]),
        NODE("GlobalAveragePool", ["e"], ["p"]),
        NODE("Flatten", ["p"], ["y"]),
    ]
    constants = {"k": numbers(0, 2, 2, 3, 3), **{n: abs(numbers(i, 2)) for i, n in enumerate("gsmv")}}
    check(tmp_path, model(nodes, ("N", 2, 5, 5), constants), (1, 2, 5, 5))


def test_initialisers_among_the_inputs(tmp_path: Path) -> None:
    proto = perceptron()
    for tensor in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, tensor.dims))
    proto.ir_version = 3
    proto.opset_import[0].version = 8
    check(tmp_path, proto, (1, 6))


@pytest.mark.parametrize(
    ("nodes", "constants", "together"),
    [
        ([NODE("Reshape", ["x", "s"], ["y"])], {"s": ints(1, -1)}, False),
        ([NODE("Reshape", ["x", "s"], ["y"])], {"s": ints(-1, 6)}, True),
        ([NODE("Reshape", ["x", "s"], ["y"])], {"s": ints(0, 6)}, True),
        ([NODE("ReduceMean", ["x"], ["m"], axes=[0]), NODE("Sub", ["x", "m"], ["y"])], {}, False),
        ([NODE("Squeeze", ["x"], ["y"])], {}, False),
        ([NODE("Transpose", ["x"], ["t"]), NODE("Transpose", ["t"], ["y"])], {}, True),
    ],
    ids=["leading-1", "minus-1", "copied", "mean-of-batch", "squeezed", "turned-and-back"],
)
def test_samples_that_interact_are_run_alone(
    nodes: list[onnx.NodeProto], constants: dict[str, Any], together: bool, tmp_path: Path
) -> None:
    """A symbolic batch is run at once only where that gives what the samples give alone."""
    network = check(tmp_path, model(nodes, ("N", 2, 3), constants), (1, 2, 3))
    assert isinstance(network.oracle, Runtime)
    assert network.oracle.together is together
    x = torch.randn(4, 2, 3, generator=generator(0))
    assert torch.equal(network.oracle(x), torch.cat([network.oracle(x[i : i + 1]) for i in range(4)]))


def test_gzipped_files(tmp_path: Path) -> None:
    content = perceptron().SerializeToString()
    plain, packed = tmp_path / "net.onnx", tmp_path / "net.onnx.gz"
    packed.write_bytes(gzip.compress(content))
    networks = [read_onnx(packed), read_onnx(str(plain)), to_network(plain)]
    plain.write_bytes(content)
    networks.append(read_onnx(plain))
    assert {network.id for network in networks} == {networks[0].id}
    assert {network.name for network in networks} == {"net"}


def test_a_path_is_a_model(tmp_path: Path) -> None:
    path = save(tmp_path, perceptron())
    assert to_network(path, (6,)).input_shape == (6,)
    with pytest.raises(InputError, match=r"shape \(6,\), got \(5,\)"):
        to_network(path, (5,))
    x = torch.full((6,), 0.5)
    problem = Problem.robustness(path, x, int(read_onnx(path)(x[None]).argmax()), 1e-4)
    assert solve(problem).verdict is Verdict.VERIFIED


def test_a_falsification_is_replayed_in_onnxruntime(tmp_path: Path) -> None:
    network = read_onnx(save(tmp_path, perceptron()))
    x = torch.full((6,), 0.5)
    result = solve(Problem.robustness(network, x, int(network(x[None]).argmin()), 0.0))
    assert result.verdict is Verdict.FALSIFIED


def test_the_oracle_is_pickled_without_its_session(tmp_path: Path) -> None:
    network = read_onnx(save(tmp_path, perceptron(("N", 6))))
    (tmp_path / "model.onnx").unlink()
    for twin in (pickle.loads(pickle.dumps(network)), copy.deepcopy(network)):
        assert isinstance(twin, Network)
        assert isinstance(twin.oracle, Runtime)
        assert "session" not in vars(twin.oracle)
        x = torch.randn(3, 6, generator=generator(0))
        assert network.oracle is not None
        assert torch.equal(twin.oracle(x), network.oracle(x))
        assert twin.id == network.id


def test_the_oracle_takes_its_own_dtype_and_shape(tmp_path: Path) -> None:
    oracle = read_onnx(save(tmp_path, perceptron())).oracle
    assert oracle is not None
    assert oracle(torch.zeros(0, 6)).shape == (0, 3)
    for x in (torch.zeros(2, 6, dtype=torch.float64), torch.zeros(2, 5), torch.zeros(6)):
        with pytest.raises(InputError, match="expected inputs of shape"):
            oracle(x)
    with_gradient = torch.zeros(2, 6, requires_grad=True)
    assert not oracle(with_gradient).requires_grad


def test_the_oracle_runs_the_file_and_not_the_network(tmp_path: Path) -> None:
    """float32 swallows the 1; the network in float64 does not."""
    nodes = [NODE("Add", ["x", "b"], ["h"]), NODE("Sub", ["h", "b"], ["y"])]
    network = read_onnx(save(tmp_path, model(nodes, (1, 1), {"b": np.float32(2**25)})))
    assert network.oracle is not None
    assert network.oracle(torch.ones(1, 1)).item() == 0
    assert network(torch.ones(1, 1, dtype=torch.float64)).item() == 1


def test_weights_are_widened_exactly(tmp_path: Path) -> None:
    for dtype in (np.float32, np.float64):
        kind = TensorProto.FLOAT if dtype is np.float32 else TensorProto.DOUBLE
        network = read_onnx(save(tmp_path, one("MatMul", (1, 2), np.array([[0.1], [1 / 3]], dtype=dtype), kind=kind)))
        (op,) = [node.op for node in network.nodes if node.op.label == "Linear"]
        assert op.weight.dtype is torch.float64  # type: ignore[attr-defined]
        assert op.weight.tolist() == [[float(dtype(0.1)), float(dtype(1 / 3))]]  # type: ignore[attr-defined]
        assert network.dtype is (torch.float32 if dtype is np.float32 else torch.float64)


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16])
@pytest.mark.parametrize("raw", [True, False])
def test_both_ways_to_store_a_tensor(dtype: int, raw: bool, tmp_path: Path) -> None:
    values = [0.5, -1.25, 3.0, 0.0078125, 2.0**-14, -96.0]
    proto = one("Mul", (1, 6), np.zeros(6, dtype=np.float32))
    stored = helper.make_tensor("c", dtype, [6], np.array(values, dtype=np.float32), raw=False)
    if raw:
        array = numpy_helper.to_array(stored)
        stored = helper.make_tensor("c", dtype, [6], array.tobytes(), raw=True)
    proto.graph.initializer[0].CopyFrom(stored)
    proto.graph.initializer[0].name = "c"
    proto.graph.node[0].input[1] = "d"
    proto.graph.node.insert(0, NODE("Cast", ["c"], ["d"], to=TensorProto.FLOAT))
    network = read_onnx(save(tmp_path, proto))
    assert network(torch.ones(1, 6, dtype=torch.float64)).tolist() == [values]


def test_external_data_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    proto = perceptron()
    onnx.external_data_helper.convert_model_to_external_data(proto, location="sub/w.bin", size_threshold=0)
    path = tmp_path / "model.onnx"
    (tmp_path / "sub" / "w.bin").touch()
    onnx.save(proto, str(path))
    network = read_onnx(path)
    assert network.id == read_onnx(save(tmp_path / "sub", perceptron())).id
    (tmp_path / "sub" / "w.bin").unlink()
    assert network.oracle is not None
    twin = pickle.loads(pickle.dumps(network.oracle))
    assert torch.equal(twin(torch.ones(1, 6)), network.oracle(torch.ones(1, 6)))


def test_external_data_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    proto = perceptron()
    plain = save(tmp_path, proto)
    assert fingerprint(plain) == hashlib.sha256(plain.read_bytes()).hexdigest()
    onnx.external_data_helper.convert_model_to_external_data(proto, location="w.bin", size_threshold=0)
    path, beside = tmp_path / "outside.onnx", tmp_path / "w.bin"
    onnx.save(proto, str(path))
    before, data = fingerprint(path), beside.read_bytes()
    beside.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert fingerprint(path) != before
    beside.write_bytes(data)
    assert fingerprint(path) == before
    beside.unlink()
    with pytest.raises(InputError, match=r"w\.bin"):
        fingerprint(path)


def test_the_import_check_notices_a_wrong_translation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from assay.verify.frontends.onnx import curves, handlers

    wrong = {**handlers.traced(), "Relu": curves.sigmoid}
    monkeypatch.setattr(handlers, "traced", lambda: wrong)
    with pytest.raises(InternalError, match="differs from the model"):
        read_onnx(save(tmp_path, perceptron()))


def test_the_check_at_points_of_ones_own(tmp_path: Path) -> None:
    """A fault that only shows far from the random points is found where it is looked for."""
    network = read_onnx(save(tmp_path, perceptron()))
    oracle = network.oracle
    assert oracle is not None

    def far(x: torch.Tensor) -> torch.Tensor:
        return torch.where((x > 1e3).any(1, keepdim=True), 0, oracle(x))

    changed = Network(network.nodes, far, network.dtype, literal=network.literal)
    agreement.agree(changed)
    agreement.agree_on(network, torch.full((2, 6), 1e4, dtype=torch.float64))
    with pytest.raises(InternalError, match="differs from the model"):
        agreement.agree_on(changed, torch.full((2, 6), 1e4, dtype=torch.float64))
