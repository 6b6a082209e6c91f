"""Randomized smoothing as a method: it speaks of the smoothed classifier, never of the network under it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from verify.backends.smoothing import deciding, kinds
from verify.backends.smoothing.confidence import check_alpha
from verify.backends.smoothing.deciding import Outcome
from verify.backends.smoothing.ledger import Draw, Ledger
from verify.backends.smoothing.noises import Noise
from verify.backends.smoothing.sampling import Stream, centre, oracle
from verify.core.budget import Budget
from verify.core.errors import InputError, unknown_name
from verify.core.network import Network
from verify.core.problem import Problem
from verify.core.region import LpBall
from verify.core.result import Guarantee, Reason, Result, Verdict
from verify.core.spec import Spec

Test = Literal["fixed", "pilot", "staged", "anytime"]


@dataclass(frozen=True)
class Smoothing:
    """Certifies the majority vote of the network under noise, with confidence 1 - alpha for each sample: the class is
    chosen on n0 draws, its probability is bounded on fresh ones.

    ``noise`` in which each value has the root mean square ``sigma`` (units of the input). ``n``: draws, at most.
    ``test``: ``fixed`` makes n draws and gives the largest radius that they show; ``pilot`` makes as many as the choice
    of the class suggests for the radius that is asked for; ``staged`` and ``anytime`` stop as soon as they have shown
    it, in stages of rising size or at any moment, a budget's last included. Radii hold in real arithmetic, strictly:
    VERIFIED needs a radius above eps.
    """

    noise: kinds.Name = "gaussian"
    sigma: float = 0.25
    n: int = 100_000
    n0: int = 100
    alpha: float = 0.001
    test: Test = "fixed"
    name: ClassVar[str] = "smoothing"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.STATISTICAL

    def __post_init__(self) -> None:
        check_options(self.noise, self.sigma, self.n, self.n0, self.alpha)
        if self.test not in get_args(Test):
            raise unknown_name("test of smoothing", self.test, get_args(Test))

    @property
    def subject(self) -> str:
        """The classifier that results speak of."""
        return subject(self.noise, self.sigma)

    def supports(self, problem: Problem) -> str | None:
        """Balls, and the specification that one label is strictly the largest output."""
        return beyond(problem)

    def verify(self, problem: Problem, budget: Budget) -> Result:
        """VERIFIED if the smoothed classifier's answer is the label everywhere in the ball; never FALSIFIED."""
        budget, begun = budget.started(), time.monotonic()
        if problem.region.empty or not problem.spec.disjuncts:
            return self._result(problem, Reason.VACUOUS, begun, {})
        if why := self.supports(problem):
            return self._result(problem, Reason.UNSUPPORTED, begun, {"explanation": why})
        if budget.expired:
            return self._result(problem, Reason.TIMEOUT, begun, {})
        region = problem.region
        assert isinstance(region, LpBall)
        eps = float(region.eps)
        found = self.certify(problem, region.p, budget.seed, eps, lambda: budget.expired)
        stats = {"prediction": found.prediction, "radius": found.radius, "n": found.outcome.n, "p": found.outcome.lower}
        safe = found.prediction == problem.label and isfinite(found.radius) and found.radius > eps
        reason = None if safe else Reason.TIMEOUT if found.outcome.expired else Reason.INCOMPLETE
        certificate = {**stats, "counts": found.outcome.counts, "pilot": found.pilot, "alpha": self.alpha}
        return self._result(problem, reason, begun, stats, certificate)

    def certify(
        self,
        problem: Problem,
        norm: float,
        seed: int,
        eps: float | None = None,
        expired: Callable[[], bool] = deciding.never,
    ) -> Certified:
        """The smoothed classifier's answer at the problem's centre, and its radius in ``norm``.

        ``eps``: the radius that tests which stop early are to show; they need it. The problem's label is not looked
        at. Raises :class:`InputError` where eps is missing.
        """
        if eps is None and self.test != "fixed":
            raise InputError(f"test {self.test} stops at a radius: pass it, or take test=fixed")
        x, classes = centre(problem), problem.network.output_size
        noise = kinds.of_rms(self.noise, self.sigma, x.numel())
        ledger = Ledger(self.alpha)
        pilot = Draw("the pilot", Stream(oracle(problem), noise, x, classes, seed, "pilot").take(self.n0))
        label = ledger.choose(pilot)
        if label == classes:  # nobody: most outputs are tied or NaN
            return Certified(None, 0.0, pilot.counts, Outcome(0.0, pilot.counts, 0))
        stream = Stream(oracle(problem), noise, x, classes, seed, "estimate")
        if self.test == "fixed":
            outcome = deciding.fixed(stream, label, self.n, ledger, expired)
        else:
            p = probability_for(noise, norm, x.numel(), eps or 0.0)
            outcome = self._early(stream, pilot, label, p, ledger, expired)
        if outcome.lower <= 0.5:
            return Certified(None, 0.0, pilot.counts, outcome)
        return Certified(label, noise.radius(outcome.lower, norm, x.numel()), pilot.counts, outcome)

    def classify(self, network: Network, x: Tensor, seed: int) -> int | None:
        """The smoothed classifier's answer at x (shape) by the two-sided binomial test of the two most frequent answers
        of 10 n0 draws, at alpha (Hung and Fithian 2019, arXiv:1610.03944); None where it abstains."""
        from scipy.stats import binomtest

        noise = kinds.of_rms(self.noise, self.sigma, x.numel())
        point = x.to(network.dtype)
        counts = Stream(network.oracle or network, noise, point, network.output_size, seed, "classify").take(
            10 * self.n0
        )
        (first, label), (second, _) = sorted(((k, c) for c, k in enumerate(counts[:-1])), reverse=True)[:2]
        if first == 0 or binomtest(first, first + second, 0.5).pvalue > self.alpha:
            return None
        return label

    def _early(
        self, stream: Stream, pilot: Draw, label: int, p: float, ledger: Ledger, expired: Callable[[], bool]
    ) -> Outcome:
        if self.test == "pilot":
            n = deciding.draws_needed(pilot.counts[label], pilot.n, p, self.alpha, self.n)
            return Outcome(0.0, pilot.counts, 0) if n is None else deciding.fixed(stream, label, n, ledger, expired)
        if self.test == "staged":
            return deciding.staged(stream, label, p, deciding.stages_of(self.n), ledger, expired)
        return deciding.watched(stream, label, p, self.n, ledger, expired)

    def _result(
        self,
        problem: Problem,
        reason: Reason | None,
        begun: float,
        stats: dict[str, Any],
        certificate: dict[str, Any] | None = None,
    ) -> Result:
        return Result(
            problem.id,
            repr(self),
            Verdict.VERIFIED if reason is None else Verdict.UNKNOWN,
            reason,
            guarantee=self.guarantee,
            certificate=certificate,
            confidence=1 - self.alpha,
            seconds=time.monotonic() - begun,
            subject=self.subject,
            stats=stats,
        )


