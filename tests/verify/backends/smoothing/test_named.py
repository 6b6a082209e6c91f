"""Tests of the certificates as options of the method: exact distances, their order, coverage, repetition, refusals."""

from __future__ import annotations

from itertools import pairwise
from math import inf, sqrt
from typing import get_args

import pytest
import torch
from scipy.special import ndtr
from torch import Tensor, nn

from assay.benchmarks.harness.compare import compare
from assay.models.data import Dataset
from assay.verify.backends.smoothing import kinds, named
from assay.verify.backends.smoothing.attack import SmoothingAttack
from assay.verify.backends.smoothing.certificates import cohen
from assay.verify.backends.smoothing.method import Smoothing
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError
from assay.verify.core.network import to_network
from assay.verify.core.problem import Problem
from assay.verify.core.result import Reason, Verdict
from assay.verify.registry import get_verifier
from tests import nets
from tests.breadth import few, seeds

SIGMA, MARGIN = 0.5, 0.3
NAMES = get_args(named.Name)
CASES = [
    (c, n) for c, noises in named.CERTIFICATES.items() for n in noises if n not in (*kinds.ERASING, *kinds.OF_PARAMETER)
]


def half_space(size: int = 6, slope: float = 1.0) -> tuple[nn.Module, Tensor]:
    """A linear network whose border lies at distance MARGIN along the first axis; outputs differ by 2 slope a unit."""
    layer = nn.Linear(size, 2)
    x = torch.full((size,), 0.5)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[:, 0] = torch.tensor([-slope, slope])
        layer.bias.copy_(slope * (MARGIN + 0.5) * torch.tensor([1.0, -1.0]))
    return nn.Sequential(layer).eval(), x


def problem(eps: float = 0.1, norm: float = 2, slope: float = 1.0) -> Problem:
    model, x = half_space(slope=slope)
    return Problem.robustness(model, x, 0, eps, norm)


def method(certificate: str, noise: str = "gaussian", n: int = 20_000, **options: float) -> Smoothing:
    return Smoothing(noise, SIGMA, n, certificate=certificate, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("certificate", "noise"), CASES)
def test_no_radius_exceeds_the_distance_of_a_linear_network(certificate: str, noise: str) -> None:
    certified = method(certificate, noise).certify(problem(slope=20.0), 2, seed=0)
    assert certified.prediction == 0
    assert 0 < certified.radius < MARGIN
    if noise == "gaussian":
        assert certified.radius > {"pixeldp": 0.05, "renyi": 0.2}.get(certificate, 0.26)


@pytest.mark.parametrize("certificate", [name for name in NAMES if name != "dsrs"])
def test_other_norms_are_converted(certificate: str) -> None:
    one, two, most = (method(certificate).certify(problem(norm=p), p, seed=0).radius for p in (1.0, 2.0, inf))
    assert two == one > 0
    assert most == pytest.approx(two / sqrt(6))


@pytest.mark.slow
@pytest.mark.parametrize("seed", few(range(3), quick=[0]))
def test_privacy_divergence_cohen_and_double_sampling_in_this_order(seed: int) -> None:
    """As methods, on one classifier: all of them share their draws; double sampling may pay a little for nothing."""
    model, x = nets.random_mlp(seed, (8, 30, 3)).eval(), torch.rand(8, generator=nets.generator(seed))
    asked = Problem.robustness(model, x, 0, 0.1, 2)
    names = ("pixeldp", "renyi", "cohen", "dsrs")
    answers = [method(name, n=2000).certify(asked, 2, seed) for name in names]
    assert len({answer.outcome.lower for answer in answers[:3]}) == 1
    assert len({tuple(answer.outcome.counts) for answer in answers}) == 1
    assert all(weak.radius <= strong.radius + 1e-6 for weak, strong in pairwise(answers[:3]))
    assert answers[3].radius > 0.99 * answers[2].radius
    assert answers[0].radius > 0


def test_privacy_is_the_weaker_theorem_under_laplace_noise_too() -> None:
    weak, strong = (method(name, "laplace").certify(problem(norm=1), 1, seed=0) for name in ("pixeldp", "cohen"))
    assert weak.outcome == strong.outcome
    assert 0.05 < weak.radius < strong.radius < MARGIN


