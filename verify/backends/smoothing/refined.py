"""Certificates that ask the draws for more than p: rivals, gradients, a second noise.

Each makes all its draws, pays for every bound through a ledger, and speaks of the vote, as Cohen's does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from assay.verify.backends.smoothing import certificates, deciding
from assay.verify.backends.smoothing.deciding import Outcome, Test
from assay.verify.backends.smoothing.double import Truncated, dsrs, generalised_gaussian, suggested_quantile
from assay.verify.backends.smoothing.ledger import Draw, Ledger
from assay.verify.backends.smoothing.noises import Exp2, Gaussian
from assay.verify.backends.smoothing.noises.noise import converted
from assay.verify.backends.smoothing.question import Certified, Question, abstained, certified
from assay.verify.backends.smoothing.sampling import answers
from assay.verify.core.errors import InputError


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
    """p under Gaussian noise on one half of the draws, its gradient on two independent quarters, half of alpha each."""
    ledger = Ledger(question.alpha)
    pilot, label = question.pilot(ledger)
    if label is None:
        return abstained(pilot.counts)
    half, quarter = question.n // 2, question.n // 4
    draw = question.draw("estimate", half)
    p = ledger.lower(draw, label, question.alpha / 2)
    (first, mean), (second, other) = (_gradient(question, label, name, quarter) for name in ("first", "second"))
    alpha = ledger.pay(first, question.alpha / 4) + ledger.pay(second, question.alpha / 4)
    sigma = deviation(question)
    steepest = certificates.gradient_bound(mean, other, quarter, sigma, alpha)
    radius = in_l2(question, certificates.higher_order(p, steepest, sigma))
    return certified(label, radius, pilot.counts, Outcome(p, draw.counts, half + 2 * quarter))


def by_two_noises(question: Question) -> Certified:
    """Double sampling: p under the noise, q under the same noise cut off at a quantile that a first bound suggests;
    half of the draws and of alpha for each. The quantile is chosen on p's draw, q's is drawn afterwards."""
    ledger, noise = Ledger(question.alpha), _spherical(question)
    pilot, label = question.pilot(ledger)
    if label is None:
        return abstained(pilot.counts)
    half = question.n // 2
    draw = question.draw("estimate", half)
    p = ledger.lower(draw, label, question.alpha / 2)
    if p <= 0.5:
        return abstained(pilot.counts, Outcome(p, draw.counts, half))
    quantile = suggested_quantile(p)
    low, high = ledger.both_sides(question.draw("narrow", half, Truncated(noise, quantile)), label, question.alpha / 2)
    radius = in_l2(question, dsrs(noise, quantile, p, low, high, question.size))
    return certified(label, radius, pilot.counts, Outcome(p, draw.counts, 2 * half))


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


def _gradient(question: Question, label: int, name: str, n: int) -> tuple[Draw, Tensor]:
    """The draw, and the mean over it of noise / sigma^2 times 1/2 for the answer, -1/2 for others (shape), float64."""
    draw = Draw(name, [0] * (question.classes + 1))
    total = torch.zeros(question.x.shape, dtype=torch.float64)
    for noisy, y in question.outputs(name, n):
        answer = answers(y)
        deciding.add(draw, torch.bincount(answer, minlength=len(draw.counts)).tolist())
        sign = torch.where(answer == label, 0.5, -0.5).double()
        total += torch.tensordot(sign, (noisy - question.x).double(), dims=1)
    return draw, total / (n * deviation(question) ** 2)
