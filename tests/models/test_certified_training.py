"""Training for certificates: schedules, margins that are the engine's, the fast recipe's parts, and what it gains."""

from __future__ import annotations

from itertools import pairwise
from math import inf, pi, sqrt

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.models import architectures, data, training
from assay.models.data import Dataset
from assay.models.training import Step, Training, certified_accuracy, clean_accuracy, hold_out, isolated, ramp, warmup
from assay.models.training.certified import Boxes, differences, worst_case
from assay.models.training.crown_ibp import CrownIBP
from assay.models.training.ibp import IBP
from assay.verify.bounds import layers
from assay.verify.bounds.backward.rows import lower_rows
from assay.verify.core.errors import InputError
from assay.verify.core.network import Network, chain, to_network
from assay.verify.core.ops import Linear, Relu
from assay.verify.core.region import LpBall
from assay.verify.core.verifier import Bounds
from tests.breadth import slow

ARCHITECTURES = ["mlp(hidden=20-20)", "mlp(hidden=20-20,batchnorm=true)", "cnn(channels=4-8,hidden=10,batchnorm=true)"]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """A small part of the training split."""
    return data.load("digits", "train").take(320)


def fresh(text: str) -> nn.Module:
    with isolated(0):
        return architectures.parse(text).build((1, 8, 8), 10)


def at(progress: float) -> Step:
    return Step(progress, torch.Generator().manual_seed(0), (0.0, 1.0))


@pytest.mark.parametrize("shape", [ramp.linear, ramp.smooth])
@pytest.mark.parametrize(("begin", "end"), [(0.0, 1.0), (0.1, 0.6), (0.3, 0.3), (0.0, 0.0), (1.0, 1.0)])
def test_ramps_rise_from_0_to_1_between_their_ends(shape: object, begin: float, end: float) -> None:
    assert callable(shape)
    moments = [i / 1000 for i in range(1001)]
    values = [shape(moment, begin, end) for moment in moments]
    assert values == sorted(values)
    assert all(value == 0 for moment, value in zip(moments, values, strict=True) if moment < begin)
    assert all(value == 1 for moment, value in zip(moments, values, strict=True) if moment >= end)
    if end > begin:
        steps = [after - before for before, after in pairwise(values)]
        assert max(steps) <= 1.4 / 1000 / (end - begin)


