"""Tests of verify.frontends.onnx on networks of the verification competition, where these lie beside the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from assay.verify.frontends.onnx import read_onnx
from assay.verify.frontends.onnx.runtime import Runtime
from tests.nets import generator

FOLDER = Path(__file__).parents[4] / "shared" / "vnncomp"

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the competition's networks are not there")

# One network of each kind: shape of an input, outputs, ReLUs (and other operations that are not linear).
NETWORKS = {
    "mnist_fc/onnx/mnist-net_256x2.onnx": ((784, 1), 10, 512),
    "oval21/onnx/cifar_base_kw.onnx": ((3, 32, 32), 10, 3172),
    "oval21/onnx/cifar_wide_kw.onnx": ((3, 32, 32), 10, 6244),
    "acasxu/onnx/ACASXU_run2a_1_1_batch_2000.onnx": ((1, 1, 5), 5, 300),
    "sri_resnet_a/onnx/resnet_3b2_bn_mixup_adv_4.0_bs128_lr-1.onnx": ((3, 32, 32), 10, 11364),
    "cifar10_resnet/onnx/resnet_2b.onnx": ((3, 32, 32), 10, 6244),
    "marabou-cifar10/onnx/cifar10_small.onnx": ((32, 32, 3), 10, 2568),
    "eran/onnx/mnist_relu_9_200.onnx": ((1, 28, 28), 10, 1610),
    "eran/onnx/ffnnSIGMOID__Point_6x200.onnx": ((1, 28, 28), 10, 1200),
    "verivital/onnx/Convnet_avgpool.onnx": ((1, 28, 28), 10, 23328),
    "verivital/onnx/Convnet_maxpool.onnx": ((1, 28, 28), 10, 23328 + 1152),
    "collins_rul_cnn/onnx/NN_rul_small_window_20.onnx": ((1, 20, 20), 1, 5500),
    "rl_benchmarks/onnx/dubinsrejoin.onnx": ((8,), 8, 512),
    "reach_prob_density/onnx/vdp.onnx": ((3,), 3, 64),
    "tllverifybench/onnx/tllBench_n=2_N=M=8_m=1_instance_0_0.onnx": ((2,), 1, 252),
    "cifar_biasfield/onnx/cifar_bias_field_8.onnx": ((16,), 10, 45056),
    "test/onnx/test_nano.onnx": ((1,), 1, 1),
    "test/onnx/test_small.onnx": ((1,), 1, 4),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str) -> None:
    shape, outputs, curves = NETWORKS[name]
    network = read_onnx(FOLDER / name)
    assert (network.input_shape, network.output_size) == (shape, outputs)
    assert network.name == Path(name).stem
    curved = [n for n in network.nodes if n.op.label in ("Relu", "LeakyRelu", "Tanh", "Max")]
    assert sum(n.size for n in curved) == curves
    assert isinstance(network.oracle, Runtime)
    x = torch.rand(3, *shape, generator=generator(7))
    found = network(x.double())
    torch.testing.assert_close(network.oracle(x).double(), found, rtol=1e-3, atol=1e-3 * float(found.abs().max()))
