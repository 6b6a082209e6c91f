"""Votes under perturbations: what is certified no parameter breaks, with exact borders where they are known."""

from __future__ import annotations

from dataclasses import replace
from math import log

import pytest
import torch
from torch import Tensor, nn

from assay.benchmarks.harness.compare import compare
from assay.models.data import Dataset
from assay.verify.backends.smoothing import transformations
from assay.verify.backends.smoothing.attack import SmoothingAttack
from assay.verify.backends.smoothing.deciding import Outcome
from assay.verify.backends.smoothing.kinds import Kind
from assay.verify.backends.smoothing.method import Smoothing
from assay.verify.backends.smoothing.noises.parameters import OfParameter
from assay.verify.backends.smoothing.question import Certified, Question
from assay.verify.backends.smoothing.sampling import centre, oracle
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError
from assay.verify.core.network import to_network
from assay.verify.core.norms import PERTURBATION
from assay.verify.core.problem import Problem
from assay.verify.core.result import Reason, Verdict
from assay.verify.perturbations import Perturbation, Perturbed
from assay.verify.perturbations.enclosures import boxes
from tests import nets
from tests.breadth import seeds
from tests.nets import generator

X = 0.3 + 0.2 * torch.rand(1, 6, 6, dtype=torch.float64, generator=generator(3))
MEAN = float(X.mean())


class Brighter(nn.Module):
    """Class 1 where the mean of all pixels is above ``border``."""

    def __init__(self, border: float) -> None:
        super().__init__()
        self.register_buffer("border", torch.tensor(border))

    def forward(self, x: Tensor) -> Tensor:
        over = 50 * (x.flatten(1).mean(1, keepdim=True) - self.border)
        return torch.cat([-over, over], 1)


def question(text: str, border: float = 0.6, image: Tensor = X) -> Perturbed:
    return Perturbed.of(to_network(Brighter(border).eval(), (1, 6, 6)), image, 0, Perturbation.parse(text))


@pytest.mark.parametrize("kind", ["gamma", "contrast", "brightness"])
def test_noise_after_a_change_is_noise_of_another_mean(kind: str) -> None:
    noise, x = OfParameter(kind, 0.3), X.float()
    changed = {"gamma": x.pow(1.3), "contrast": x * 1.3, "brightness": x + 0.3}[kind]
    by = 0.3 if kind == "brightness" else log(1.3)
    t = torch.empty(50, 1, 1, 1).normal_(std=0.3, generator=generator(5))
    expected = {"gamma": x.pow((t + by).exp()), "contrast": x * (t + by).exp(), "brightness": x + t + by}[kind]
    torch.testing.assert_close(noise.sample(changed, 50, generator(5)), expected)
    assert noise.distance(0.8, 1.3) == pytest.approx(1.3 if kind == "brightness" else max(log(1.3), -log(0.8)))


@pytest.mark.parametrize(("share", "verdict"), [(0.8, Verdict.VERIFIED), (1.6, Verdict.UNKNOWN)])
def test_the_border_of_a_mean_is_known_under_noise_of_brightness(share: float, verdict: Verdict) -> None:
    # p is the normal quantile of margin over sigma: the radius is the margin itself.
    asked = question(f"brightness({share * (0.5 - MEAN)})", border=0.5)
    smoothing = Smoothing("brightness", 0.1, n=10_000)
    result = smoothing.verify(asked, Budget(seed=1))
    assert (result.verdict, result.subject) == (verdict, "smoothed(brightness, 0.1)")
    attacked = SmoothingAttack("brightness", 0.1, n=4_000, steps=2).verify(asked, Budget(seed=1))
    broken = attacked.counterexample is not None
    assert broken is (verdict is Verdict.UNKNOWN)
    assert attacked.subject == result.subject


@pytest.mark.parametrize(("noise", "safe", "far"), [("contrast", 1.15, 1.6), ("gamma", 0.8, 0.4)])
def test_factors_and_exponents_are_certified_as_far_as_the_vote_holds(noise: str, safe: float, far: float) -> None:
    smoothing = Smoothing(noise, 0.3, n=2_000)  # type: ignore[arg-type]
    for end, verdict in ((safe, Verdict.VERIFIED), (far, Verdict.UNKNOWN)):
        low, high = sorted((end, 1.0))
        asked = question(f"{noise}({low},{high})")
        assert smoothing.verify(asked).verdict is verdict
        vote = smoothing.classify(asked.behind, asked.images(torch.tensor([[end]], dtype=torch.float64))[0], 7)
        assert (vote == 0) is (verdict is Verdict.VERIFIED)


@pytest.mark.parametrize(
    "text", ["rotation(20)", "translation(1)", "gamma(1)", "blur(1)+contrast(0.5)", "scaling(0.3)+shear(0.2)"]
)
def test_images_lie_in_the_boxes_and_within_reach(text: str) -> None:
    asked = question(text)
    low, high = asked.perturbation.low, asked.perturbation.high
    low, high = low + 0.3 * (high - low), high - 0.2 * (high - low)
    least, most = boxes(asked.perturbation, asked.image, low, high, asked.behind.dtype)
    at = low + (high - low) * torch.rand(60, len(low), dtype=torch.float64, generator=generator(4))
    images = asked.images(torch.cat([at, low[None], high[None]])).double().flatten(1)
    inside = ((images[:, None] >= least) & (images[:, None] <= most)).all(2)
    assert bool(inside.any(1).all())
    cell = transformations._cell(asked, low, high)
    middle = asked.images(cell.middle[None]).double().flatten(1)
    farthest = float((images - middle).norm(dim=1).max())
    assert farthest <= cell.reach < 4 * farthest + 0.05


