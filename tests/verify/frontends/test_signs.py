"""Roots of sums of squares have bounds wherever the model has values, 0 included."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.verify.core.budget import Budget
from assay.verify.core.network import chain, to_network
from assay.verify.core.ops import Relu, Scale, Smooth
from assay.verify.core.region import LpBall
from assay.verify.frontends.signs import kept_positive
from assay.verify.registry import get_bounder
from tests.breadth import seeds
from tests.nets import generator

NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "norm": lambda h: h.norm(dim=1, keepdim=True),
    "root of squares": lambda h: (h * h).sum(1, keepdim=True).sqrt(),
    "normalize": lambda h: F.normalize(h, dim=1),
    "distance": lambda h: torch.linalg.vector_norm(h[:, :4] - h[:, 4:], dim=1, keepdim=True),
    "deviation": lambda h: h.std(dim=1, keepdim=True),
    "root of magnitudes": lambda h: h.abs().sum(1, keepdim=True) ** 0.5,
}


class Rooted(nn.Module):
    """A norm of a hidden layer, which is 0 at the point one half."""

    def __init__(self, norm: str) -> None:
        super().__init__()
        self.norm, self.first, self.last = NORMS[norm], nn.Linear(5, 8), nn.Linear(8, 3)
        with torch.no_grad():
            self.first.bias -= self.first(torch.full((5,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        logits: Tensor = self.last(torch.relu(h) + self.norm(h))
        return logits


@pytest.mark.parametrize("norm", list(NORMS))
@seeds(1, of=3)
def test_norms_are_bounded_about_0(norm: str, seeds: range) -> None:
    for seed in seeds:
        torch.manual_seed(seed)
        network = to_network(Rooted(norm).eval(), (5,))
        for eps in (0.01, 0.5):
            region = LpBall(torch.full((5,), 0.5), eps)
            x = 0.5 + eps * (2 * torch.rand(500, 5, generator=generator(seed)).double() - 1)
            y = network(x)
            for name in ("ibp", "crown", "alpha-crown"):
                bounds = get_bounder(name).bound(network, region, torch.eye(3).double(), Budget(seconds=60))
                assert bool(bounds.lower.isfinite().all() and bounds.upper.isfinite().all()), name
                assert bool(((y >= bounds.lower) & (y <= bounds.upper)).all()), name


def test_what_may_be_below_0_is_left_alone() -> None:
    for shift, kept in ((-0.1, 0), (0.1, 1)):
        ops = [Smooth("square"), Scale(torch.tensor(2.0), torch.tensor(shift)), Smooth("sqrt")]
        made = kept_positive(chain((3,), ops))
        assert sum(isinstance(node.op, Relu) for node in made.nodes) == kept
        x = torch.randn(20, 3, generator=generator(0)).double()
        torch.testing.assert_close(made(x), chain((3,), ops)(x), equal_nan=True)
