"""Projected gradient ascent: momentum by hand, diversified starts, and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from assay.attacks.common.projected_gradient import gradient
from assay.attacks.pgd import PGD
from assay.verify.core.errors import InputError
from assay.verify.core.region import Box


def test_momentum_by_hand() -> None:
    """Loss |x0 - 0.5| upside down: plain sign steps turn back at the kink, one unit of momentum carries across."""
    points: list[float] = []

    def model(x: Tensor) -> Tensor:
        points.append(float(x.detach()))
        return torch.cat([1 + (x - 0.5).abs(), torch.zeros_like(x)], 1)

    x = torch.tensor([[0.0]])
    region = Box(torch.tensor([[0.0]]), torch.tensor([[2.0]]))  # radius 1
    PGD(steps=3, step_size=0.375, momentum=0.0).run(model, x, torch.tensor([0]), region)
    assert points == [0.0, 0.375, 0.75, 0.375]
    points.clear()
    PGD(steps=3, step_size=0.375, momentum=1.0).run(model, x, torch.tensor([0]), region)
    assert points == [0.0, 0.375, 0.75, 1.125]


def test_diversified_starts_leave_a_plateau_that_others_do_not() -> None:
    """The margin is flat but for a thin ridge at the end of the range; a third output rises all the way to it."""
    first, last = nn.Linear(1, 2), nn.Linear(2, 3)
    net = nn.Sequential(first, nn.ReLU(), last).requires_grad_(False).eval()
    first.weight.copy_(torch.ones(2, 1))
    first.bias.copy_(torch.tensor([-0.9999, 0.0]))
    last.weight.copy_(torch.tensor([[0.0, 0.0], [2e5, 0.0], [0.0, 1.0]]))
    last.bias.copy_(torch.tensor([1.0, 0.0, -100.0]))
    x, region, labels = torch.full((1, 1), 0.5), Box(torch.zeros(1, 1), torch.ones(1, 1)), torch.tensor([0])
    plain = PGD(steps=10, restarts=5, loss="margin").run(net, x, labels, region)
    diversified = PGD(steps=10, restarts=5, loss="margin", diversify=4).run(net, x, labels, region)
    assert not bool(plain.success.any())
    assert bool(diversified.success.all())
    assert int(diversified.queries) <= 5 * (10 + 4 + 1)


def test_gradients_are_finite_and_a_loss_without_one_is_refused() -> None:
    x = torch.tensor([[4.0], [0.0]], requires_grad=True)
    loss = x.sqrt().sum(1)  # infinite slope at 0
    assert gradient(loss, x)[0].tolist() == [0.25]
    assert bool(gradient(x.sqrt().sum(1), x).isfinite().all())
    for constant in (torch.zeros(2), torch.zeros(2, requires_grad=True)):
        with pytest.raises(InputError, match="does not depend differentiably on its input"):
            gradient(constant, x)
