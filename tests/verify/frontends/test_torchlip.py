"""Tests of verify.frontends.torchlip: models of deel-torchlip's layers are read as what they compute, and bounded."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from itertools import product
from math import inf
from typing import Any

import pytest
import torch
from torch import nn

from assay.verify.backends.lipschitz.product import constants
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.network import Network, to_network
from assay.verify.core.ops import Max
from assay.verify.core.problem import Problem
from assay.verify.core.result import Verdict
from assay.verify.frontends.torchlip import comparisons
from assay.verify.registry import get_verifier
from assay.verify.solving.stages import decide
from tests import nets

D = torch.float64
VECTOR, LINE, IMAGE = (6,), (2, 4), (2, 4, 4)


@pytest.fixture(scope="module")
def torchlip() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("deel.torchlip")


CASES: dict[str, tuple[tuple[int, ...], Callable[[Any], list[nn.Module]]]] = {
    "spectral": (VECTOR, lambda t: [t.SpectralLinear(6, 8), nn.ReLU(), t.SpectralLinear(8, 3)]),
    "without Bjorck": (VECTOR, lambda t: [t.SpectralLinear(6, 8, eps_bjorck=None), nn.ReLU()]),
    "scaled": (VECTOR, lambda t: [t.SpectralLinear(6, 8, k_coef_lip=3.0), t.GroupSort2(k_coef_lip=2.0)]),
    "frobenius": (VECTOR, lambda t: [t.FrobeniusLinear(6, 8), t.FrobeniusLinear(8, 3, disjoint_neurons=False)]),
    "pairs": (VECTOR, lambda t: [t.SpectralLinear(6, 8), t.GroupSort2(), t.SpectralLinear(8, 3)]),
    "groups of three": (VECTOR, lambda t: [t.SpectralLinear(6, 9), t.GroupSort(3), t.SpectralLinear(9, 3)]),
    "full sort": (VECTOR, lambda t: [t.SpectralLinear(6, 5), t.FullSort(), t.SpectralLinear(5, 3)]),
    "max-min": (VECTOR, lambda t: [t.SpectralLinear(6, 8), t.MaxMin(), t.SpectralLinear(16, 3)]),
    "max-min scaled": (IMAGE, lambda t: [t.MaxMin(dim=2, k_coef_lip=0.5), nn.Flatten(), t.SpectralLinear(64, 3)]),
    "convolution": (IMAGE, lambda t: [t.SpectralConv2d(2, 4, 3, padding=1), t.GroupSort2(), t.ScaledAvgPool2d(2)]),
    "strides": (IMAGE, lambda t: [t.SpectralConv2d(2, 4, 3, stride=2), t.FullSort(), nn.Flatten()]),
    "reflected": (IMAGE, lambda t: [t.SpectralConv2d(2, 4, 3, padding=1, padding_mode="reflect")]),
    "symmetric": (IMAGE, lambda t: [t.SpectralConv2d(2, 4, 5, padding=2, padding_mode="symmetric"), t.GroupSort2()]),
    "frobenius convolution": (IMAGE, lambda t: [t.FrobeniusConv2d(2, 4, 3), t.GroupSort2()]),
    "transposed": (IMAGE, lambda t: [t.SpectralConvTranspose2d(2, 4, 3, stride=2), t.GroupSort2()]),
    "sequences": (LINE, lambda t: [t.SpectralConv1d(2, 4, 3, padding=1), t.GroupSort(4), nn.Flatten()]),
    "pooled": (IMAGE, lambda t: [t.InvertibleDownSampling(2), t.ScaledAdaptiveAvgPool2d((1, 1)), nn.Flatten()]),
    "mirrors": (VECTOR, lambda t: [t.SpectralLinear(6, 8), t.HouseHolder(8), t.SpectralLinear(8, 3)]),
    "mirrored channels": (IMAGE, lambda t: [t.SpectralConv2d(2, 4, 3, padding=1), t.HouseHolder(4)]),
    "leaky": (IMAGE, lambda t: [t.SpectralConv2d(2, 4, 3), t.LPReLU(4, init=0.3), nn.Flatten()]),
    "leaky to the other side": (LINE, lambda t: [t.LPReLU(init=-0.8), nn.Flatten(), t.SpectralLinear(8, 3)]),
    "leaky scaled": (VECTOR, lambda t: [t.SpectralLinear(6, 5), t.LPReLU(init=1.9, k_coef_lip=2.0)]),
    "centred": (VECTOR, lambda t: [t.SpectralLinear(6, 8), t.BatchCentering(8), nn.ReLU()]),
    "centred channels": (IMAGE, lambda t: [t.SpectralConv2d(2, 4, 3), t.BatchCentering(4, bias=False)]),
    "normalised": (IMAGE, lambda t: [t.SpectralConv2d(2, 4, 3), t.BatchLipNorm(4), t.GroupSort2()]),
    "images centred": (IMAGE, lambda t: [t.SpectralConv2d(2, 4, 3), t.LayerCentering(4), t.GroupSort2()]),
    "up": (IMAGE, lambda t: [t.SpectralConv2d(2, 4, 1), t.InvertibleUpSampling(2), nn.Flatten()]),
}


def model(torchlip: Any, name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A model of the package as it is after some training steps, in eval mode."""
    shape, layers = CASES[name]
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of layers that the package itself does not take for Lipschitz
        made = torchlip.Sequential(*layers(torchlip))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
        for _ in range(5):
            made.train()(torch.randn(5, *shape))
        made.eval()(torch.randn(2, *shape))  # what was kept from the last step is dropped
    return made, shape


