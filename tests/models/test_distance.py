"""Layers of l_inf distances: their values, their constant of 1, and what certifies half of the margin."""

from __future__ import annotations

from math import inf

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from assay.attacks import get_attack
from assay.models import architectures, data, training, zoo
from assay.models.data import Dataset
from assay.models.distance import LinfDistance, linf_distance_net, set_exponent
from assay.models.training import Step
from assay.models.training.linf_margin import LinfMargin
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError
from assay.verify.core.network import to_network
from assay.verify.core.problem import Problem
from assay.verify.core.result import Verdict
from assay.verify.registry import get_verifier


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


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return data.load("digits", "train").take(400)


def fresh(text: str = "linf-distance(hidden=64)") -> nn.Module:
    with training.isolated(0):
        return architectures.parse(text).build((1, 8, 8), 10)


def at(progress: float) -> Step:
    return Step(progress, torch.Generator().manual_seed(0), (0.0, 1.0))


def certified(model: nn.Module, test: Dataset, eps: float) -> float:
    problems = Problem.robustness_many(model, test.x, test.y, eps)
    results = [get_verifier("lipschitz").verify(problem, Budget()) for problem in problems]
    return sum(result.verdict is Verdict.VERIFIED for result in results) / len(results)


@pytest.mark.slow  # two networks are trained
def test_the_recipe_certifies_more_the_larger_its_radius(digits: Dataset) -> None:
    test, shares = data.load("digits").take(60), []
    for text in ("linf-margin(eps=0.0)", "linf-margin(eps=0.15)"):
        model = fresh()
        list(training.Training(training.recipe(text), epochs=25, batch=50, lr=0.05).run(model, digits))
        assert training.clean_accuracy(model, test) > 0.6
        shares.append(certified(model, test, 0.1))
    assert shares[1] > shares[0] + 0.1


def test_the_loss_is_that_of_the_worst_logits_within_the_radius(digits: Dataset) -> None:
    """At the end of the training: no logits of points in the ball have a larger one, and distances are exact."""
    model, recipe = fresh().train(), LinfMargin(eps=0.1, scale=3.0)
    x, y = digits.x[:20], digits.y[:20]
    with torch.no_grad():
        worst = recipe.loss(model, x, y, at(1.0))
        torch.testing.assert_close(model(x), model.eval()(x))
        for _ in range(20):
            near = x + 0.1 * (2 * torch.rand_like(x) - 1).sign()
            assert F.cross_entropy(3.0 * model(near), y) <= worst + 1e-5
        plain = LinfMargin(eps=0.1, scale=3.0).loss(model.train(), x, y, at(0.0))
        set_exponent(model, 2.0)
        torch.testing.assert_close(plain, F.cross_entropy(3.0 * model(x), y))


def test_the_recipe_refuses_other_networks_and_bad_options() -> None:
    with pytest.raises(InputError, match="--arch linf-distance"):
        LinfMargin().prepare(fresh("mlp(hidden=5)"), at(0.0))
    for text in ("eps=-1", "scale=0", "first=0.5", "first=9,last=8", "end=1.5"):
        with pytest.raises(InputError, match="linf-margin"):
            training.recipe(f"linf-margin({text})")


@pytest.mark.slow
def test_the_network_of_the_zoo_has_certificates_that_are_not_trivial() -> None:
    """Half of the margin is the radius of each sample; no attack breaks what is certified."""
    model, test = zoo.load("digits-linf-distance"), data.load("digits").take(40)
    assert certified(model, test, 0.1) > 0.7
    network = to_network(model, test.shape)
    top = network(test.x.double()).topk(2)
    right = (top.indices[:, 0] == test.y).nonzero().flatten()[:10]
    for i in right.tolist():
        half = (top.values[i, 0] - top.values[i, 1]).item() / 2
        problem = Problem.robustness(network, test.x[i], int(test.y[i]), 0.99 * half)
        result = get_verifier("lipschitz").verify(problem, Budget())
        assert result.verdict is Verdict.VERIFIED
        assert result.stats["radius"] == pytest.approx(half, rel=1e-4)
        assert not bool(get_attack("pgd").search([problem]).success)


def test_bad_sizes_and_exponents_are_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        LinfDistance(0, 3)
    with pytest.raises(InputError, match="exponent"):
        set_exponent(linf_distance_net((2,), 2), 0.5)
