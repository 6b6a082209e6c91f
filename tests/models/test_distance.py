"""Layers of l_inf distances: their values, their constant of 1, and what certifies half of the margin."""

from __future__ import annotations

from math import inf

import pytest
import torch
from torch.nn import functional as F

from attacks import get_attack
from models import data, training
from models.distance import LinfDistance, linf_distance_net, set_exponent
from verify.core.budget import Budget
from verify.core.errors import InputError
from verify.core.network import to_network
from verify.core.problem import Problem
from verify.registry import get_verifier


def test_values_are_distances() -> None:
    layer = LinfDistance(5, 3).eval()
    x = torch.randn(7, 5)
    expected = torch.cdist(x, layer.weight, p=inf) + layer.bias
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer.train()(x), expected)
    layer.p = 4.0
    torch.testing.assert_close(layer(x), torch.cdist(x, layer.weight, p=4) + layer.bias)
    torch.testing.assert_close(layer.eval()(x), expected)


def test_half_of_the_margin_is_certified() -> None:
    torch.manual_seed(0)
    model = linf_distance_net((4,), 3, (6, 5)).eval()
    network = to_network(model, (4,))
    for x in torch.rand(5, 4):
        scores = network(x[None].double())[0]
        top = scores.topk(2).values
        label = int(scores.argmax())
        result = get_verifier("lipschitz(norm=inf)").verify(Problem.robustness(network, x, label, 0.01), Budget())
        assert 1 <= result.stats["constant"] <= 1 + 1e-12
        assert result.stats["radius"] == pytest.approx((top[0] - top[1]).item() / 2, rel=1e-6)
        ball = Problem.robustness(network, x, label, result.stats["radius"] * 0.999, inf, None)
        assert not bool(get_attack("pgd").search([ball]).success)


def test_training_with_a_rising_exponent_learns_digits() -> None:
    train, test = data.load("digits", "train").take(400), data.load("digits").take(200)
    torch.manual_seed(0)
    model = linf_distance_net(train.shape, 10, (64,))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for epoch in range(14):
        set_exponent(model.train(), 8 * 1.3**epoch)
        for part in torch.randperm(400).split(50):
            loss = F.cross_entropy(20 * model(train.x[part]), train.y[part])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    assert training.clean_accuracy(model.eval(), test) > 0.5


def test_bad_sizes_and_exponents_are_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        LinfDistance(0, 3)
    with pytest.raises(InputError, match="exponent"):
        set_exponent(linf_distance_net((2,), 2), 0.5)
