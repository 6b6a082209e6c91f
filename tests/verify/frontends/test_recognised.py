"""Products that are curves, written out as models write them, become the curves."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from assay.verify.core.network import to_network
from assay.verify.core.ops import Normalised, Product, Smooth
from tests.nets import generator
from tests.verify.frontends.test_torch import Forward

WRITTEN: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "silu": (lambda x: x * x.sigmoid(), "silu"),
    "silu, turned": (lambda x: x.sigmoid() * x, "silu"),
    "swish": (lambda x: 3 * x * (1.7 * x).sigmoid(), "silu"),
    "silu of a tanh": (lambda x: x * (1 + (x / 2).tanh()), "silu"),
    "gelu": (lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2))), "gelu"),
    "gelu, the half last": (lambda x: 0.5 * (x * (torch.erf(x * math.sqrt(0.5)) + 1)), "gelu"),
    "gelu, wider": (lambda x: x * (1 + torch.erf(0.5 * x)), "gelu"),
    "gelu by tanh": (
        lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        "gelu_tanh",
    ),
    "gelu by tanh, products": (
        lambda x: 0.5 * x * (1 + torch.tanh((x + 0.044715 * (x * x * x)) * math.sqrt(2 / math.pi))),
        "gelu_tanh",
    ),
    "mish": (lambda x: x * torch.tanh(F.softplus(x)), "mish"),
    "softsign": (lambda x: x / (1 + x.abs()), "softsign"),
    "softsign by torch": (F.softsign, "softsign"),
    "a cube": (lambda x: x * (x * x), "power"),
    "an inverse root": (lambda x: 1 / (1 + x * x).sqrt(), "power"),
}
LIKENESSES: dict[str, Callable[[Tensor], Tensor]] = {
    "another value": lambda x: (x + 0.1) * x.sigmoid(),
    "turned around": lambda x: x * (-x).sigmoid(),
    "shifted inside": lambda x: x * (x + 0.1).sigmoid(),
    "another share": lambda x: x * (0.4 + 0.5 * torch.tanh(x / 2)),
    "another constant": lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.05 * x**3))),
    "another order": lambda x: x * x.flip(1).sigmoid(),
    "tanh of another": lambda x: x * torch.tanh(F.softplus(x) + 0.1),
    "softsign of two": lambda x: x / (2 + x.abs()),
    "half a softsign": lambda x: x / (1 + x.relu()),
    "per feature": lambda x: x * (x * torch.tensor([1.0, 2.0, 3.0, 4.0])).sigmoid(),
}


def read(function: Callable[[Tensor], Tensor]) -> Any:
    """The network of the function after a layer, equal to it."""
    layer = torch.nn.Linear(4, 4)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(4, 4, generator=generator(0)))
    model = Forward(lambda m, x: function(m.a(x)), a=layer).eval()
    network = to_network(model, (4,))
    x = 3 * torch.randn(50, 4, generator=generator(1))
    torch.testing.assert_close(network(x.double()).float(), model(x).detach(), rtol=1e-4, atol=1e-5)
    return network


@pytest.mark.parametrize("name", WRITTEN)
def test_they_are_the_curve(name: str) -> None:
    function, curve = WRITTEN[name]
    network = read(function)
    assert not any(isinstance(node.op, Product) for node in network.nodes)
    assert [node.op.curve for node in network.nodes if isinstance(node.op, Smooth)][-1] == curve
    assert name == "an inverse root" or any(isinstance(node.op, Product) for node in network.literal.nodes)


@pytest.mark.parametrize("name", LIKENESSES)
def test_what_only_looks_so_stays(name: str) -> None:
    network = read(LIKENESSES[name])
    assert any(isinstance(node.op, Product) for node in network.nodes)


def centred(x: Tensor) -> Tensor:
    """Less the mean of each row."""
    return x - x.mean(-1, keepdim=True)


def channels_first(x: Tensor) -> Tensor:
    """By the statistics of the channels at each place."""
    mean = x.mean(1, keepdim=True)
    return (x - mean) / torch.sqrt((x - mean).pow(2).mean(1, keepdim=True) + 1e-3)


NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "layer": lambda x: centred(x) / (centred(x).square().mean(-1, keepdim=True) + 1e-3).sqrt(),
    "channels first": lambda x: channels_first(x.view(-1, 2, 2)),
    "layer by powers": lambda x: centred(x) * (centred(x).pow(2).mean(-1, keepdim=True) + 1e-3).pow(-0.5),
    "root mean square": lambda x: (x.square().mean(-1, keepdim=True) + 1e-3).rsqrt() * x,
    "root mean square by torch": lambda x: F.rms_norm(x, x.shape[-1:], eps=1e-3),
    "in another order": lambda x: x.flip(1) / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt(),
    "a length": lambda x: x / (0.5 * x.square().sum(-1, keepdim=True) + 0.1).sqrt(),
    "rows": lambda x: F.rms_norm(x.view(-1, 2, 2), (2,), eps=1e-3),
}
NO_NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "of another value": lambda x: (x + 1) / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt(),
    "of some values": lambda x: x / (x[:, :2].square().mean(-1, keepdim=True) + 1e-3).sqrt(),
    "of weighed squares": lambda x: x / (x.square() @ torch.tensor([[1.0], [2.0], [1.0], [1.0]]) + 1e-3).sqrt(),
    "of other rows": lambda x: x.view(-1, 2, 2) * F.rms_norm(x, (4,)).view(-1, 2, 2).square().mean(-1, keepdim=True),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms(name: str) -> None:
    network = read(NORMS[name])
    assert any(isinstance(node.op, Normalised) for node in network.nodes)
    assert not any(isinstance(node.op, Product) for node in network.nodes)


@pytest.mark.parametrize("name", NO_NORMS)
def test_what_is_no_norm(name: str) -> None:
    network = read(NO_NORMS[name])
    assert any(isinstance(node.op, Product) for node in network.nodes)
