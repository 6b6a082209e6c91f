"""Tests of the refined certificates on networks whose smoothed probabilities are known in closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import exp, inf, pi, sqrt

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri
from scipy.stats import beta, binom, gamma
from torch import Tensor

from assay.verify.backends.smoothing import refined
from assay.verify.backends.smoothing.certificates import cohen
from assay.verify.backends.smoothing.confidence import clopper_pearson_lower
from assay.verify.backends.smoothing.double import _parts, generalised_gaussian
from assay.verify.backends.smoothing.noises import Exp2, Gaussian
from assay.verify.backends.smoothing.question import Certified, Question
from assay.verify.backends.smoothing.refined import (
    EXTRA,
    _gradients,
    _within,
    against_rivals,
    by_gradient,
    by_two_noises,
)
from assay.verify.backends.smoothing.scores import by_scores
from assay.verify.backends.smoothing.vote import OfVote, own
from assay.verify.core.errors import InputError
from tests.breadth import slow

SIZE, SIGMA = 6, 0.5
X = torch.zeros(SIZE)


def half_space(margin: float) -> Question:
    """Class 0 up to ``margin`` along the first axis."""

    def model(x: Tensor) -> Tensor:
        return torch.stack([margin - x[:, 0], x[:, 0] - margin], 1)

    return Question(model, X, 2, Gaussian(SIGMA), n=20_000)


def slab(width: float) -> Question:
    """Class 0 between -width and width: a gradient of 0 in the middle."""

    def model(x: Tensor) -> Tensor:
        return torch.stack([width - x[:, 0].abs(), x[:, 0].abs() - width], 1)

    return Question(model, X, 2, Gaussian(SIGMA), n=100_000)


def test_half_spaces_are_never_overrated() -> None:
    margin = 0.6
    question = half_space(margin)
    for answer in (against_rivals(question), by_gradient(question)):
        assert answer.prediction == 0
        assert 0.9 * margin < answer.radius < margin


def test_a_flat_gradient_buys_radius() -> None:
    width = 0.7
    answer = by_gradient(slab(width))
    p = float(2 * ndtr(width / SIGMA) - 1)
    assert answer.radius > cohen(p, SIGMA)
    shifted = float(ndtr((width - answer.radius) / SIGMA) - ndtr((-width - answer.radius) / SIGMA))
    assert shifted > 0.5


def test_an_answer_without_a_majority_still_has_a_radius() -> None:
    """Three classes by the first value: .45, then .275 on either side; Cohen's test abstains."""
    edge = float(ndtri(0.275)) * SIGMA

    def model(x: Tensor) -> Tensor:
        return torch.stack([(x[:, 0].abs() < -edge).float(), (x[:, 0] < edge).float(), (x[:, 0] > -edge).float()], 1)

    answer = against_rivals(Question(model, X, 3, Gaussian(SIGMA), n=20_000))
    assert answer.prediction == 0
    assert 0 < answer.radius < SIGMA / 2 * float(ndtri(0.45) - ndtri(0.275))


def test_mean_scores_of_a_sigmoid() -> None:
    """The softmax of (a z, 0) is a sigmoid: its mean under Gaussian noise by quadrature."""
    scale, shift = 4.0, 0.5

    def model(x: Tensor) -> Tensor:
        return torch.stack([scale * (shift - x[:, 0]), torch.zeros(len(x))], 1)

    z = torch.linspace(-8, 8, 20_001, dtype=torch.float64)
    weight = torch.exp(-z * z / 2) / sqrt(2 * torch.pi) * (z[1] - z[0])
    mean = float((torch.sigmoid(scale * (shift - SIGMA * z)) * weight).sum())
    answer = by_scores(Question(model, X, 2, Gaussian(SIGMA), n=20_000))
    assert answer.prediction == 0
    assert 0.95 * cohen(mean, SIGMA) < answer.radius < cohen(mean, SIGMA)


