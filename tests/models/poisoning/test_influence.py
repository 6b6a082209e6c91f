"""Tests of influence functions against training again without a sample, and of conjugate gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.models.poisoning.influence import Influence, conjugate_gradients
from assay.verify.core.errors import InputError

DAMPING = 0.05


def fitted(x: Tensor, y: Tensor, weights: Tensor) -> nn.Linear:
    """The minimiser of the weighted mean of the cross-entropies, with an l2 penalty: strictly convex."""
    model = nn.Linear(x.shape[1], 3).double()
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=60, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (F.cross_entropy(model(x), y, reduction="none") * weights).mean()
        loss = loss + DAMPING / 2 * sum(p.square().sum() for p in model.parameters())
        loss.backward()
        return loss

    optimizer.step(closure)
    return model.eval()


def test_influence_is_what_training_again_with_less_of_a_sample_shows() -> None:
    """Its rate, by a sample that weighs a hundredth less; and roughly, without the sample."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(30) % 3
    x = torch.randn(30, 4, generator=generator, dtype=torch.float64) + 2 * F.one_hot(y, 4).double()
    test_x = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    test_y = torch.arange(6) % 3
    model = fitted(x, y, torch.ones(30))
    predicted = Influence(damping=DAMPING).of(model, x, y, test_x, test_y)
    whole = F.cross_entropy(model(test_x), test_y, reduction="sum")
    predicted, whole = predicted.detach(), whole.detach()
    for less, tolerance in ((0.01, 0.02), (1.0, 0.5)):
        for i in range(4):
            weights = torch.ones(30)
            weights[i] -= less
            again = F.cross_entropy(fitted(x, y, weights)(test_x), test_y, reduction="sum").detach()
            rate = (again - whole) / less
            assert abs(float(predicted[i] - rate)) < tolerance * float(predicted.abs().max())


def test_conjugate_gradients_solve() -> None:
    matrix = torch.randn(12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    matrix = matrix @ matrix.T + 0.1 * torch.eye(12, dtype=torch.float64)
    b = torch.arange(12.0, dtype=torch.float64)
    solved = conjugate_gradients(lambda v: matrix @ v, b, 100, 1e-12)
    assert torch.allclose(matrix @ solved, b, atol=1e-8)
    with pytest.raises(InputError, match="damping"):
        conjugate_gradients(lambda v: -v, b, 5, 1e-8)
    with pytest.raises(InputError):
        Influence(steps=0)


def test_networks_in_float32_are_taken() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).eval()
    x, y = torch.rand(300, 2, 2), torch.arange(300) % 3
    influence = Influence(damping=1.0).of(model, x, y, x[:4], y[:4])
    assert influence.shape == (300,)
    assert bool(influence.isfinite().all())
    assert next(model.parameters()).dtype is torch.float32