@dataclass(frozen=True)
class Certified:
    """The answer (None: abstained) and its certified radius, with the counts of both draws, class by class; the last
    count is of outputs that are tied or NaN."""

    prediction: int | None
    radius: float
    pilot: list[int]
    outcome: Outcome


def subject(noise: str, sigma: float) -> str:
    """How results name the smoothed classifier.

    >>> subject("gaussian", 0.25)
    'smoothed(gaussian, 0.25)'
    """
    return f"smoothed({noise}, {sigma:g})"


def beyond(problem: Problem) -> str | None:
    """Why a problem is no question about the smoothed classifier's label on a ball, or None."""
    if not isinstance(problem.region, LpBall):
        return "smoothing certifies l1, l2 and linf balls, not boxes"
    if torch.as_tensor(problem.region.eps).dim():
        return "smoothing certifies one sample at a time"
    if problem.label is None or problem.spec.id != Spec.robust(problem.label, problem.network.output_size).id:
        return "smoothing certifies that one label stays the majority's, no other specification"
    return None


def check_options(noise: str, sigma: float, n: int, n0: int, alpha: float) -> None:
    """Refuse options that cannot be."""
    kinds.of_rms(noise, sigma, 100)  # type: ignore[arg-type]
    check_alpha(alpha)
    for option, value in (("n", n), ("n0", n0)):
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{option} must be a whole number of at least 1, got {value}")


@lru_cache(maxsize=256)
def probability_for(noise: Noise, norm: float, size: int, radius: float) -> float:
    """The smallest probability, from above, whose radius exceeds ``radius``; 1 if there is none."""
    low, high = 0.5, 1.0
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return high
        low, high = (low, middle) if noise.radius(middle, norm, size) > radius else (middle, high)