@pytest.mark.slow
def test_double_sampling_beats_the_same_noise_by_itself() -> None:
    """A ball around the point: all of the narrow noise lies inside."""
    size = 60
    noise = generalised_gaussian(SIGMA, size, 20)
    edge = float(noise.sample(torch.zeros(size), 20_000, torch.Generator().manual_seed(1)).norm(dim=1).quantile(0.93))

    def model(x: Tensor) -> Tensor:
        inside = x.norm(dim=1) < edge
        return torch.stack([inside.float(), (~inside).float()], 1)

    answer = by_two_noises(Question(model, torch.zeros(size), 2, noise, n=20_000))
    assert answer.prediction == 0
    assert answer.radius > noise.radius(0.93, 2, size)
    # The truth: where the shifted noise leaves half of itself in the ball.
    drawn = noise.sample(torch.zeros(size), 50_000, torch.Generator().manual_seed(2))
    drawn[:, 0] += answer.radius
    assert float((drawn.norm(dim=1) < edge).double().mean()) > 0.5


def test_coins_abstain() -> None:
    question = half_space(0.0)
    for certificate in (against_rivals, by_gradient, by_scores, by_two_noises):
        answer = certificate(question)
        assert (answer.prediction, answer.radius) == (None, 0.0)
    other = by_two_noises(replace(question, noise=generalised_gaussian(SIGMA, SIZE, 1)))
    assert (other.prediction, other.radius) == (None, 0.0)


@pytest.mark.parametrize("certificate", [against_rivals, by_gradient, by_scores, slow(by_two_noises)])
def test_answers_repeat(certificate: Callable[[Question], Certified]) -> None:
    assert certificate(half_space(0.3)) == certificate(half_space(0.3))


def test_impossible_questions_are_refused() -> None:
    for n, n0, alpha in ((0, 1, 0.1), (10, 0, 0.1), (10, 1, 0.0)):
        with pytest.raises(InputError):
            Question(torch.nn.Identity(), X, 2, Gaussian(SIGMA), n=n, n0=n0, alpha=alpha)


@pytest.mark.parametrize("certificate", [by_gradient, by_two_noises])
def test_draws_are_cohens_and_so_is_the_answer_where_there_is_nothing_to_gain(
    certificate: Callable[[Question], Certified],
) -> None:
    question = replace(half_space(0.6), n=2000)
    plain = OfVote(own).certify(question, "fixed")
    answer = certificate(question)
    assert answer.outcome.counts == plain.outcome.counts
    assert answer.radius == pytest.approx(plain.radius, rel=0.02)
    left = clopper_pearson_lower(plain.outcome.counts[0], question.n, (1 - EXTRA) * question.alpha)
    assert answer.radius >= min(plain.radius, cohen(left, SIGMA) * (1 - 1e-12)) > 0.999 * plain.radius
    if answer.outcome.lower == plain.outcome.lower:  # nothing was spent beside p
        assert answer.radius == plain.radius


def test_the_gradients_price_is_small_and_it_pays() -> None:
    """On half-spaces there is nothing to gain, on slabs there is; the draws are the same."""
    for question, gains in ((half_space(0.6), False), (slab(0.7), True)):
        plain, answer = OfVote(own).certify(question, "fixed"), by_gradient(question)
        assert answer.outcome.counts == plain.outcome.counts
        assert answer.radius > 0.999 * plain.radius
        assert (answer.radius > 1.02 * plain.radius) is gains


def test_draws_within_the_quantile_are_as_many_as_it_says() -> None:
    question, noise = half_space(0.6), generalised_gaussian(SIGMA, SIZE, 0)
    draw, within = _within(question, noise, 0.3)
    assert draw.n == question.n
    assert sum(within) / draw.n == pytest.approx(0.3, abs=0.015)
    drawn = noise.sample(torch.zeros(SIZE), 40_000, torch.Generator().manual_seed(3))
    narrow = drawn[drawn.norm(dim=1) <= drawn.norm(dim=1).quantile(0.3)]
    share = float((narrow[:, 0] < 0.6).double().mean())
    assert within[0] / sum(within) == pytest.approx(share, abs=0.02)


