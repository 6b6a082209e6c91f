"""Tests of write_onnx: what is written reads back as the same function, whatever operations the network has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from assay.models import zoo
from assay.verify.core import curves
from assay.verify.core.errors import InputError, InternalError, UnsupportedError
from assay.verify.core.network import Network, chain, to_network
from assay.verify.core.ops import STEPS, Gather, Linear, Op, Relu, Reshape, Scale, Smooth, Step
from assay.verify.frontends.onnx import read_onnx, write, write_onnx
from tests import nets
from tests.breadth import few, slow
from tests.nets import generator


def assert_same(network: Network, path: Path) -> Network:
    copy = write_onnx(network, path)
    assert read_onnx(path).id == copy.id
    assert copy.input_shape == network.input_shape
    x = 2 * torch.randn(5, *network.input_shape, dtype=torch.float64, generator=generator(3))
    torch.testing.assert_close(copy(x), network(x).reshape(copy(x).shape), rtol=1e-5, atol=1e-5)
    assert copy.oracle is not None
    outputs = copy.oracle(x.to(copy.dtype)).double()
    torch.testing.assert_close(outputs, copy(x), rtol=1e-4, atol=1e-4)
    return copy


@pytest.mark.parametrize("name", few(zoo.names(), quick=["digits-mlp-pgd", "fashion-cnn-pgd"]))
def test_the_zoo(name: str, tmp_path: Path) -> None:
    network = to_network(zoo.load(name), zoo.card(name).input_shape)
    copy = assert_same(network, tmp_path / "net.onnx")
    # What only moves values about may be written in another way.
    worked, read = ([type(node.op) for node in net.nodes] for net in (network, copy))
    assert [op for op in worked if op not in (Gather, Reshape)] == [op for op in read if op not in (Gather, Reshape)]
    again = write_onnx(copy, tmp_path / "again.onnx")
    assert again.id == copy.id


@pytest.mark.parametrize("examples", [10, slow(50)])
def test_random_networks(tmp_path: Path, examples: int) -> None:
    @settings(max_examples=examples)
    @given(nets.networks())
    def check(made: tuple[nn.Module, tuple[int, ...]]) -> None:
        assert_same(to_network(*made), tmp_path / "net.onnx")

    check()


IMAGE = (2, 6, 5)

MODULES: dict[str, Callable[[], nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "leaky": lambda: nn.LeakyReLU(0.3),
    "relu6": nn.ReLU6,
    "max-pool": lambda: nn.MaxPool2d(2, padding=1),
    "average-pool": lambda: nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
    "adaptive-pool": lambda: nn.AdaptiveAvgPool2d(3),
    "padding": lambda: nn.ConstantPad2d((1, 0, 2, 1), 0.7),
    "flatten": nn.Flatten,
    "transposed": lambda: nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1),
    "grouped": lambda: nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2),
    "linear-on-planes": lambda: nn.Linear(5, 3),
    "normalised": lambda: nn.Sequential(nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)),
    "shuffled": lambda: nn.Sequential(nn.Conv2d(2, 4, 1), nn.PixelShuffle(2)),
}


@pytest.mark.parametrize("name", MODULES)
def test_operations(name: str, tmp_path: Path) -> None:
    assert_same(
        to_network(nets.randomised(nn.Sequential(MODULES[name](), nn.Identity()), 0), IMAGE), tmp_path / "net.onnx"
    )


CURVES = sorted(set(curves.CURVES) - {"elu", "power"})


@pytest.mark.parametrize(
    "curve", [Smooth("elu", 1.5), Smooth("power", -1.5), Smooth("power", 3.0), *map(Smooth, CURVES)]
)
def test_every_curve(curve: Smooth, tmp_path: Path) -> None:
    """Of 1/2 + x^2, which lies in the domain of each."""
    half = torch.tensor(0.5, dtype=torch.float64)
    inside = [Smooth("square"), Scale(torch.ones_like(half) / 8, half), curve]
    assert_same(chain((4,), inside), tmp_path / "net.onnx")


@pytest.mark.parametrize("kind", STEPS)
def test_steps(kind: str, tmp_path: Path) -> None:
    assert_same(chain((4,), [Step(kind)]), tmp_path / "net.onnx")


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "attention": lambda: nn.TransformerEncoderLayer(5, 1, 7, batch_first=True, activation="gelu"),
    "softmax": lambda: nn.Sequential(nn.Softmax(1), nn.Flatten()),
    "layer-norm": lambda: nn.LayerNorm(5),
    "instance-norm": lambda: nn.InstanceNorm1d(6, affine=True),
    "gates": lambda: nn.Sequential(nn.Linear(5, 6), nn.GLU()),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_products(name: str, tmp_path: Path) -> None:
    assert_same(to_network(nets.randomised(LAYERS[name](), 0), (6, 5)), tmp_path / "net.onnx")


def test_double_precision(tmp_path: Path) -> None:
    network = to_network(nets.random_mlp(0).double(), (4,))
    copy = assert_same(network, tmp_path / "net.onnx")
    assert copy.dtype is torch.float64
    assert copy.id == network.id
    with pytest.raises(UnsupportedError, match=r"onnxruntime refuses the model.*Conv"):
        write_onnx(to_network(nets.random_cnn(0).double(), (1, 6, 6)), tmp_path / "net.onnx")


class Joined(nn.Module):
    """Concatenation, subtraction, slices, a value that is read three times, and an axis that disappears."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch x 2 x 6 x 5) to (batch)."""
        h = torch.cat([x[:, :, 1:4], -x[:, :, :2]], 2) - x[:, :, 1:]
        return (h.flatten(1) + x[:, :, 1:].flatten(1))[:, 3]


