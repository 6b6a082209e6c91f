"""Certificates from one lower bound p of the majority's probability: each theorem is a radius that grows with p.

The class is chosen on a pilot and p bounded on fresh draws (Cohen et al. 2019, arXiv:1902.02918). Every other class
has at most 1 - p then, at no cost in confidence: this is the rival's bound where a theorem asks for one. Whatever
test of p there is serves all of them, those that stop early included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from assay.verify.backends.smoothing import certificates, deciding
from assay.verify.backends.smoothing.deciding import Outcome, Test
from assay.verify.backends.smoothing.ledger import Draw, Ledger
from assay.verify.backends.smoothing.noises import Gaussian, Laplace, Noise
from assay.verify.backends.smoothing.noises.noise import certified as in_norm
from assay.verify.backends.smoothing.question import Certified, Question, abstained
from assay.verify.core.errors import InputError
from assay.verify.core.norms import covers

# Radius from the noise, p, the norm and the number of values; of one noise, hence Any.
Radius = Callable[[Any, float, float, int], float]


def own(noise: Noise, p: float, norm: float, size: int) -> float:
    """The noise's own radius: under Gaussian noise Cohen's, under others that of Yang et al."""
    return noise.radius(p, norm, size)


def privacy_of_gaussian(noise: Gaussian, p: float, norm: float, size: int) -> float:
    """PixelDP's, direct in l2."""
    return in_norm("pixeldp", p, norm, size, {2.0: lambda p: certificates.pixeldp_gaussian(p, 1 - p, noise.sigma)})


def privacy_of_laplace(noise: Laplace, p: float, norm: float, size: int) -> float:
    """PixelDP's, direct in l1."""
    return in_norm("pixeldp", p, norm, size, {1.0: lambda p: certificates.pixeldp_laplace(p, 1 - p, noise.scale)})


def divergence_of_gaussian(noise: Gaussian, p: float, norm: float, size: int) -> float:
    """By Renyi divergence, direct in l2."""
    return in_norm("renyi", p, norm, size, {2.0: lambda p: certificates.renyi(p, 1 - p, noise.sigma)})


@dataclass(frozen=True)
class OfVote:
    """A certificate that needs p alone."""

    radius: Radius
    tests: ClassVar[tuple[Test, ...]] = ("fixed", "pilot", "staged", "anytime")
    scores: ClassVar[bool] = False

    def certify(self, question: Question, test: Test) -> Certified:
        """The majority's answer and its radius. Raises :class:`InputError` where a test that stops at a radius has
        none to stop at."""
        if question.eps is None and test != "fixed":
            raise InputError(f"test {test} stops at a radius: pass it, or take test=fixed")
        ledger = Ledger(question.alpha)
        pilot, label = question.pilot(ledger)
        if label is None:
            return abstained(pilot.counts)
        outcome = _bound(question, self.radius, test, pilot, label, ledger)
        if outcome.lower <= 0.5:
            return abstained(pilot.counts, outcome)
        radius = self.radius(question.noise, outcome.lower, question.norm, question.size)
        return Certified(label, radius, pilot.counts, outcome)


def _bound(question: Question, radius: Radius, test: Test, pilot: Draw, label: int, ledger: Ledger) -> Outcome:
    stream, n = question.stream("estimate"), question.n
    if test == "fixed":
        return deciding.fixed(stream, label, n, ledger, question.expired)
    p = probability_for(question.noise, question.norm, question.size, question.eps or 0.0, radius)
    if test == "staged":
        return deciding.staged(stream, label, p, deciding.stages_of(n), ledger, question.expired)
    if test == "anytime":
        return deciding.watched(stream, label, p, n, ledger, question.expired)
    enough = deciding.draws_needed(pilot.counts[label], pilot.n, p, question.alpha, n)
    if enough is None:
        return Outcome(0.0, pilot.counts, 0)
    return deciding.fixed(stream, label, enough, ledger, question.expired)


@lru_cache(maxsize=256)
def probability_for(noise: Noise, norm: float, size: int, radius: float, theorem: Radius = own) -> float:
    """The smallest probability, from above, whose radius by ``theorem`` covers ``radius``; 1 if there is none."""
    low, high = 0.5, 1.0
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return high
        low, high = (low, middle) if covers(theorem(noise, middle, norm, size), radius, norm) else (middle, high)


def most_frequent(question: Question) -> int | None:
    """The majority's answer among n draws by the two-sided binomial test of the two most frequent answers at alpha
    (Hung and Fithian 2019, arXiv:1610.03944); None where it abstains."""
    from scipy.stats import binomtest

    counts = question.draw("classify", question.n).counts[:-1]
    (first, label), (second, _) = sorted(((k, c) for c, k in enumerate(counts)), reverse=True)[:2]
    if first == 0 or binomtest(first, first + second, 0.5).pvalue > question.alpha:
        return None
    return label


def outvotes(question: Question, name: str, rival: int, label: int) -> tuple[bool, list[int]]:
    """Whether ``rival`` has more votes than ``label`` among n draws by the one-sided binomial test at alpha, and the
    counts."""
    from scipy.stats import binomtest

    counts = question.draw(name, question.n).counts
    votes = counts[rival] + counts[label]
    return bool(votes) and binomtest(counts[rival], votes, 0.5, "greater").pvalue <= question.alpha, counts