@pytest.mark.parametrize("certificate", few([name for name in NAMES if name != "dsrs"], quick=["cohen", "soft"]))
def test_radii_overshoot_as_rarely_as_alpha_says(certificate: str) -> None:
    """Small draws of a linear network, whose exact radius is known: the distance, or that of the mean score."""
    runs, alpha, slope = 400, 0.1, 2.0
    exact = MARGIN
    if certificate == "soft":
        z = torch.linspace(-8, 8, 10_001, dtype=torch.float64)
        weight = torch.exp(-z * z / 2) / sqrt(2 * torch.pi) * (z[1] - z[0])
        exact = cohen(float((torch.sigmoid(2 * slope * (MARGIN - SIGMA * z)) * weight).sum()), SIGMA)
    asked = problem(slope=slope)
    judge = method(certificate, n=200, n0=10, alpha=alpha)
    over = sum(judge.certify(asked, 2, seed).radius > exact for seed in range(runs))
    assert over / runs <= alpha + 3 * sqrt(alpha * (1 - alpha) / runs)
    if certificate == "cohen":
        assert over > 0, "a bound that is never wrong is no test of how often it is"


@pytest.mark.slow
@pytest.mark.parametrize("test", few(["pilot", "staged", "anytime"], quick=["anytime"]))
def test_early_tests_of_the_method_overshoot_as_rarely_as_alpha_says(test: str) -> None:
    runs, alpha = 300, 0.1
    judge = Smoothing(sigma=SIGMA, n=1000, n0=50, alpha=alpha, test=test)  # type: ignore[arg-type]
    asked = problem()
    wrong = sum(judge.certify(asked, 2, seed, eps=MARGIN).radius > MARGIN for seed in range(runs))
    assert wrong / runs <= alpha + 3 * sqrt(alpha * (1 - alpha) / runs)


@pytest.mark.parametrize("certificate", ["cohen", "soft"])
def test_predictions_are_wrong_as_rarely_as_alpha_says(certificate: str) -> None:
    """A point close to the border: class 0 has the majority, by a little."""
    runs, alpha = 300, 0.1
    model, x = half_space(slope=5.0)
    near = x.clone()
    near[0] += MARGIN - 0.02
    network, judge = to_network(model, (6,)), method(certificate, n0=10, alpha=alpha)
    answers = [judge.classify(network, near, seed) for seed in range(runs)]
    assert answers.count(1) / runs <= alpha + 3 * sqrt(alpha * (1 - alpha) / runs)
    assert None in answers
    assert method(certificate).classify(network, x, 0) == 0


@pytest.mark.parametrize("certificate", NAMES)
def test_a_seed_gives_the_same_bits_whatever_the_batch(certificate: str) -> None:
    model, xs = nets.random_mlp(0, (12, 30, 3)).eval(), torch.rand(3, 12, generator=nets.generator(0))
    data = Dataset("points", "test", xs, torch.tensor([0, 1, 2]), classes=3)
    judge = method(certificate, n=400, n0=37)
    problems = Problem.robustness_many(model, xs, [0, 1, 2], 0.1, 2)
    first = [judge.certify(p, 2, seed=7) for p in problems]
    assert [judge.certify(p, 2, seed=7) for p in reversed(problems)][::-1] == first
    assert [judge.certify(p, 2, seed=8) for p in problems] != first
    one, all_ = (compare(model, data, [0.01], [judge], [], norm=2, batch=batch) for batch in (1, 3))
    assert [(row.name, row.verified, row.falsified) for row in one.rows] == [
        (row.name, row.verified, row.falsified) for row in all_.rows
    ]


@pytest.mark.parametrize("certificate", NAMES)
@seeds(1, of=3)
def test_no_attack_reaches_into_a_certified_radius(certificate: str, seeds: range) -> None:
    layers = nets.random_mlp(1, (8, 30, 3))
    model = nn.Sequential(layers, nn.Linear(3, 3, bias=False)).eval()
    with torch.no_grad():
        model[1].weight.copy_(30 * torch.eye(3))  # scores near 0 and 1, the same votes
    attack = SmoothingAttack(sigma=SIGMA, scores=certificate == "soft")
    certified = 0
    for x in torch.rand(3, 8, generator=nets.generator(1))[list(seeds)]:
        answer = method(certificate, n=3000).certify(Problem.robustness(model, x, 0, 0.1, 2), 2, seed=0)
        if answer.prediction is None:
            continue
        certified += 1
        at = Problem.robustness(model, x, answer.prediction, answer.radius * 0.999, 2)
        result = method(certificate, n=3000).verify(at, Budget())
        broken = attack.verify(at, Budget())
        assert result.verdict is Verdict.VERIFIED
        assert broken.verdict is not Verdict.FALSIFIED
        assert broken.subject == result.subject
    assert certified


