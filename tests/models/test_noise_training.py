"""Tests of the recipes for randomized smoothing: their losses by hand, and what they are for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.models import architectures, data, training
from assay.models.training import Step, Training, isolated
from assay.models.training.consistency import Consistency
from assay.models.training.erasing import Erasing
from assay.models.training.gaussian import Gaussian
from assay.models.training.noise import gaussian_noise
from assay.models.training.smoothadv import SmoothAdv, ascend
from assay.models.training.standard import Standard
from assay.verify.backends.smoothing.method import Smoothing
from assay.verify.core.errors import InputError
from assay.verify.core.problem import Problem


def step(progress: float = 1.0) -> Step:
    return Step(progress, torch.Generator().manual_seed(0), (0.0, 1.0))


def case() -> tuple[nn.Module, Tensor, Tensor]:
    with isolated(0):
        model = architectures.parse("mlp(hidden=20)").build((1, 8, 8), 10)
    digits = data.load("digits", "train").take(40)
    return model.train(), digits.x, digits.y


def test_gaussian_augmentation_is_the_mean_over_the_copies() -> None:
    model, x, y = case()
    noise = gaussian_noise(x, 0.3, 3, step().generator)
    assert noise.shape == (3, *x.shape)
    assert float(noise.std()) == pytest.approx(0.3, rel=0.05)
    expected = torch.stack([F.cross_entropy(model(x + part), y) for part in noise]).mean()
    torch.testing.assert_close(Gaussian(0.3, 3).loss(model, x, y, step()), expected)


def test_consistency_is_a_divergence_and_an_entropy() -> None:
    model, x, y = case()
    noise = gaussian_noise(x, 0.3, 2, step().generator)
    each = torch.stack([F.softmax(model(x + part), 1) for part in noise])
    mean = each.mean(0)
    natural = torch.stack([F.cross_entropy(model(x + part), y) for part in noise]).mean()
    divergence = (mean * (mean / each).log()).sum(2).mean()
    entropy = -(mean * mean.log()).sum(1).mean()
    loss = Consistency(0.3, agreement=7.0, sharpness=0.2).loss(model, x, y, step())
    torch.testing.assert_close(loss, natural + 7 * divergence + 0.2 * entropy)
    assert float(divergence.detach()) > 0


def test_smoothadv_moves_within_its_radius_to_where_the_smoothed_loss_is_larger() -> None:
    model, x, y = case()
    noise = gaussian_noise(x, 0.2, 4, step().generator)
    delta = ascend(model, x, y, noise, 0.5, 5)
    lengths = delta.flatten(1).norm(dim=1)
    assert float(lengths.max()) <= 0.5 * (1 + 1e-5)
    assert float(lengths.min()) > 0.1
    assert model.training

    def loss(at: Tensor) -> Tensor:
        p = torch.stack([F.softmax(model(at + part), 1) for part in noise]).mean(0)
        return -p.gather(1, y[:, None])[:, 0].log()

    assert bool((loss(x + delta) > loss(x)).all())


def test_the_radius_of_smoothadv_grows_from_zero() -> None:
    model, x, y = case()
    plain = Gaussian(0.2, 2).loss(model, x, y, step())
    recipe = SmoothAdv(0.2, radius=0.5, copies=2, warmup=0.5)
    losses = [float(recipe.loss(model, x, y, step(progress)).detach()) for progress in (0.0, 0.25, 0.5, 1.0)]
    assert losses[0] == pytest.approx(float(plain.detach()))
    assert losses[0] < losses[1] < losses[2]
    assert losses[2] == losses[3]


@pytest.mark.slow  # four networks are trained
def test_noise_in_training_buys_certified_radius() -> None:
    digits = data.load("digits", "train").take(320)
    radii = {}
    for recipe in (Standard(), Gaussian(0.3), Consistency(0.3), SmoothAdv(0.3, radius=0.3)):
        with isolated(0):
            model = architectures.parse("mlp(hidden=30)").build((1, 8, 8), 10)
        list(Training(recipe, epochs=15, batch=32, lr=1e-2).run(model, digits))
        method = Smoothing(sigma=0.3, n=1000)
        shares = []
        for x, y in zip(digits.x[:12], digits.y[:12].tolist(), strict=True):
            certified = method.certify(Problem.robustness(model, x, y, 0.0, 2), 2, seed=0)
            shares.append(certified.radius if certified.prediction == y else 0.0)
        radii[recipe.name] = sum(shares) / len(shares)
    assert min(radii["gaussian"], radii["consistency"], radii["smoothadv"]) > radii["standard"] + 0.03, radii


@pytest.mark.parametrize(
    "text",
    [
        "gaussian(sigma=0)",
        "gaussian(sigma=nan)",
        "gaussian(copies=0)",
        "consistency(copies=1)",
        "consistency(agreement=-1)",
        "consistency(sharpness=inf)",
        "smoothadv(radius=-1)",
        "smoothadv(steps=0)",
        "smoothadv(copies=0)",
        "smoothadv(warmup=nan)",
    ],
)
def test_impossible_options_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=text.partition("(")[0]):
        training.recipe(text)


@pytest.mark.parametrize(("seen", "pixels"), [("pixels", 6), ("band", 16), ("block", 4)])
def test_erased_images_show_what_the_vote_will(seen, pixels):
    met = []

    class Watched(nn.Module):
        def forward(self, x):
            met.append(x)
            return x.flatten(1)[:, :10]

    x = torch.rand(50, 2, 8, 8) + 0.1
    Erasing(seen, keep=0.1, width=2).loss(Watched(), x, torch.zeros(50, dtype=torch.int64), step())
    shown = met[0] != 0
    assert torch.equal(met[0][shown], x[shown])
    assert torch.equal(shown[:, 0], shown[:, 1])
    assert shown[:, 0].flatten(1).sum(1).tolist() == [pixels] * 50
    assert len({tuple(mask.flatten().tolist()) for mask in shown}) > 5
    for wrong in ({"seen": "ring"}, {"keep": 0.0}, {"width": 0}):
        with pytest.raises(InputError):
            Erasing(**wrong)
