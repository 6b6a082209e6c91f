"""Small models whose behaviour under attack is known or cheap to work out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from assay.verify.core.network import Network, chain
from assay.verify.core.ops import Linear, Op, Relu


def linear(weight: list[list[float]], bias: list[float]) -> nn.Module:
    """One affine layer in eval mode."""
    layer = nn.Linear(len(weight[0]), len(weight))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))
    return nn.Sequential(layer).eval()


def mlp(seed: int, inputs: int = 6, hidden: int = 12, classes: int = 4) -> nn.Module:
    """A random network of three layers in eval mode, shifted so that on average no class is ahead."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, classes)
        model = nn.Sequential(*layers).eval()
    with torch.no_grad():
        layers[-1].bias -= model(samples(0, 256, inputs)).mean(0)
    return model


def samples(seed: int, n: int, inputs: int = 6) -> Tensor:
    """Uniform samples in [0, 1]."""
    return torch.rand(n, inputs, generator=torch.Generator().manual_seed(seed))


def network(model: nn.Module, inputs: int, oracle: bool = True) -> Network:
    """The operations of a sequence of linear layers and ReLUs, with the module as its oracle."""
    assert isinstance(model, nn.Sequential)
    ops: list[Op] = [
        Linear(layer.weight.detach(), layer.bias.detach()) if isinstance(layer, nn.Linear) else Relu()
        for layer in model
    ]
    return chain((inputs,), ops, oracle=model if oracle else None)


class Counting(nn.Module):
    """A module that counts the samples it has seen."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.seen = 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        out: Tensor = self.inner(x)
        return out