def test_an_answer_without_a_majority() -> None:
    """Two rivals on either side of a slab: neither comes near the 45 % in the middle."""
    layer = nn.Linear(4, 3)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[:, 0] = torch.tensor([0.0, 1.0, -1.0])
        layer.bias.copy_(torch.tensor([0.3, -0.5, 0.5]))
    p = float(2 * ndtr(0.3 / SIGMA) - 1)
    assert p < 0.5
    asked = Problem.robustness(nn.Sequential(layer).eval(), torch.full((4,), 0.5), 0, 0.01, 2)
    assert method("cohen").verify(asked, Budget()).verdict is Verdict.UNKNOWN
    assert method("two-class").verify(asked, Budget()).verdict is Verdict.VERIFIED


def test_mean_scores_are_another_subject_with_an_attack_of_its_own() -> None:
    soft, vote = method("soft", n=2000), method("cohen", n=2000)
    attack = SmoothingAttack(sigma=SIGMA, n=2000, scores=True)
    assert soft.subject == attack.subject == "smoothed(gaussian, 0.5, scores)"
    assert {method(name).subject for name in NAMES if name != "soft"} == {vote.subject}
    beyond = attack.verify(problem(MARGIN + 0.05, slope=5.0), Budget())
    assert beyond.verdict is Verdict.FALSIFIED
    within = attack.verify(problem(MARGIN - 0.01, slope=5.0), Budget())
    assert within.verdict is Verdict.UNKNOWN
    model, x = half_space(slope=5.0)
    data = Dataset("points", "test", x[None], torch.tensor([0]), classes=2)
    rows = compare(model, data, [0.1], [soft, vote, attack], [], norm=2).rows
    assert sum(row.name == "clean" for row in rows) == 3
    assert {row.subject for row in rows if row.name.startswith("smoothing-attack")} == {soft.subject}


@pytest.mark.parametrize("certificate", NAMES)
def test_time_that_is_over_proves_nothing(certificate: str) -> None:
    looks = iter([False] * 3 + [True] * 1000)
    certified = method(certificate, n=20_000).certify(problem(), 2, 0, expired=lambda: next(looks))
    assert (certified.prediction, certified.radius, certified.outcome.expired) == (None, 0.0, True)
    result = method(certificate).verify(problem(), Budget(seconds=0))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.TIMEOUT)


def test_a_sequence_keeps_what_it_has_shown_when_the_time_is_over() -> None:
    looks = iter([False] * 20 + [True])
    judge = Smoothing(sigma=SIGMA, test="anytime")
    certified = judge.certify(problem(), 2, 0, eps=0.29, expired=lambda: next(looks))
    assert certified.prediction == 0
    assert 0.1 < certified.radius < 0.29
    assert certified.outcome.expired
    assert certified.outcome.n < 10_000


@pytest.mark.parametrize("certificate", ["pixeldp", "renyi"])
def test_weaker_theorems_take_the_tests_that_stop_early(certificate: str) -> None:
    for test in ("staged", "anytime"):
        judge = get_verifier(f"smoothing(sigma=0.5,test={test},certificate={certificate})")
        assert judge.verify(problem(0.05), Budget()).verdict is Verdict.VERIFIED
        assert judge.verify(problem(0.31), Budget()).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("certificate=magic", "expected one of cohen"),
        ("certificate=renyi,noise=laplace", "for gaussian noise, got laplace"),
        ("certificate=dsrs,noise=uniform", "for gaussian or generalised-gaussian noise"),
        ("certificate=soft,noise=exp2", "cohen is for every noise"),
        ("certificate=dsrs,test=staged", "take fixed, or one of cohen, pixeldp, renyi"),
        ("certificate=two-class,test=anytime", "makes all its draws"),
    ],
)
def test_what_a_certificate_is_not_for_is_refused(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        get_verifier(f"smoothing({text})")


def test_few_draws_and_foreign_noises_are_refused() -> None:
    with pytest.raises(InputError, match="at least 4"):
        method("higher-order", n=3).certify(problem(), 2, 0)
    with pytest.raises(InputError, match="for gaussian noise"):
        SmoothingAttack(noise="laplace", scores=True)
    with pytest.raises(InputError, match="unknown certificate"):
        named.chosen("magic", "gaussian", "fixed")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [3, 10, 64, 784])
def test_every_noise_has_the_deviation_that_is_asked_for(size: int) -> None:
    for kind in set(get_args(kinds.Name)) - {*kinds.ERASING, *kinds.OF_PARAMETER}:
        assert kinds.of_rms(kind, 0.3, size).rms(size) == pytest.approx(0.3)  # type: ignore[attr-defined]
