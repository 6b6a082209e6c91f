"""Models of several inputs and outputs, of torch and of ONNX: parts of one flat input, outputs chosen by name."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from assay.verify.core.errors import AssayError, InputError
from assay.verify.core.network import Port, to_network
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.result import Verdict
from assay.verify.core.spec import Spec
from assay.verify.frontends.onnx import read_onnx
from assay.verify.frontends.parted import Parted
from assay.verify.registry import get_verifier
from tests.nets import generator, randomised

SHAPES = {"image": (2, 3), "state": (3,)}


class Two(nn.Module):
    """Two inputs, two outputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.g, self.h = nn.Linear(6, 5), nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, image: Tensor, state: Tensor) -> dict[str, Tensor]:
        hidden = torch.relu(self.f(image.flatten(1)) + self.g(state))
        return {"score": self.h(hidden), "hidden": hidden}


def two() -> nn.Module:
    return randomised(Two(), 0).eval()


def separate(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    given: dict[str, Tensor] = model(image=x[:, :6].reshape(-1, 2, 3), state=x[:, 6:])
    return given


@pytest.mark.parametrize("outputs", [("score",), ("hidden", "score")])
def test_modules_take_parts_of_one_input(outputs: tuple[str, ...]) -> None:
    model = two()
    network = to_network(Parted(model, SHAPES, outputs), (9,))
    x = torch.rand(4, 9, generator=generator(1))
    with torch.no_grad():
        wanted = torch.cat([separate(model, x)[name] for name in outputs], 1)
    torch.testing.assert_close(network(x), wanted)
    assert network.oracle is not None
    torch.testing.assert_close(network.oracle(x), wanted)
    assert network.inputs == (Port("image", (2, 3)), Port("state", (3,)))


def test_arguments_go_by_name_whatever_their_order() -> None:
    model = two()
    turned = Parted(model, dict(reversed(SHAPES.items())), ("score",))
    x = torch.rand(4, 9, generator=generator(1))
    torch.testing.assert_close(turned(torch.cat([x[:, 6:], x[:, :6]], 1)), separate(model, x)["score"])


def test_outputs_that_are_not_there_and_other_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="no output 'other'"):
        to_network(Parted(two(), SHAPES, ("other",)))
    with pytest.raises(InputError, match=r"shape \(9,\), all parts together, got \(8,\)"):
        to_network(Parted(two(), SHAPES, ("score",)), (8,))
    with pytest.raises(InputError, match="by name, got none"):
        Parted(two(), {})


def test_regions_by_name_give_verdicts() -> None:
    network = to_network(Parted(two(), SHAPES, ("score",)))
    regions = {"image": Box(torch.zeros(2, 3), torch.ones(2, 3)), "state": Box(torch.zeros(3), torch.zeros(3))}
    problem = Problem.of_parts(network, regions, Spec.halfspaces([[1.0, 0.0]], [-1e3]))
    assert get_verifier("crown").verify(problem).verdict is Verdict.VERIFIED


def write(path: Path, batch: int | str = 1, other: int | str | None = None, kind: int = TensorProto.FLOAT) -> Path:
    """z = relu(W image + V state), outputs z, its sum by W2, and the largest place; W and V of the model above."""
    model = two()
    weights = {
        **{f"{n}w": getattr(model, n).weight.detach().numpy().T.copy() for n in "fgh"},
        **{f"{n}b": getattr(model, n).bias.detach().numpy() for n in "fgh"},
    }
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("Gemm", ["flat", "fw", "fb"], ["a"]),
        helper.make_node("Gemm", ["state", "gw", "gb"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "hw", "hb"], ["score"]),
        helper.make_node("ArgMax", ["score"], ["label"], axis=1),
    ]
    second = batch if other is None else other
    given = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 2, 3]),
        helper.make_tensor_value_info("state", kind, [second, 3]),
    ]
    results = [
        helper.make_tensor_value_info("hidden", TensorProto.FLOAT, [batch, 5]),
        helper.make_tensor_value_info("score", TensorProto.FLOAT, [batch, 2]),
        helper.make_tensor_value_info("label", TensorProto.INT64, [batch, 1]),
    ]
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "two", given, results, constants)
    model_ = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model_, path)
    return path


@pytest.mark.parametrize("batch", [1, "n"])
@pytest.mark.parametrize("outputs", [("score",), ("hidden", "score"), (1, 0)])
def test_files_with_several_inputs_and_outputs(
    batch: int | str, outputs: tuple[str | int, ...], tmp_path: Path
) -> None:
    network = read_onnx(write(tmp_path / "two.onnx", batch), outputs)
    names = [one if isinstance(one, str) else ("hidden", "score")[one] for one in outputs]
    x = torch.rand(4, 9, generator=generator(1))
    with torch.no_grad():
        wanted = torch.cat([separate(two(), x)[name] for name in names], 1)
    assert network.oracle is not None
    for given in (network(x), network.oracle(x)):
        torch.testing.assert_close(given.flatten(1), wanted)
    assert [port.name for port in network.inputs] == ["image", "state"]
    assert [port.name for port in network.outputs] == names


def test_several_outputs_are_chosen_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "two.onnx")
    with pytest.raises(InputError, match=r"one output, got 3.*choose one or several by name"):
        read_onnx(path)
    with pytest.raises(InputError, match="no output 'other'; it has 'hidden', 'score', 'label'"):
        read_onnx(path, ("other",))


@pytest.mark.parametrize(
    ("batch", "other", "kind", "message"),
    [
        (1, "n", TensorProto.FLOAT, "a batch dimension each, or none"),
        (1, 1, TensorProto.DOUBLE, "of one floating type"),
        (1, 1, TensorProto.INT64, "of type"),
    ],
)
def test_inputs_that_do_not_go_together_are_refused(
    batch: int | str, other: int | str, kind: int, message: str, tmp_path: Path
) -> None:
    with pytest.raises(AssayError, match=message):
        read_onnx(write(tmp_path / "two.onnx", batch, other, kind), ("score",))


def test_properties_of_version_1_speak_of_all_inputs_in_the_order_of_the_file(tmp_path: Path) -> None:
    lines = [f"(declare-const X_{i} Real)(assert (>= X_{i} 0))(assert (<= X_{i} 1))" for i in range(9)]
    lines += ["(declare-const Y_0 Real)(declare-const Y_1 Real)(assert (<= X_6 X_0))(assert (>= Y_0 1000))"]
    prop = tmp_path / "p.vnnlib"
    prop.write_text("\n".join(lines))
    (problem,) = Problem.from_files(write(tmp_path / "two.onnx"), prop, outputs=("score",))
    assert get_verifier("crown").verify(problem).verdict is Verdict.VERIFIED
