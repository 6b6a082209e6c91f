"""Certificates that ask the draws for more than p: rivals, gradients, a second noise.

Each makes all its draws, pays for every bound through a ledger, and speaks of the vote, as Cohen's does. Several bounds
from one draw share its alpha (the union bound asks for no independence).

Where the answer is a half-space Cohen's bound is wrong with probability alpha exactly: who claims as much as he does on
every draw, and more on some, is wrong more often. So none of them is never below his radius at all of alpha; they
promise his radius at what they leave to p, 1 - ``EXTRA`` of alpha.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from assay.verify.backends.smoothing import certificates, confidence, deciding
from assay.verify.backends.smoothing.deciding import Outcome, Test
from assay.verify.backends.smoothing.double import dsrs, exceeds, generalised_gaussian, suggested_quantile
from assay.verify.backends.smoothing.ledger import Draw, Ledger
from assay.verify.backends.smoothing.noises import Exp2, Gaussian
from assay.verify.backends.smoothing.noises.noise import converted
from assay.verify.backends.smoothing.question import Certified, Question, abstained, certified
from assay.verify.backends.smoothing.sampling import answers
from assay.verify.core.errors import InputError

# Of alpha, what the gradient or the second noise gets: p's bound must hardly be wider where they buy nothing.
EXTRA = 0.01
# What a refined radius must promise beyond the plain one to be worth that.
WORTH = 0.005


@dataclass(frozen=True)
class OfDraws:
    """A certificate that makes its draws by itself. ``scores``: it speaks of the largest mean score, not of votes."""

    answer: Callable[[Question], Certified]
    scores: bool = False
    tests: ClassVar[tuple[Test, ...]] = ("fixed",)

    def certify(self, question: Question, test: Test) -> Certified:
        """Its answer and radius. Raises :class:`InputError` for fewer than 4 draws, which cannot be halved twice."""
        if question.n < 4:
            raise InputError(f"this certificate parts its draws: expected n of at least 4, got {question.n}")
        return self.answer(question)


def against_rivals(question: Question) -> Certified:
    """One draw under Gaussian noise, all classes bounded at once: the two-class radius, for answers that need no
    majority."""
    sigma = deviation(question)
    draw = question.draw("estimate", question.n)
    bounds = Ledger(question.alpha).all_bounds(draw)
    label = max(range(question.classes), key=lambda k: bounds[k][0])
    lower = bounds[label][0]
    # Draws without an answer are a rival too: nothing is known of what they would become.
    rival = min(1 - lower, max(high for k, (_, high) in enumerate(bounds) if k != label))
    radius = in_l2(question, certificates.two_class(lower, rival, sigma))
    return certified(label, radius, [0] * len(draw.counts), Outcome(lower, draw.counts, draw.n))


def by_gradient(question: Question) -> Certified:
    """p under Gaussian noise and its gradient from the same draws, those of Cohen's certificate: most of alpha for p,
    the rest for the gradient, on two halves that are independent of each other. Where the pilot promises nothing, all
    of it goes to p, and the answer is Cohen's."""
    ledger, sigma = Ledger(question.alpha), deviation(question)
    pilot, label = question.pilot(ledger)
    if label is None:
        return abstained(pilot.counts)
    alpha, rest = (1 - EXTRA) * question.alpha, EXTRA * question.alpha
    zero = torch.zeros(question.x.shape)
    flattest = certificates.gradient_bound(zero, zero, question.n // 2, sigma, rest)

    def reaches(p: float, radius: float) -> bool:
        return certificates.higher_order(p, flattest, sigma) > radius

    if not _promising(question, pilot, label, alpha, reaches, lambda p: certificates.cohen(p, sigma)):
        return _by_p_alone(question, ledger, pilot, label, lambda p: in_l2(question, certificates.cohen(p, sigma)))
    draw, halves = _gradients(question, label)
    paid = ledger.pay(draw)
    p = confidence.clopper_pearson_lower(draw.counts[label], draw.n, (1 - EXTRA) * paid)
    steepest = certificates.gradient_bound(*halves, question.n // 2, sigma, EXTRA * paid)
    radius = in_l2(question, certificates.higher_order(p, steepest, sigma))
    return certified(label, radius, pilot.counts, Outcome(p, draw.counts, draw.n))


def by_two_noises(question: Question) -> Certified:
    """Double sampling: p under the noise, and q under the same noise cut off at a quantile that the pilot suggests,
    from the same draws, those of Cohen's certificate: those that fall within the quantile are draws of the second
    noise. Where the pilot promises nothing, all of alpha goes to p, and the answer is Cohen's."""
    ledger, noise = Ledger(question.alpha), _spherical(question)
    pilot, label = question.pilot(ledger)
    if label is None:
        return abstained(pilot.counts)
    guess = min(pilot.counts[label] / pilot.n, 1 - 1 / (4 * pilot.n))
    alpha, rest, quantile = (1 - EXTRA) * question.alpha, EXTRA * question.alpha, suggested_quantile(guess)
    inside = max(1, int(quantile * question.n))

    best = confidence.clopper_pearson_lower(inside, inside, rest / 2)

    def reaches(p: float, radius: float) -> bool:
        return exceeds(noise, quantile, p, best, question.size, radius)

    if not _promising(question, pilot, label, alpha, reaches, lambda p: noise.radius(p, 2, question.size)):
        own = question.noise  # a Gaussian's own radius is closed, and of any norm
        return _by_p_alone(question, ledger, pilot, label, lambda p: own.radius(p, question.norm, question.size))
    draw, within = _within(question, noise, quantile)
    paid = ledger.pay(draw)
    p = confidence.clopper_pearson_lower(draw.counts[label], draw.n, (1 - EXTRA) * paid)
    if p <= 0.5 or not sum(within):
        return abstained(pilot.counts, Outcome(p, draw.counts, draw.n))
    low = confidence.clopper_pearson_lower(within[label], sum(within), EXTRA * paid / 2)
    high = confidence.clopper_pearson_upper(within[label], sum(within), EXTRA * paid / 2)
    radius = in_l2(question, dsrs(noise, quantile, p, low, high, question.size))
    return certified(label, radius, pilot.counts, Outcome(p, draw.counts, draw.n))


def _promising(
    question: Question,
    pilot: Draw,
    label: int,
    alpha: float,
    reaches: Callable[[float, float], bool],
    plain: Callable[[float], float],
) -> bool:
    """Whether at best, by what the pilot tells of p, a refined radius with ``alpha`` for p beats the plain one with all
    of it. The pilot is independent of the draws that follow, so that they may be used as it suggests."""
    successes = round(min(pilot.counts[label] / pilot.n, 1 - 1 / (4 * pilot.n)) * question.n)
    split, whole = (confidence.clopper_pearson_lower(successes, question.n, a) for a in (alpha, question.alpha))
    return split > 0.5 and reaches(split, (1 + WORTH) * plain(whole))


def _by_p_alone(
    question: Question, ledger: Ledger, pilot: Draw, label: int, radius: Callable[[float], float]
) -> Certified:
    draw = question.draw("estimate", question.n)
    p = ledger.lower(draw, label)
    outcome = Outcome(p, draw.counts, draw.n)
    return certified(label, radius(p), pilot.counts, outcome) if p > 0.5 else abstained(pilot.counts, outcome)


def deviation(question: Question) -> float:
    """Of the question's noise, which is Gaussian."""
    assert isinstance(question.noise, Gaussian)
    return question.noise.sigma


def in_l2(question: Question, radius: float) -> float:
    """What an l2 radius is worth in the norm that is asked for."""
    return converted(radius, "gaussian", 2.0, question.norm, question.size)


def _spherical(question: Question) -> Exp2:
    noise = question.noise
    if isinstance(noise, Gaussian):
        return generalised_gaussian(noise.sigma, question.size, 0)
    assert isinstance(noise, Exp2)
    return noise


def _gradients(question: Question, label: int) -> tuple[Draw, tuple[Tensor, Tensor]]:
    """The draw, and for either half of it, a last one left over, the mean of noise / sigma^2 times 1/2 for the answer,
    -1/2 for others (shape), float64."""
    draw, half = Draw("estimate", [0] * (question.classes + 1)), question.n // 2
    total = torch.zeros(2, *question.x.shape, dtype=torch.float64)
    for noisy, y in question.outputs("estimate", question.n):
        answer = answers(y)
        sign = torch.where(answer == label, 0.5, -0.5).double()
        step, first = (noisy - question.x).double(), half - draw.n
        for which, part in enumerate((slice(0, max(first, 0)), slice(max(first, 0), max(first + half, 0)))):
            total[which] += torch.tensordot(sign[part], step[part], dims=1)
        deciding.add(draw, torch.bincount(answer, minlength=len(draw.counts)).tolist())
    means = total / (half * deviation(question) ** 2)
    return draw, (means[0], means[1])


def _within(question: Question, noise: Exp2, quantile: float) -> tuple[Draw, list[int]]:
    """The draw, and the counts of those that lie within the quantile of the noise's norm."""
    from scipy.special import gammaincinv

    cut = noise.scale * float(gammaincinv(noise.shape(question.size), quantile)) ** (1 / noise.k)
    draw, within = Draw("estimate", [0] * (question.classes + 1)), [0] * (question.classes + 1)
    for noisy, y in question.outputs("estimate", question.n):
        answer = answers(y)
        inside = (noisy - question.x).double().flatten(1).norm(dim=1) <= cut
        deciding.add(draw, torch.bincount(answer, minlength=len(within)).tolist())
        for k, count in enumerate(torch.bincount(answer[inside], minlength=len(within)).tolist()):
            within[k] += count
    return draw, within