@pytest.mark.parametrize("name", CASES)
def test_a_model_is_read_as_what_it_computes(torchlip: Any, name: str) -> None:
    module, shape = model(torchlip, name)
    x = 3 * torch.randn(50, *shape, generator=nets.generator(1))
    before = module(x)
    network = to_network(module, shape)
    torch.testing.assert_close(network(x.double()), before.double(), rtol=1e-5, atol=1e-5)
    assert not any(isinstance(node.op, Max) for node in network.nodes)
    assert torch.equal(module(x), before)


@pytest.mark.parametrize("p", [1, 2, inf])
@pytest.mark.parametrize("name", CASES)
def test_slopes_never_exceed_our_bound(torchlip: Any, name: str, p: float) -> None:
    network = to_network(*model(torchlip, name))
    upper = constants(network, p, Budget())[-1].upper
    assert steepest(network, p) <= upper * (1 + 1e-9)


def steepest(network: Network, p: float) -> float:
    """The largest ``||f(x) - f(y)||_p / ||x - y||_p`` over 2,000 pairs, most of them close."""
    rng = nets.generator(7)
    x, step = torch.randn(2, 2000, *network.input_shape, dtype=D, generator=rng)
    step *= torch.logspace(-3, 0, 2000, dtype=D).view(-1, *[1] * (x.dim() - 1))
    rise = (network(x + step) - network(x)).flatten(1).norm(p=p, dim=1)
    return (rise / step.flatten(1).norm(p=p, dim=1)).max().item()


@pytest.mark.parametrize("name", ["pairs", "groups of three", "full sort", "max-min", "mirrors"])
def test_sorting_and_splitting_cost_nothing(torchlip: Any, name: str) -> None:
    """The bound is the product of the fully connected layers' norms: those of their singular values."""
    module, shape = model(torchlip, name)
    exact = 1.0
    for part in module.modules():
        if isinstance(part, nn.Linear):
            exact *= torch.linalg.matrix_norm(part.weight.detach().double(), 2).item()
    bound = constants(to_network(module, shape), 2, Budget())[-1].upper
    assert exact <= bound <= exact * (1 + 1e-6)


def test_what_the_package_claims_is_not_believed(torchlip: Any) -> None:
    """Layers are said to be 1-Lipschitz; with weights that are not normalised, or reflected borders, they are not."""
    stale = torchlip.Sequential(torchlip.SpectralLinear(4, 4)).eval()
    stale[0].parametrizations.weight[1]._w_bjorck.mul_(2)
    assert constants(to_network(stale, (4,)), 2, Budget())[-1].upper >= 2 - 1e-6
    conv = torchlip.SpectralConv2d(1, 1, 3, padding=1, padding_mode="reflect").eval()
    conv.parametrizations.weight[1]._w_bjorck.copy_(torch.full((1, 1, 3, 3), 1 / 3))
    matrix = conv.double()(torch.eye(16, dtype=D).view(16, 1, 4, 4)).flatten(1) - conv.bias
    exact = torch.linalg.matrix_norm(matrix, 2).item()
    assert exact > 1.01
    assert constants(to_network(conv, (1, 4, 4)), 2, Budget())[-1].upper >= exact


def test_a_certificate(torchlip: Any) -> None:
    """Certified within the radius; and an exact method finds what is beyond it, so that both read one network."""
    module, shape = model(torchlip, "pairs")
    x = torch.randn(6, generator=nets.generator(2))
    label = int(module(x[None]).argmax())

    def asked(method: str, eps: float) -> Any:
        problem = Problem.robustness(to_network(module, shape), x, label, eps, domain=None)
        return decide(get_verifier(method), [problem], Budget(seconds=60))[0]

    radius = asked("lipschitz", 1e-6).stats["radius"]
    assert radius > 0
    assert asked("lipschitz", radius * 0.999).verdict is Verdict.VERIFIED
    assert asked("milp", radius * 0.999).verdict is Verdict.VERIFIED
    assert asked("milp", 100.0).verdict is Verdict.FALSIFIED


def test_what_is_not_read_is_refused(torchlip: Any) -> None:
    for layer in (torchlip.ScaledL2NormPool2d(2), torchlip.LayerCentering(dim=[-1]), torchlip.MaxMin(dim=0)):
        with pytest.raises((UnsupportedError, InputError)):
            to_network(nn.Sequential(copy.deepcopy(layer)).eval(), VECTOR)


def test_statistics_kept_from_a_step_of_training_are_in_nobodys_way(torchlip: Any) -> None:
    module = nn.Sequential(nn.Linear(6, 6), torchlip.BatchCentering(6))
    module(torch.rand(5, 6))
    x = torch.rand(4, 6)
    torch.testing.assert_close(to_network(module.eval(), VECTOR)(x), module(x).detach())


@pytest.mark.parametrize("size", range(1, 11))
def test_comparisons_sort(size: int) -> None:
    """A network of comparisons that sorts all zeros and ones sorts everything (Knuth); pairs of a round are apart."""
    rounds = comparisons(size)
    for pairs in rounds:
        ends = [end for pair in pairs for end in pair]
        assert len(ends) == len(set(ends))
    for values in product((0, 1), repeat=size):
        found = list(values)
        for low, high in (pair for pairs in rounds for pair in pairs):
            found[low], found[high] = min(found[low], found[high]), max(found[low], found[high])
        assert found == sorted(values)
