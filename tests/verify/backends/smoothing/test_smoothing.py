"""Tests of smoothing as a method: exact distances of linear networks, repetition, limits, refusals, the harness."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, sqrt

import numpy as np
import pytest
import torch
from scipy.special import ndtr
from torch import Tensor, nn

from assay.attacks import get_attack
from assay.benchmarks.harness.compare import compare
from assay.benchmarks.harness.radii.radius import radii
from assay.models.data import Dataset
from assay.verify.backends.smoothing import deciding, kinds
from assay.verify.backends.smoothing.attack import SmoothingAttack
from assay.verify.backends.smoothing.ledger import Ledger
from assay.verify.backends.smoothing.method import Smoothing
from assay.verify.backends.smoothing.noises import Gaussian, Laplace
from assay.verify.backends.smoothing.sampling import BLOCK, Stream
from assay.verify.backends.smoothing.vote import probability_for
from assay.verify.core.budget import UNLIMITED, Budget
from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.network import to_network
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.result import Guarantee, Reason, Result, Verdict
from assay.verify.core.spec import Spec
from assay.verify.core.verifier import OtherSubject
from assay.verify.registry import get_verifier
from assay.verify.solving import stages
from tests import nets
from tests.breadth import few


def half_space(size: int = 6, margin: float = 0.3, along: str = "axis") -> tuple[nn.Module, Tensor, float]:
    """A linear network, a point, and its exact l2 distance from the border; class 0 is right."""
    w = torch.zeros(size) if along == "axis" else torch.linspace(-1, 1, size)
    w[0] = 1.0
    layer = nn.Linear(size, 2)
    x = torch.full((size,), 0.5)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([w, torch.zeros(size)]))
        layer.bias.copy_(torch.tensor([float(margin * w.norm() - w @ x), 0.0]))
    return nn.Sequential(layer).eval(), x, margin


def problem(eps: float = 0.1, norm: float = 2, margin: float = 0.3, along: str = "axis", label: int = 0) -> Problem:
    model, x, _ = half_space(margin=margin, along=along)
    return Problem.robustness(model, x, label, eps, norm)


# Oracles.


@pytest.mark.parametrize("along", ["axis", "oblique"])
@pytest.mark.parametrize("sigma", [0.2, 0.5])
def test_the_radius_of_a_linear_network_is_its_distance(along: str, sigma: float) -> None:
    certified = Smoothing(sigma=sigma, n=40_000).certify(problem(along=along), 2, seed=0)
    assert certified.prediction == 0
    p = float(ndtr(0.3 / sigma))
    slack = 4 * sigma * sqrt(p * (1 - p) / 40_000) / float(np.exp(-((0.3 / sigma) ** 2) / 2) / sqrt(2 * np.pi))
    assert 0.3 - 1.5 * slack < certified.radius < 0.3


@pytest.mark.parametrize("noise", ["laplace", "uniform"])
def test_the_radius_of_an_axis_half_space_is_its_l1_distance(noise: str) -> None:
    certified = Smoothing(noise=noise, sigma=0.5, n=40_000).certify(problem(norm=1), 1, seed=0)  # type: ignore[arg-type]
    assert 0.28 < certified.radius < 0.3


@pytest.mark.parametrize("test", ["fixed", "pilot", "staged", "anytime"])
def test_verdicts_around_the_distance(test: str) -> None:
    method = get_verifier(f"smoothing(sigma=0.5,n=20000,test={test})")
    near, far = method.verify(problem(0.25), Budget()), method.verify(problem(0.31), Budget())
    assert near.verdict is Verdict.VERIFIED
    assert near.stats["radius"] > 0.25
    assert (far.verdict, far.reason) == (Verdict.UNKNOWN, Reason.INCOMPLETE)
    for result in (near, far):
        assert result.subject == "smoothed(gaussian, 0.5)"
        assert result.guarantee is Guarantee.STATISTICAL
        assert result.confidence == 0.999
        assert result.margin is None
        assert test == "pilot" or sum(result.certificate["counts"]) == result.stats["n"]  # type: ignore[index]
        assert Result.from_json(result.to_json()).to_json() == result.to_json()


@pytest.mark.parametrize("norm", [1, 2, inf])
def test_other_norms_are_converted(norm: float) -> None:
    certified = Smoothing(sigma=0.5, n=20_000).certify(problem(norm=norm), norm, seed=0).radius
    in_l2 = Smoothing(sigma=0.5, n=20_000).certify(problem(), 2, seed=0).radius
    assert certified == pytest.approx(in_l2 / sqrt(6) if norm == inf else in_l2)


def test_early_tests_need_far_fewer_draws() -> None:
    for test in ("pilot", "staged", "anytime"):
        result = get_verifier(f"smoothing(sigma=0.5,n=100000,test={test})").verify(problem(0.15), Budget())
        assert result.verdict is Verdict.VERIFIED
        assert result.stats["n"] < 20_000


def test_wrong_labels_and_ties_are_never_verified() -> None:
    wrong = Smoothing(n=1000).verify(problem(label=1), Budget())
    assert (wrong.verdict, wrong.reason, wrong.stats["prediction"]) == (Verdict.UNKNOWN, Reason.INCOMPLETE, 0)
    flat = nn.Sequential(nn.Linear(4, 3)).eval()
    with torch.no_grad():
        for parameter in flat.parameters():
            parameter.zero_()
    tied = Smoothing(n=1000).verify(Problem.robustness(flat, torch.full((4,), 0.5), 0, 0.0, 2), Budget())
    assert (tied.verdict, tied.stats["prediction"]) == (Verdict.UNKNOWN, None)


def test_a_coin_abstains() -> None:
    certified = Smoothing(sigma=0.5, n=2000).certify(problem(margin=0.0), 2, seed=3)
    assert (certified.prediction, certified.radius) == (None, 0.0)


# Repetition.


def test_a_seed_gives_the_same_bits_whoever_else_is_asked() -> None:
    model, xs = nets.random_mlp(0, (12, 30, 10)).eval(), torch.rand(3, 12, generator=nets.generator(0))
    problems = Problem.robustness_many(model, xs, [0, 1, 2], 0.1, 2)
    method = Smoothing(n=1234, n0=37)
    first = [method.certify(p, 2, seed=7) for p in problems]
    again = [method.certify(p, 2, seed=7) for p in reversed(problems)][::-1]
    assert [(f.pilot, f.outcome) for f in first] == [(f.pilot, f.outcome) for f in again]
    other = [method.certify(p, 2, seed=8) for p in problems]
    assert [f.outcome.counts for f in first] != [f.outcome.counts for f in other]


def test_streams_do_not_depend_on_how_they_are_taken() -> None:
    model, x = nets.random_mlp(0, (12, 30, 10)).eval(), torch.rand(12, generator=nets.generator(0))

    def stream(name: str = "a") -> Stream:
        return Stream(model, Gaussian(0.5), x, 10, 0, name)

    whole = stream().take(777)
    parts = stream()
    taken = [parts.take(k) for k in (1, 0, BLOCK, 333, 777 - 334 - BLOCK)]
    assert [sum(column) for column in zip(*taken, strict=True)] == whole
    assert sum(whole) == 777
    assert stream("b").take(777) != whole


def test_a_network_that_returns_its_input_is_counted_block_by_block() -> None:
    """Its outputs lie in the buffer that the next block overwrites."""
    x = torch.zeros(3)

    def stream() -> Stream:
        return Stream(nn.Identity(), Gaussian(0.5), x, 3, 0, "a")

    parts = stream()
    alone = [parts.take(BLOCK) for _ in range(7)]
    assert [sum(column) for column in zip(*alone, strict=True)] == stream().take(7 * BLOCK)


def test_counts_are_those_of_the_network_on_the_noise() -> None:
    model, x, _ = half_space()
    counts = Stream(model, Laplace(0.3), x, 2, 0, "a").take(50_000)
    expected = 1 - np.exp(-0.3 / 0.3) / 2
    assert counts[0] / 50_000 == pytest.approx(expected, abs=4 * sqrt(expected * (1 - expected) / 50_000))
    assert counts[2] == 0


# The tests of a radius: the same confidence for all of them.


@dataclass
class Coin:
    """A stream of known probability."""

    p: float
    random: np.random.Generator
    classes: int = 2

    def take(self, n: int) -> list[int]:
        heads = int(self.random.binomial(n, self.p))
        return [heads, n - heads, 0]


@pytest.mark.parametrize("test", ["fixed", "staged", "anytime"])
@pytest.mark.parametrize("p", few([0.6, 0.95], quick=[0.95]))
def test_no_test_says_more_than_alpha_allows(test: str, p: float) -> None:
    """Asked for a probability just above the truth, each test says yes too rarely to matter."""
    runs, alpha, n, random = 600, 0.1, 3000, np.random.default_rng(0)
    wrong = asked = 0
    for _ in range(runs):
        stream, ledger = Coin(p, random), Ledger(alpha)
        if test == "fixed":
            outcome = deciding.fixed(stream, 0, n, ledger)  # type: ignore[arg-type]
        elif test == "staged":
            outcome = deciding.staged(stream, 0, p, deciding.stages_of(n, 30, 3), ledger)  # type: ignore[arg-type]
        else:
            outcome = deciding.watched(stream, 0, p, n, ledger)  # type: ignore[arg-type]
        wrong += outcome.lower > p
        asked += outcome.n
    assert wrong / runs <= alpha + 3 * sqrt(alpha * (1 - alpha) / runs)


def test_early_tests_say_yes_where_there_is_room() -> None:
    random = np.random.default_rng(0)
    for test in (
        lambda s, ledger: deciding.staged(s, 0, 0.9, deciding.stages_of(100_000), ledger),
        lambda s, ledger: deciding.watched(s, 0, 0.9, 100_000, ledger),
    ):
        outcomes = [test(Coin(0.97, random), Ledger(0.001)) for _ in range(50)]
        assert all(outcome.lower > 0.9 for outcome in outcomes)
        assert sum(outcome.n for outcome in outcomes) / 50 < 5000


def test_the_pilot_says_how_many_draws_to_make() -> None:
    few = deciding.draws_needed(100, 100, 0.8, 0.001, 100_000)
    more = deciding.draws_needed(90, 100, 0.8, 0.001, 100_000)
    assert few is not None
    assert more is not None
    assert few < more < 100_000
    assert deciding.draws_needed(50, 100, 0.99, 0.001, 100_000) is None


def test_the_probability_for_a_radius() -> None:
    p = probability_for(Gaussian(0.5), 2, 10, 0.4)
    assert p == pytest.approx(float(ndtr(0.8)))
    assert Gaussian(0.5).radius(p, 2) > 0.4
    assert probability_for(Gaussian(0.5), 2, 10, 1e9) == 1.0


# Limits and refusals.


def test_no_time_is_a_timeout_and_a_stopped_sequence_keeps_what_it_has() -> None:
    for test in ("fixed", "staged", "anytime"):
        result = get_verifier(f"smoothing(test={test})").verify(problem(), Budget(seconds=0))
        assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.TIMEOUT)
    stream = Coin(0.9, np.random.default_rng(0))
    looks = iter([False] * 10 + [True])
    late = deciding.watched(stream, 0, 0.9, 10**6, Ledger(0.001), lambda: next(looks))  # type: ignore[arg-type]
    assert 0.5 < late.lower < 0.9
    assert late.expired
    assert late.n < 10**6


def test_what_is_no_question_of_smoothing_is_unsupported() -> None:
    model, x, _ = half_space()
    network = to_network(model, (6,))
    box = Problem(network, Box(x - 0.1, x + 0.1), Spec.robust(0, 2), 0)
    other = Problem(network, problem().region, Spec.halfspaces([[1.0, 0.0]], [0.0]))
    for name in ("smoothing", "smoothing-attack"):
        for asked in (box, other):
            result = get_verifier(name).verify(asked, Budget())
            assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.UNSUPPORTED)
            assert result.stats["explanation"] == get_verifier(name).supports(asked)


@pytest.mark.parametrize(
    "text",
    ["noise=pink", "sigma=0", "sigma=nan", "sigma=inf", "n=0", "n0=0", "alpha=0", "alpha=1", "alpha=nan", "test=late"],
)
def test_impossible_options_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        get_verifier(f"smoothing({text})")


def test_a_radius_is_asked_of_the_tests_that_stop_at_one() -> None:
    with pytest.raises(InputError, match="pass it"):
        Smoothing(test="staged").certify(problem(), 2, seed=0)


# The attack, and both in the harness.


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("along", ["axis", "oblique"])
def test_the_attack_breaks_just_beyond_the_distance(fresh: bool, along: str) -> None:
    attack = SmoothingAttack(sigma=0.5, fresh=fresh)
    beyond = attack.verify(problem(0.36, along=along), Budget())
    assert beyond.verdict is Verdict.FALSIFIED
    assert beyond.stats["distance"] <= 0.36
    assert beyond.subject == Smoothing(sigma=0.5).subject
    within = attack.verify(problem(0.29, along=along), Budget())
    assert (within.verdict, within.reason) == (Verdict.UNKNOWN, Reason.INCOMPLETE)


@pytest.mark.parametrize("seed", range(4))
def test_no_attack_reaches_into_a_certified_radius(seed: int) -> None:
    model = nets.random_mlp(seed, (8, 30, 3)).eval()
    for x in torch.rand(3, 8, generator=nets.generator(seed)):
        asked = Problem.robustness(model, x, 0, 0.1, 2)
        certified = Smoothing(sigma=0.5, n=3000).certify(asked, 2, seed=0)
        if certified.prediction is None:
            continue
        at = Problem.robustness(model, x, certified.prediction, certified.radius * 0.999, 2)
        assert SmoothingAttack(sigma=0.5).verify(at, Budget()).verdict is not Verdict.FALSIFIED
        assert Smoothing(sigma=0.5, n=3000).verify(at, Budget()).verdict is Verdict.VERIFIED


def test_the_model_does_not_contradict_a_verdict_on_the_smoothed_classifier() -> None:
    """A needle of the other class at the point itself: the vote is right, the network is not."""
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1), nn.ReLU(), nn.Linear(1, 2)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
        model[0].bias.copy_(torch.tensor([-0.5, 0.5, -0.5, 0.5]))
        model[2].weight.fill_(-1e3)
        model[2].bias.fill_(1.0)
        model[4].weight.copy_(torch.tensor([[0.0], [1.0]]))
        model[4].bias.copy_(torch.tensor([0.5, 0.0]))
    x = torch.tensor([0.5, 0.5])
    assert int(model(x[None]).argmax()) == 1
    asked = Problem.robustness(model, x, 0, 0.2, 2)
    (result,) = stages.decide(Smoothing(n=2000), [asked], Budget())
    assert result.verdict is Verdict.VERIFIED
    outside = Result(asked.id, "a", Verdict.FALSIFIED, counterexample=x + 1, subject="smoothed")
    (checked,) = stages.check([asked], [outside])
    assert (checked.verdict, checked.reason) == (Verdict.UNKNOWN, Reason.NUMERICAL)
    assert "outside" in checked.stats["alarm"]

    data = Dataset("needle", "test", x[None], torch.tensor([0]), classes=2)
    comparison = compare(model, data, [0.1], [Smoothing(n=2000), SmoothingAttack(n=1000)], [], norm=2)
    rows = {(row.name.partition("(")[0], row.subject): row for row in comparison.rows}
    name = Smoothing().subject
    assert rows["clean", "network"].accuracy == 0
    assert rows["clean", name].accuracy == 1
    assert rows["smoothing", name].verified == 1
    assert rows["smoothing-attack", name].accuracy == 1
    assert rows["all methods", "network"].verified == 0
    assert not comparison.alarms


def test_a_broken_claim_on_the_smoothed_classifier_is_an_alarm() -> None:
    class Liar(Smoothing):
        def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
            return Result(problem.id, repr(self), Verdict.VERIFIED, subject=self.subject)

    model, x, _ = half_space(margin=0.3)
    data = Dataset("points", "test", x[None], torch.tensor([0]), classes=2)
    comparison = compare(model, data, [0.4], [Liar(sigma=0.5), SmoothingAttack(sigma=0.5)], [], norm=2)
    (alarm,) = comparison.alarms
    assert "smoothing-attack(sigma=0.5) falsifies it" in alarm.explanation
    other = compare(model, data, [0.4], [Liar(sigma=0.4), SmoothingAttack(sigma=0.5)], [], norm=2)
    assert not other.alarms, "another sigma is another classifier"


def test_the_harness_counts_what_the_smoothed_classifier_gets_wrong() -> None:
    model, x, _ = half_space(margin=0.3)
    data = Dataset("points", "test", torch.stack([x, x, x]), torch.tensor([0, 1, 0]), classes=2)
    comparison = compare(model, data, [0.1], [Smoothing(sigma=0.5, n=2000)], [], norm=2)
    (row,) = (row for row in comparison.rows if row.name.startswith("smoothing"))
    assert (row.verified, row.falsified, row.misclassified, row.unknown) == (2, 1, 1, 0)


def test_both_speak_of_another_subject_and_auto_uses_neither() -> None:
    for name in ("smoothing", "smoothing-attack"):
        verifier = get_verifier(name)
        assert isinstance(verifier, OtherSubject)
        assert verifier.subject == "smoothed(gaussian, 0.25)"
    assert not isinstance(get_verifier("auto"), OtherSubject)
    stages = get_verifier("auto").verify(problem(0.0), Budget()).stats["stages"]
    assert not any("moothing" in stage for stage in stages)


def test_the_radius_of_the_network_is_not_bisected_with_it() -> None:
    model, x, _ = half_space()
    data = Dataset("points", "test", x[None], torch.tensor([0]), classes=2)
    with pytest.raises(UnsupportedError, match="assay smooth"):
        radii(model, data, [0], Smoothing(), get_attack("fgsm"), norm=2)


def test_an_abstention_is_no_class() -> None:
    model, x, _ = half_space(margin=0.0)
    assert Smoothing(sigma=0.5).classify(to_network(model, (6,)), x, seed=1) is None
    model, x, _ = half_space(margin=0.3)
    assert Smoothing(sigma=0.5).classify(to_network(model, (6,)), x, seed=1) == 0


def threshold(at: float, gap: float) -> nn.Module:
    """Class 0 where x > at - gap, in real arithmetic: the half-space whose smoothed radius at ``at`` is ``gap``."""
    first, second = nn.Linear(1, 1), nn.Linear(1, 2)
    with torch.no_grad():
        first.weight.fill_(1.0)
        first.bias.fill_(-at)
        second.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        second.bias.copy_(torch.tensor([gap, -gap]))
    return nn.Sequential(first, second).eval()


@pytest.mark.parametrize("noise", ["gaussian", "laplace", "uniform"])
def test_noise_that_is_rounded_away_certifies_nothing(noise: kinds.Name) -> None:
    for at, sigma, lost in ((1e7, 0.1, True), (-1e7, 0.15, True), (1e4, 0.25, True), (100.0, 0.25, False)):
        problem = Problem.robustness(threshold(at, 1e-3), torch.tensor([at]), 0, 0.2, 2, None)
        method = Smoothing(noise=noise, sigma=sigma, n=1000)
        result = method.verify(problem, Budget())
        assert result.verdict is Verdict.UNKNOWN
        assert (result.reason is Reason.UNSUPPORTED) == lost
        assert not lost or "is rounded away beside input values" in result.stats["explanation"]
        if lost:
            with pytest.raises(InputError, match="rounded away"):
                method.certify(problem, 2, 0)
            with pytest.raises(InputError, match="rounded away"):
                method.classify(problem.network, torch.tensor([at]), 0)


def test_the_radius_is_that_about_the_point_which_was_asked_about() -> None:
    """The model runs at the nearest float32; the distance to it is taken off."""
    x = torch.tensor([100.0 + 3e-6], dtype=torch.float64)
    network = to_network(threshold(100.0, 1.0), (1,))
    method = Smoothing(sigma=0.5, n=1000)
    there = method.certify(Problem.robustness(network, x.float(), 0, 0.1, 2, None), 2, 0)
    here = method.certify(Problem.robustness(network, x, 0, 0.1, 2, None), 2, 0)
    moved = abs(x.item() - x.float().item())
    assert moved > 0
    assert here.radius == pytest.approx(there.radius - moved, abs=1e-12)