def test_the_smooth_ramp_is_a_quartic_that_becomes_a_line_without_a_kink() -> None:
    def slope(t: float) -> float:
        return (ramp.smooth(t + 1e-6, 0, 1) - ramp.smooth(t - 1e-6, 0, 1)) / 2e-6

    assert ramp.smooth(0.2, 0, 1) == pytest.approx(16 * ramp.smooth(0.1, 0, 1))
    assert slope(0.25 - 1e-5) == pytest.approx(slope(0.25 + 1e-5), rel=1e-3)
    assert slope(0.4) == pytest.approx(slope(0.9))
    assert slope(0.05) < slope(0.2) < slope(0.4)


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("text", ARCHITECTURES)
def test_margins_are_those_of_the_engine(text: str, linear: bool, digits: Dataset) -> None:
    """In eval mode the live network is the imported one, so that bounds agree to the precision of float32."""
    few, eps = digits.take(12), 0.05
    model = fresh(text)
    list(Training(training.recipe("standard"), epochs=1).run(model, digits))
    live = Boxes.around(model, few.x, few.y, eps, few.domain).margins(linear)
    network = to_network(model, few.shape)
    relaxed = layers.by_intervals(network, LpBall(few.x, eps, inf, few.domain), torch.float64)
    theirs = lower_rows(relaxed, differences(few.y, live).double(), linear=False)
    if linear:
        both = lower_rows(relaxed, differences(few.y, live).double(), linear=True)
        torch.testing.assert_close(torch.maximum(live.double(), theirs), both, rtol=1e-4, atol=1e-4)
        assert live.sum() > theirs.sum()
    else:
        torch.testing.assert_close(live.double(), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("text", ARCHITECTURES)
def test_margins_in_train_mode_hold_for_samples_with_the_batch_statistics(
    text: str, linear: bool, digits: Dataset
) -> None:
    few, eps = digits.take(16), 0.05
    boxes = Boxes.around(fresh(text).train(), few.x, few.y, eps, few.domain)
    margins = boxes.margins(linear)
    assert torch.equal(margins.gather(1, few.y[:, None]), torch.zeros(16, 1))
    rng = torch.Generator().manual_seed(0)
    for _ in range(30):
        noise = torch.rand(few.x.shape, generator=rng).round() * 2 - 1
        near = (few.x + eps * noise).clamp(*few.domain)
        logits = evaluated(boxes.network, near)
        assert bool((logits.gather(1, few.y[:, None]) - logits >= margins - 1e-4).all())
    torch.testing.assert_close(evaluated(boxes.network, few.x), boxes.logits, rtol=1e-4, atol=1e-5)


def evaluated(network: Network, x: Tensor) -> Tensor:
    with torch.no_grad():
        return network(x)


@pytest.mark.parametrize("recipe", [IBP(kappa=0.0, fast=True), IBP(kappa=0.3), CrownIBP(beta=0.5, kappa=0.0)])
def test_every_weight_learns_from_the_bounds(recipe: training.Recipe, digits: Dataset) -> None:
    for text in ARCHITECTURES:
        model = fresh(text).train()
        for progress in (0.25, 0.9):
            model.zero_grad()
            recipe.loss(model, digits.x[:32], digits.y[:32], at(progress)).backward()  # type: ignore[no-untyped-call]
            assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
            assert all(bool(p.grad.any()) for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("recipe", [IBP(begin=0.1), CrownIBP(begin=0.1)])
def test_before_the_ramp_the_loss_is_clean_cross_entropy(recipe: training.Recipe, digits: Dataset) -> None:
    model = fresh("mlp(hidden=20)")
    loss = recipe.loss(model, digits.x, digits.y, at(0.05))
    torch.testing.assert_close(loss, F.cross_entropy(model(digits.x), digits.y))


def test_after_the_ramp_the_loss_is_the_final_mixture(digits: Dataset) -> None:
    model = fresh("mlp(hidden=20)")
    boxes = Boxes.around(model, digits.x, digits.y, 0.1, digits.domain)
    clean = F.cross_entropy(boxes.logits, digits.y)
    by_intervals, by_lines = (worst_case(boxes.margins(linear), digits.y) for linear in (False, True))
    assert clean < by_lines < by_intervals

    def loss(recipe: training.Recipe) -> Tensor:
        return recipe.loss(model, digits.x, digits.y, at(0.9))

    torch.testing.assert_close(loss(IBP(kappa=0.25)), 0.25 * clean + 0.75 * by_intervals)
    torch.testing.assert_close(loss(IBP(kappa=0.0, fast=True)), by_intervals)
    torch.testing.assert_close(loss(CrownIBP(kappa=0.25)), 0.25 * clean + 0.75 * by_intervals)
    torch.testing.assert_close(loss(CrownIBP(kappa=0.0, beta=1.0)), by_lines)


def test_the_worst_case_is_the_cross_entropy_of_the_margins() -> None:
    margins = torch.tensor([[0.0, 2.0, -1.0]])
    expected = -torch.log_softmax(torch.tensor([[0.0, -2.0, 1.0]]), dim=1)[0, 0]
    torch.testing.assert_close(worst_case(margins, torch.tensor([0])), expected)


def test_the_initialisation_keeps_widths_and_is_drawn_from_the_generator() -> None:
    model = nn.Sequential(nn.Conv2d(8, 64, 5), nn.BatchNorm2d(64), nn.Linear(400, 300), nn.Linear(300, 3, bias=False))
    state = torch.get_rng_state()
    warmup.initialise(model, torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), state)
    for part, fan_in in ((model[0], 200), (model[2], 400)):
        assert isinstance(part, (nn.Conv2d, nn.Linear))
        assert part.weight.std().item() == pytest.approx(sqrt(2 * pi) / fan_in, rel=0.05)
        assert part.bias is not None
        assert not part.bias.any()
        # Half of the widths |W| passes a ReLU: from layer to layer they neither grow nor shrink.
        assert part.weight.abs().flatten(1).sum(1).mean().item() / 2 == pytest.approx(1, rel=0.05)
    assert torch.equal(model[1].weight, torch.ones(64))


def test_only_the_fast_schedule_initialises() -> None:
    model = fresh("mlp(hidden=20)")
    before = [p.detach().clone() for p in model.parameters()]
    for text in ("standard", "pgd", "trades", "ibp", "crown-ibp"):
        training.recipe(text).prepare(model, at(0.0))
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    IBP(fast=True).prepare(model, at(0.0))
    assert not torch.equal(before[0], next(model.parameters()))


def one_layer(centre: list[float], radius: float) -> tuple[Network, list[Bounds]]:
    """A ReLU whose operand has these bounds, and an input of half-width 1."""
    n = len(centre)
    network = chain((n,), [Linear(torch.eye(n), torch.zeros(n)), Relu()])
    middle = torch.tensor([centre])
    one = torch.ones(1, n)
    return network, [Bounds(-one, one), Bounds(middle - radius, middle + radius), Bounds(one, one)]


def test_the_regularisers_are_those_of_the_paper() -> None:
    # As wide as the input, active and inactive neurons alike: nothing to say.
    assert warmup.regulariser(*one_layer([3.0, -3.0], 1.0)) == 0
    # Four times as wide: (tau - 1/4) / tau.
    assert warmup.regulariser(*one_layer([9.0, -9.0], 4.0)).item() == pytest.approx(0.5)
    # Twice as wide is still tight enough.
    assert warmup.regulariser(*one_layer([9.0, -9.0], 2.0)) == 0
    # Means 8 : 2 fall short of a half by half, variances 36 : 18 do not: centres 8, -2, 0 with mean 2.
    both = warmup.regulariser(*one_layer([8.0, -2.0, 0.0], 1.0)).item()
    assert both == pytest.approx((0.5 - 0.25) / 0.5 + (0.5 - 16 / 36) / 0.5)
    # All neurons on one side: no ratio, no loss.
    assert warmup.regulariser(*one_layer([3.0, 4.0], 1.0)) == 0


def test_regularisers_fade_out_with_the_ramp(digits: Dataset) -> None:
    model = fresh("mlp(hidden=20-20)")
    excess = []
    for progress in (0.3, 0.4, 0.5):
        losses = [
            IBP(fast=True, regularise=weight).loss(model, digits.x, digits.y, at(progress)) for weight in (0.0, 1.0)
        ]
        excess.append((losses[1] - losses[0]).item())
    assert excess[0] > excess[1] > excess[2] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", [slow("ibp(eps=0.05,kappa=0,end=0.6,fast=true)"), slow("ibp(eps=0.05)"), "crown-ibp(eps=0.05)"]
)
def test_training_for_certificates_gains_certificates(text: str, digits: Dataset) -> None:
    architecture = f"mlp(hidden=30-30,batchnorm={'fast' in text})"
    certified = []
    for recipe in ("standard", text):
        model = fresh(architecture)
        list(Training(training.recipe(recipe), epochs=12, batch=32, lr=1e-2).run(model, digits))
        certified.append(certified_accuracy(model, digits, 0.05, linear=False))
        assert clean_accuracy(model, digits) > 0.9
    assert certified[0] < 0.1
    assert certified[1] > 0.4


def test_holding_out_divides_the_data(digits: Dataset) -> None:
    learn, held = hold_out(digits, 20)
    assert (len(learn), len(held)) == (300, 20)
    assert torch.equal(torch.cat([learn.x, held.x]), digits.x)
    assert torch.equal(torch.cat([learn.y, held.y]), digits.y)
    assert held.split == "validation"
    for n in (0, 320, -1):
        with pytest.raises(InputError, match=f"from 1 to 319 samples of digits, got {n}"):
            hold_out(digits, n)