def test_scalar_outputs_get_an_axis(tmp_path: Path) -> None:
    copy = assert_same(to_network(Joined().eval(), IMAGE), tmp_path / "net.onnx")
    assert copy.nodes[-1].shape == (1,)


def test_the_file_is_valid_onnx(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    write_onnx(to_network(nets.random_resnet(0), (1, 4, 4)), path)
    model = onnx.load(str(path))
    onnx.checker.check_model(model, full_check=True)
    (given_,) = model.graph.input
    assert [d.dim_param or d.dim_value for d in given_.type.tensor_type.shape.dim] == ["batch", 1, 4, 4]


def test_original_weights_are_kept_bit_for_bit(tmp_path: Path) -> None:
    """Normalisation stays a step of its own, so that no weight is rounded by being folded."""
    module = nets.random_resnet(0)
    path = tmp_path / "net.onnx"
    write_onnx(to_network(module, (1, 4, 4)), path)
    kept = [torch.from_numpy(onnx.numpy_helper.to_array(t).copy()) for t in onnx.load(str(path)).graph.initializer]
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            assert any(torch.equal(part.weight, other) for other in kept)


def test_a_network_without_an_oracle(tmp_path: Path) -> None:
    eye = torch.eye(3, dtype=torch.float64)
    assert_same(chain((3,), [Linear(eye / 3, eye[0]), Relu()]), tmp_path / "net.onnx")


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write"):
        write_onnx(to_network(nets.random_mlp(0), (4,)), tmp_path / "nowhere" / "net.onnx")


def test_a_copy_that_differs_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.onnx"
    path.write_text("old")
    other = write.encode(to_network(nets.random_mlp(1), (4,)))
    monkeypatch.setattr(write, "encode", lambda network: other)
    with pytest.raises(InternalError, match="differs"):
        write_onnx(to_network(nets.random_mlp(0), (4,)), path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


def test_weights_beyond_the_range_of_the_dtype(tmp_path: Path) -> None:
    eye = torch.eye(2, dtype=torch.float64)
    with pytest.raises(InputError, match="range"):
        write_onnx(chain((2,), [Linear(1e300 * eye, eye[0])]), tmp_path / "net.onnx")


def test_an_operation_without_a_counterpart(tmp_path: Path) -> None:
    class Odd(Op):
        pass

    network = chain((2,), [Relu()])
    odd = Network((network.nodes[0], type(network.nodes[1])(Odd(), (0,), (2,))))
    with pytest.raises(UnsupportedError, match="Odd"):
        write_onnx(odd, tmp_path / "net.onnx")