def test_cells_cover_all_parameters_and_share_alpha() -> None:
    asked = question("rotation(10)+brightness(0.1)")
    cells = transformations._cells(asked, 0.5)
    assert cells is not None
    assert len(cells) > 3
    assert all(cell.reach <= 0.5 for cell in cells)
    at = asked.perturbation.low + (asked.perturbation.high - asked.perturbation.low) * torch.rand(
        500, 2, dtype=torch.float64, generator=generator(6)
    )
    covered = torch.stack([((at >= cell.low) & (at <= cell.high)).all(1) for cell in cells])
    assert bool(covered.any(0).all())
    assert transformations._cells(asked, 1e-6, most=20) is None
    put: list[Question] = []

    def certify(question: Question) -> Certified:
        put.append(question)
        return Certified(0, (question.eps or 0.0) * (2 if len(put) != 3 else 1), [], Outcome(0.9, [], 10))

    x = centre(asked)
    whole = Question(oracle(asked), x, 2, Kind("gaussian", 0.5).of(x), n0=100, alpha=0.01)
    found = transformations.held(asked, whole, certify)
    assert found.cells > 3
    assert not found.safe  # the third radius only reaches the border, and strict is strict
    assert len(put) == 3
    assert all(one.alpha == pytest.approx(0.01 / found.cells) for one in put)
    assert all(one.n0 == 100 and one.norm == 2.0 for one in put)


@pytest.mark.parametrize("text", ["rotation(15)", "brightness(0.1)", "translation(0.5)"])
def test_pixels_certify_whatever_happens(text: str) -> None:
    asked = question(text)
    smoothing = Smoothing("gaussian", 0.5, n=1_000, test="anytime")
    result = smoothing.verify(asked, Budget(seed=2))
    assert result.verdict is Verdict.VERIFIED
    assert result.subject == "smoothed(gaussian, 0.5)"
    assert result.confidence == pytest.approx(0.999)
    near = question(text, border=MEAN + 0.005)
    loose = smoothing.verify(near, Budget(seed=2))
    assert loose.verdict is Verdict.UNKNOWN
    attacked = SmoothingAttack("gaussian", 0.5, n=1_000, steps=3).verify(near, Budget(seed=2))
    assert (attacked.counterexample is not None) is (text == "brightness(0.1)")


@seeds(1, of=6)
def test_the_attack_finds_worse_parameters_than_many_draws(seeds: range) -> None:
    for seed in seeds:
        model = nn.Sequential(nn.Flatten(), *nets.random_mlp(seed, (36, 20, 2))).eval()
        change = Perturbation.parse("rotation(40)+scaling(0.4)+brightness(0.2)")
        asked = Perturbed.of(to_network(model, (1, 6, 6)), X, 0, change)
        attack = SmoothingAttack(sigma=0.05, steps=12)
        noises = Kind("gaussian", 0.05).of(asked.clean).sample(asked.clean * 0, 32, generator(7))

        def label(at: Tensor) -> Tensor:
            with torch.no_grad():
                y = model((asked.images(at)[:, None] + noises).flatten(0, 1))  # noqa: B023
            return y.softmax(1)[:, 0].view(len(at), -1).mean(1)

        low, high = change.low, change.high
        drawn = low + (high - low) * torch.rand(200, 3, dtype=torch.float64, generator=generator(8))
        found = attack._worst(asked, Kind("gaussian", 0.05).of(asked.clean), 0, Budget().started())
        assert bool(((found >= low) & (found <= high)).all())
        assert float(label(found[None])) < float(label(drawn).min()) + 0.01


def test_what_noise_is_not_for_is_declined() -> None:
    cut = torch.zeros(1, 6, 6, dtype=torch.float64)
    for noise, asked, words in (
        ("gamma", question("contrast(0.1)"), "for gamma alone"),
        ("brightness", question("brightness(0.1)+contrast(0.1)"), "for brightness alone"),
        ("brightness", question("brightness(0.1)", image=cut), "cut to the domain"),
        ("contrast", question("contrast(0,1)"), "above 0"),
        ("masking", question("rotation(1)"), "few changed pixels"),
    ):
        result = Smoothing(noise, 0.2).verify(asked)  # type: ignore[arg-type]
        assert result.reason is Reason.UNSUPPORTED
        assert words in result.stats["explanation"]
    ball = Problem.robustness(Brighter(0.6).eval(), X.float(), 0, 0.1, 2)
    assert "no regions of inputs" in Smoothing("gamma", 0.2).verify(ball).stats["explanation"]
    with pytest.raises(InputError, match="no balls"):
        OfParameter("gamma", 0.2).radius(0.9, 2.0)
    assert OfParameter("gamma", 0.2).radius(0.4, PERTURBATION) == 0.0
    assert Smoothing().verify(question("rotation(1)"), Budget(0)).reason is Reason.TIMEOUT


def test_votes_and_attacks_on_them_have_rows_of_their_own() -> None:
    x = torch.cat([X.float(), X.float() + 0.3])[:, None]
    samples = Dataset("greys", "test", x, torch.tensor([0, 1]), 2)
    votes = [Smoothing("gaussian", 0.5, n=1_000, test="anytime"), SmoothingAttack("gaussian", 0.5, n=1_000, steps=2)]
    found = compare(Brighter(0.6).eval(), samples, [1.0], votes, [], perturbation=Perturbation.parse("rotation(5)"))
    assert not found.alarms
    rows = {(row.name.partition("(")[0], row.subject): row for row in found.rows}
    assert rows["smoothing", "smoothed(gaussian, 0.5)"].verified >= 1
    assert rows["smoothing-attack", "smoothed(gaussian, 0.5)"].falsified == 0
    assert replace(found, lost=()).perturbation == "rotation(-5,5)"
