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
from assay.verify.core.ops import Product, Smooth
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