def test_either_half_has_the_gradient_of_the_probability() -> None:
    """That of p along the first axis is the density at the edge; n that is no multiple of anything."""
    question = replace(half_space(0.3), n=39_999)
    draw, means = _gradients(question, 0)
    assert draw.n == 39_999
    density = exp(-((0.3 / SIGMA) ** 2) / 2) / sqrt(2 * pi) / SIGMA
    for mean in means:
        assert float(mean[0]) == pytest.approx(-density, abs=0.06)
        assert float(mean[1:].abs().max()) < 0.06


@pytest.mark.slow
@pytest.mark.parametrize("width", [0.35, 0.5, 0.7])
def test_refined_radii_are_hardly_ever_too_long(width: float) -> None:
    """The whole of both certificates, simulated: slabs, whose radius is known."""
    exact = brentq(lambda r: ndtr((width - r) / SIGMA) - ndtr((-width - r) / SIGMA) - 0.5, 0, 2)
    over = sum(by_gradient(replace(slab(width), n=2000, alpha=0.1, seed=seed)).radius > exact for seed in range(200))
    assert over <= 0.1 * 200 + 3 * sqrt(0.09 * 200)


def _left(noise: Exp2, size: int, edge: float, shift: float) -> float:
    """The share of the noise, moved by ``shift``, that a ball about the centre holds: over quantiles of its norm, by
    the distribution of the cosine between noise and shift."""
    t = noise.scale * gamma.ppf((np.arange(8000) + 0.5) / 8000, noise.shape(size)) ** (1 / noise.k)
    cosine = (edge**2 - t**2 - shift**2) / (2 * t * shift)
    return float(beta.cdf((1 + cosine) / 2, (size - 1) / 2, (size - 1) / 2).mean())


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "k"), [("half-space", 0), ("ball", 0), ("ball", 8)])
def test_double_sampling_as_a_whole_overrates_as_rarely_as_alpha_says(
    shape: str, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pilot, draws, both bounds and the theorem, simulated on classifiers whose exact radius is known: whether the
    certified radius exceeds it, which takes one evaluation where the radius itself takes some forty."""
    size, trials, alpha = 24, 100 if shape == "half-space" else 50, 0.1
    noise = generalised_gaussian(SIGMA, size, k)
    if shape == "half-space":
        exact = edge = SIGMA * float(ndtri(0.9))
    else:
        edge = noise.scale * float(gamma.ppf(0.93, noise.shape(size))) ** (1 / noise.k)
        exact = brentq(lambda r: _left(noise, size, edge, r) - 0.5, 1e-3, 5)

    def model(x: Tensor) -> Tensor:
        inside = x[:, 0] < edge if shape == "half-space" else x.norm(dim=1) < edge
        return torch.stack([inside.float(), (~inside).float()], 1)

    def far(noise: Exp2, quantile: float, p: float, low: float, high: float, size: int) -> float:
        beyond = _parts(size, noise.k, noise.j, quantile).least(exact / noise.scale, p, low, high) > 0.5
        return inf if beyond or noise.radius(p, 2, size) > exact else 0.0

    asked = Question(model, torch.zeros(size), 2, Gaussian(SIGMA) if k == 0 else noise, n=400, alpha=alpha)
    radius = by_two_noises(asked).radius
    monkeypatch.setattr(refined, "dsrs", far)
    assert (by_two_noises(asked).radius > exact) is (radius > exact)
    over = sum(by_two_noises(replace(asked, seed=seed)).radius > exact for seed in range(trials))
    assert over <= binom.isf(1e-4, trials, alpha)
    if shape == "half-space":  # its own worst case: p's bound is all that lies between the radius and the truth
        assert over >= 1
    else:  # about 0.43 and 0.30 of the truth
        assert 0.25 * exact < radius < exact
