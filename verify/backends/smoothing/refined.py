"""Certificates that ask the draws for more than one count: scores, rivals, gradients, a second noise.

Each function draws, spends alpha through a ledger, and gives the answer with its l2 radius, or an abstention. They
speak of the classifier that they name: the vote under Gaussian noise (:func:`against_rivals`, :func:`by_gradient`),
the largest mean score under it (:func:`by_scores`), the vote under generalised Gaussian noise (:func:`by_two_noises`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verify.backends.smoothing import certificates, confidence
from verify.backends.smoothing.double import Truncated, dsrs, suggested_quantile
from verify.backends.smoothing.ledger import Draw, Ledger
from verify.backends.smoothing.noises import Exp2, Gaussian, Sampled
from verify.backends.smoothing.sampling import Model, Stream
from verify.core.errors import InputError


@dataclass(frozen=True)
class Question:
    """A model at x (shape) with ``classes`` outputs; n draws after a pilot of n0, confidence 1 - alpha, a seed."""

    model: Model
    x: Tensor
    classes: int
    n: int = 100_000
    n0: int = 100
    alpha: float = 0.001
    seed: int = 0

    def __post_init__(self) -> None:
        confidence.check_alpha(self.alpha)
        if self.n < 4 or self.n0 < 1:
            raise InputError(f"expected n >= 4 and n0 >= 1 draws, got {self.n} and {self.n0}")

    def stream(self, noise: Sampled, name: str) -> Stream:
        """A stream of its own for each ``name``."""
        return Stream(self.model, noise, self.x, self.classes, self.seed, name)

    def draw(self, noise: Sampled, name: str, n: int) -> Draw:
        """The counts of n draws from the stream ``name``."""
        return Draw(name, self.stream(noise, name).take(n))


@dataclass(frozen=True)
class Answer:
    """The class (None: abstained) and its certified l2 radius."""

    prediction: int | None
    radius: float


ABSTAINED = Answer(None, 0.0)


def against_rivals(question: Question, sigma: float) -> Answer:
    """One draw, all classes bounded at once: the two-class radius, for answers that need no majority."""
    bounds = Ledger(question.alpha).all_bounds(question.draw(Gaussian(sigma), "all", question.n))
    label = max(range(question.classes), key=lambda k: bounds[k][0])
    # Draws without an answer are a rival too: nothing is known of what they would become.
    rival = min(1 - bounds[label][0], max(high for k, (_, high) in enumerate(bounds) if k != label))
    radius = certificates.two_class(bounds[label][0], rival, sigma)
    return Answer(label, radius) if radius > 0 else ABSTAINED


def by_scores(question: Question, sigma: float) -> Answer:
    """The class of the largest mean softmax score; its mean is bounded by its own variance (empirical Bernstein)."""
    pilot = question.draw(Gaussian(sigma), "pilot", question.n0)
    label = Ledger(question.alpha).choose(pilot)
    if label == question.classes:
        return ABSTAINED
    total = square = 0.0
    for _, y in question.stream(Gaussian(sigma), "scores").outputs(question.n):
        score = y.double().softmax(1)[:, label].nan_to_num(0.0)
        total, square = total + float(score.sum()), square + float(score.square().sum())
    mean = min(1.0, total / question.n)
    variance = max(0.0, (square - question.n * mean**2) / (question.n - 1))
    radius = certificates.cohen(confidence.bernstein_lower(mean, variance, question.n, question.alpha), sigma)
    return Answer(label, radius) if radius > 0 else ABSTAINED


def by_gradient(question: Question, sigma: float) -> Answer:
    """p on one half of the draws, its gradient on two independent quarters, half of alpha each."""
    noise, ledger = Gaussian(sigma), Ledger(question.alpha)
    label = ledger.choose(question.draw(noise, "pilot", question.n0))
    half, quarter = question.n // 2, question.n // 4
    if label == question.classes:
        return ABSTAINED
    p = ledger.lower(question.draw(noise, "estimate", half), label, question.alpha / 2)
    first, second = (_gradient(question, noise, label, name, quarter) for name in ("first", "second"))
    steepest = certificates.gradient_bound(first, second, quarter, sigma, question.alpha / 2)
    radius = certificates.higher_order(p, steepest, sigma)
    return Answer(label, radius) if radius > 0 else ABSTAINED


def by_two_noises(question: Question, noise: Exp2) -> Answer:
    """Double sampling: p under ``noise``, q under the same noise cut off at a quantile that a first bound suggests;
    half of the draws and of alpha for each. The quantile is chosen on p's draw, q's is drawn afterwards."""
    ledger, size = Ledger(question.alpha), question.x.numel()
    label = ledger.choose(question.draw(noise, "pilot", question.n0))
    half = question.n // 2
    if label == question.classes:
        return ABSTAINED
    p = ledger.lower(question.draw(noise, "wide", half), label, question.alpha / 2)
    if p <= 0.5:
        return ABSTAINED
    quantile = suggested_quantile(p)
    narrow = question.draw(Truncated(noise, quantile), "narrow", half)
    low, high = ledger.both_sides(narrow, label, question.alpha / 2)
    return Answer(label, dsrs(noise, quantile, p, low, high, size))


def _gradient(question: Question, noise: Gaussian, label: int, name: str, n: int) -> Tensor:
    """Mean over n draws of noise / sigma^2 times 1/2 for the answer, -1/2 for others (shape), float64."""
    total = torch.zeros(question.x.shape, dtype=torch.float64)
    for noisy, y in question.stream(noise, name).outputs(n):
        sign = torch.where(y.argmax(1) == label, 0.5, -0.5).double()
        total += torch.tensordot(sign, (noisy - question.x).double(), dims=1)
    return total / (n * noise.sigma**2)
