"""What people bring to the front door: files as spreadsheets and exporters leave them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from assay.benchmarks.harness.instances import Instance, find
from assay.benchmarks.report.competition import SUMMARY, read_expected, read_peers
from assay.verify import Budget, Problem, Verdict, solve
from assay.verify.core.errors import InputError
from assay.verify.frontends.onnx import read_onnx

UNIT = "".join(f"(declare-const X_{i} Real)(assert (>= X_{i} 0))(assert (<= X_{i} 1))\n" for i in range(2))


def scalar_network(path: Path, op: str, batch: int | str) -> Path:
    """The sum of two inputs, after a Relu, as one number without axes at a batch of one."""
    from onnx import TensorProto, helper, numpy_helper, save

    last = {
        "Squeeze": [helper.make_node("MatMul", ["r", "column"], ["s"]), helper.make_node("Squeeze", ["s"], ["y"])],
        "ReduceSum": [helper.make_node("ReduceSum", ["r"], ["y"], keepdims=0)],
    }[op]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 2])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    ones = [numpy_helper.from_array(np.ones((2, 1), np.float32), "column")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["r"]), *last], "sum", [given], [result], ones)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@pytest.mark.parametrize("batch", [1, "N"])
@pytest.mark.parametrize("op", ["Squeeze", "ReduceSum"])
def test_one_number_without_axes_is_an_output_of_length_one(tmp_path: Path, op: str, batch: int | str) -> None:
    network = read_onnx(scalar_network(tmp_path / "sum.onnx", op, batch))
    x = torch.tensor([[0.25, 0.5], [-1.0, 2.0]])
    assert network.oracle is not None
    for values in (network(x.double()), network.oracle(x).double()):
        assert values.tolist() == [[0.75], [2.0]]


@pytest.mark.parametrize(
    ("unsafe", "verdict"), [("(>= Y_0 1.5)", Verdict.FALSIFIED), ("(>= Y_0 2.5)", Verdict.VERIFIED)]
)
def test_a_network_with_one_number_is_decided(tmp_path: Path, unsafe: str, verdict: Verdict) -> None:
    net, prop = scalar_network(tmp_path / "sum.onnx", "Squeeze", 1), tmp_path / "p.vnnlib"
    prop.write_text(f"{UNIT}(declare-const Y_0 Real)(assert {unsafe})")
    (problem,) = Problem.from_files(net, prop)
    assert solve(problem, Budget(10)).verdict is verdict


def test_a_list_with_a_mark_and_blank_lines_is_read(tmp_path: Path) -> None:
    (tmp_path / "instances.csv").write_bytes(b"\xef\xbb\xbfa.onnx, p.vnnlib ,10\r\n   \r\n,,\r\n/b.onnx,q.vnnlib,5\r\n")
    first, second = find(tmp_path)
    assert (first.onnx, first.vnnlib, first.seconds) == ("a.onnx", "p.vnnlib", 10.0)
    assert second.net == Path("/b.onnx")


def test_expected_verdicts_with_a_mark_are_read(tmp_path: Path) -> None:
    path = tmp_path / "expected.csv"
    path.write_bytes(b"\xef\xbb\xbfbenchmark,onnx,vnnlib,verdict\r\nb,./a.onnx.gz,p.vnnlib,sat\r\n")
    assert read_expected(path) == {("b", "a.onnx", "p.vnnlib"): "sat"}


@pytest.mark.parametrize("number", ["inf", "nan"])
@pytest.mark.parametrize(
    "content",
    [
        "benchmark,onnx,vnnlib,tool,year,verdict,seconds\nb,a.onnx,p.vnnlib,T,2022,sat,{}\n",
        f"{','.join(SUMMARY)}\nb,T,2022,{{}},1,1,0,1,1,0,0,0\n",
    ],
)
def test_published_numbers_that_are_not_finite_are_refused(tmp_path: Path, content: str, number: str) -> None:
    path, instance = tmp_path / "peers.csv", Instance("b", "a.onnx", "p.vnnlib", 1.0, tmp_path)
    path.write_text(content.format(number))
    with pytest.raises(InputError, match=rf"peers\.csv:2: expected .*, got '{number}'"):
        read_peers(path, [instance], {})
