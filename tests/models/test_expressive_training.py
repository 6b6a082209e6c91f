"""Expressive losses: their formulas, what they become at their ends, points and boxes inside of the ball, gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.models import architectures, data, training
from assay.models.data import Dataset
from assay.models.training import Step, Training, certified_accuracy, clean_accuracy, isolated
from assay.models.training.certified import Boxes, Live, ball, worst_case
from assay.models.training.expressive import CCIBP, EXPIBP, MTLIBP, SABR, Expressive, Mixed
from assay.models.training.ibp import IBP
from assay.verify.core.errors import InputError

ARCHITECTURES = ["mlp(hidden=20-20,batchnorm=true)", "cnn(channels=4-8,hidden=10,batchnorm=true)"]
MIXED = [MTLIBP(), CCIBP(), EXPIBP()]
ALL = [*MIXED, SABR()]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """A small part of the training split."""
    return data.load("digits", "train").take(320)


def fresh(text: str = ARCHITECTURES[0]) -> nn.Module:
    with isolated(0):
        return architectures.parse(text).build((1, 8, 8), 10).train()


def at(progress: float = 1.0) -> Step:
    return Step(progress, torch.Generator().manual_seed(0), (0.0, 1.0))


# Logits less the label's, two samples: at the points found, and in the worst case.
POINT = torch.tensor([[0.0, 2.0, 3.0], [1.0, 0.0, 4.0]])
PROVEN = torch.tensor([[0.0, -1.0, 2.0], [-2.0, 0.0, 1.0]])
LABELS = torch.tensor([0, 1])


def cross_entropies(margins: Tensor) -> Tensor:
    """-log of the share that the label has of the sum of exp(-margin), written out."""
    return (-margins).exp().sum(1).log()


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_losses_are_those_of_the_paper(alpha: float) -> None:
    at_point, proven = cross_entropies(POINT), cross_entropies(PROVEN)
    expected = {
        MTLIBP(alpha=alpha): ((1 - alpha) * at_point + alpha * proven).mean(),
        CCIBP(alpha=alpha): cross_entropies((1 - alpha) * POINT + alpha * PROVEN).mean(),
        EXPIBP(alpha=alpha): (at_point ** (1 - alpha) * proven**alpha).mean(),
    }
    for recipe, value in expected.items():
        torch.testing.assert_close(recipe.between(POINT, PROVEN, LABELS), value)


def test_a_loss_that_vanishes_has_a_gradient() -> None:
    certain = torch.tensor([[0.0, 200.0, 200.0]], requires_grad=True)
    loss = EXPIBP(alpha=0.5).between(certain, certain, torch.tensor([0]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(0.0, abs=1e-11)
    assert certain.grad is not None
    assert bool(certain.grad.isfinite().all())


@pytest.mark.parametrize("recipe", [*(replace(recipe, alpha=1.0) for recipe in MIXED), SABR(tau=1.0)])
def test_all_of_the_weight_on_bounds_is_ibp(recipe: Expressive, digits: Dataset) -> None:
    for text in ARCHITECTURES:
        model = fresh(text)
        ours, ibp = (r.loss(model, digits.x, digits.y, at()) for r in (recipe, IBP(kappa=0.0, fast=True)))
        torch.testing.assert_close(ours, ibp)


@pytest.mark.parametrize("text", ARCHITECTURES)
def test_less_weight_on_bounds_is_less_loss_and_never_below_the_clean_one(text: str, digits: Dataset) -> None:
    """A box of intervals within another has better bounds, and points have better ones still."""
    model = fresh(text)
    clean = F.cross_entropy(model(digits.x), digits.y)
    for recipe in MIXED:
        losses = [replace(recipe, alpha=a).loss(model, digits.x, digits.y, at()).item() for a in (0.0, 0.2, 0.7, 1.0)]
        assert losses == sorted(losses)
        assert losses[0] > clean
    losses = [SABR(tau=tau).loss(model, digits.x, digits.y, at()).item() for tau in (0.0, 0.2, 0.7, 1.0)]
    assert losses == sorted(losses)
    assert losses[0] > clean


def test_points_and_small_boxes_stay_in_the_ball(digits: Dataset) -> None:
    live = Live.read(fresh(), digits.x, digits.y)
    whole = ball(digits.x, 0.1, (0.0, 1.0))
    for recipe in (MTLIBP(steps=3), CCIBP(rate=20.0)):
        point = recipe.attacked(live, whole, 0.1, at())
        assert bool(((whole.lower <= point) & (point <= whole.upper)).all())
    for tau in (0.0, 0.3, 1.0):
        _, boxes = SABR(tau=tau).mixture(live, digits.x, 0.1, at())
        small = boxes.bounds[0]
        assert bool(((whole.lower - 1e-7 <= small.lower) & (small.upper <= whole.upper + 1e-7)).all())
        assert (small.upper - small.lower).max().item() == pytest.approx(2 * tau * 0.1, abs=1e-6)


def test_points_are_bounded_by_what_is_proven_in_the_same_network(digits: Dataset) -> None:
    for text in ARCHITECTURES:
        live = Live.read(fresh(text), digits.x, digits.y)
        boxes = live.over(ball(digits.x, 0.05, (0.0, 1.0)))
        point = MTLIBP(steps=5).attacked(live, boxes.bounds[0], 0.05, at())
        logits = live.network(point)
        margins = logits.gather(1, digits.y[:, None]) - logits
        assert bool((margins >= boxes.margins(linear=False) - 1e-4).all())
        assert worst_case(margins, digits.y) > F.cross_entropy(live.logits, digits.y)


@pytest.mark.parametrize("recipe", ALL, ids=lambda recipe: recipe.name)
def test_gradients_are_those_of_finite_differences(recipe: Expressive, digits: Dataset) -> None:
    """In one direction, in float64, attack and generator held the same; statistics of the batch take part."""
    model = fresh("mlp(hidden=6,batchnorm=true)").double()
    x, y = digits.x[:24].double(), digits.y[:24]
    fixed = replace(recipe, steps=1, rate=1e9)  # corners, which tiny changes of the weights do not move

    def loss() -> Tensor:
        return fixed.loss(model, x, y, at(0.3))

    loss().backward()  # type: ignore[no-untyped-call]
    rng = torch.Generator().manual_seed(1)
    parameters = list(model.parameters())
    steps = [torch.randn(p.shape, generator=rng, dtype=p.dtype) for p in parameters]
    slope = sum((p.grad * s).sum().item() for p, s in zip(parameters, steps, strict=True) if p.grad is not None)
    values = []
    for sign in (1, -2):
        with torch.no_grad():
            for p, s in zip(parameters, steps, strict=True):
                p += sign * 1e-6 * s
        values.append(loss().item())
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(slope, rel=1e-3, abs=1e-6)


def test_before_the_ramp_the_loss_is_clean_cross_entropy(digits: Dataset) -> None:
    model = fresh()
    clean = F.cross_entropy(model(digits.x), digits.y)
    for recipe in (MTLIBP(begin=0.1), CCIBP(begin=0.1), EXPIBP(begin=0.1), SABR(begin=0.1)):
        torch.testing.assert_close(recipe.loss(model, digits.x, digits.y, at(0.05)), clean)


def test_regularisers_are_added_until_the_radius_is_there(digits: Dataset) -> None:
    model = fresh()
    for recipe in ALL:
        for progress, added in ((0.25, True), (0.5, False)):
            with_, without = (
                replace(recipe, regularise=weight).loss(model, digits.x, digits.y, at(progress)) for weight in (0.5, 0)
            )
            assert bool(with_ > without) is added


def test_bounds_of_a_trained_network_are_those_of_ibp_as_a_method(digits: Dataset) -> None:
    """Trained for a moment, in eval mode: live margins say of each sample what certified accuracy counts."""
    model = fresh()
    list(Training(SABR(eps=0.03, tau=0.8), epochs=3, batch=32, lr=1e-2).run(model, digits))
    margins = Boxes.around(model, digits.x, digits.y, 0.03, (0.0, 1.0)).margins(linear=False)
    proven = (margins > 0).scatter(1, digits.y[:, None], True).all(1)
    assert 0 < int(proven.sum()) < len(digits)
    assert certified_accuracy(model, digits, 0.03, linear=False) == pytest.approx(
        proven.float().mean().item(), abs=0.01
    )


@pytest.mark.parametrize("text", ["sabr(eps=0.05,tau=0.7)", pytest.param("mtl-ibp(eps=0.05)", marks=pytest.mark.slow)])
def test_training_gains_certificates(text: str, digits: Dataset) -> None:
    certified = []
    for recipe in ("standard", text):
        model = fresh("mlp(hidden=20,batchnorm=true)")
        list(Training(training.recipe(recipe), epochs=6, batch=32, lr=1e-2, average=0.9).run(model, digits))
        certified.append(certified_accuracy(model, digits, 0.05, linear=False))
        assert clean_accuracy(model, digits) > 0.85
    assert certified[1] > certified[0] + 0.2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mtl-ibp(alpha=1.5)", "mtl-ibp: expected 0 <= alpha <= 1, got 1.5"),
        ("cc-ibp(alpha=nan)", "cc-ibp: expected 0 <= alpha <= 1, got nan"),
        ("sabr(tau=-0.1)", "sabr: expected 0 <= tau <= 1, got -0.1"),
        ("exp-ibp(steps=0)", "exp-ibp: expected steps >= 1 and rate > 0, got 0"),
        ("sabr(regularise=-1)", "sabr: regularise must be a finite number >= 0, got -1"),
        ("sabr(eps=inf)", "sabr: eps must be a finite number >= 0, got inf"),
        ("sabr(begin=0.6)", "sabr: expected 0 <= begin <= end <= 1"),
    ],
)
def test_options_that_mean_nothing_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        training.recipe(text)


def test_the_recipes_are_known_by_their_names() -> None:
    for recipe in ALL:
        assert training.recipe(recipe.name) == recipe
    assert all(isinstance(recipe, Mixed) for recipe in MIXED)
