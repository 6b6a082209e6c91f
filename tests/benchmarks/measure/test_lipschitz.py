"""The measurements of Lipschitz constants: their order, exact norms, and radii below the true distance on spheres."""

from __future__ import annotations

from math import inf, isnan

import pytest
import torch

from assay.benchmarks.measure.lipschitz import SPHERES, exact_product, largest, measure, steepest, training_on
from assay.models.data import spheres
from assay.verify.backends.lipschitz.product import constants
from assay.verify.core.budget import Budget
from assay.verify.core.network import to_network
from assay.verify.core.region import LpBall
from assay.verify.registry import list_verifiers
from tests import nets
from tests.breadth import few


@pytest.mark.slow
@pytest.mark.parametrize("name", few(["digits-mlp-pgd", "digits-cnn-pgd"], quick=["digits-mlp-pgd"]))
def test_constants_are_in_order_and_close_to_exact_norms(name: str) -> None:
    row = measure(name)
    assert row.ordered
    assert row.gradient <= row.local * (1 + 1e-9)
    assert 1 - 1e-9 <= row.ratio <= 1.02
    assert row.seconds_product > 0
    assert isnan(row.lipsdp) or row.local <= row.lipsdp * (1 + 1e-4) <= row.product * (1 + 2e-4)


def test_the_product_of_exact_norms_is_below_the_sound_one() -> None:
    network = to_network(nets.random_cnn(0), (1, 6, 6))
    exact, sound = exact_product(network), constants(network, 2, Budget())[-1].upper
    assert exact <= sound <= exact * 1.01
    assert isnan(exact_product(to_network(nets.random_resnet(0), (1, 4, 4))))


def test_the_search_finds_the_gradient_of_a_linear_function() -> None:
    network = to_network(nets.random_mlp(0, (3, 2)), (3,))
    row = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    ball = LpBall(torch.zeros(3), 0.1, 2, None)
    true = torch.autograd.functional.jacobian(lambda x: network(x[None])[0] @ row[0], torch.zeros(3).double()).norm()
    assert steepest(network, ball, row) == pytest.approx(true.item())


@pytest.mark.slow  # it trains a network
def test_no_radius_passes_the_distance_to_the_other_sphere() -> None:
    model = training_on(spheres.sample(1000, 2, "train"))
    test = spheres.sample(4, 2, "test", seed=1)
    network = to_network(model, test.shape)
    assert bool((network(spheres.opposite(test.x)).argmax(1) != test.y).all())
    for method in ("lipschitz", "lipschitz(scope=local)", "crown"):
        for x, label in zip(test.x, test.y.tolist(), strict=True):
            assert 0 < largest(method, network, x, label, 0.3, 6) < 0.3
    for method in ("lipschitz", "crown", "input-split", "milp"):
        for x, label, far in zip(test.x, test.y.tolist(), spheres.distance(test.x, inf).tolist(), strict=True):
            assert 0 < largest(method, network, x, label, far, 5, inf) < far


def test_every_method_that_certifies_is_measured_on_the_spheres() -> None:
    silent = {
        "derandomized-attack",
        "attack",
        "auto",
        "cells",
        "smoothing",
        "smoothing-attack",
        "layer-smoothing",
        "layer-smoothing-attack",
        "derandomized",
        "pieces",
    }
    assert {text.partition("(")[0] for text in SPHERES} == set(list_verifiers()) - silent
