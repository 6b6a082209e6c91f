"""Randomized smoothing as a method: it speaks of the smoothed classifier, never of the network under it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, ClassVar

import torch
from torch import Tensor

from assay.verify.backends.smoothing import deciding, kinds, named, scores, vote
from assay.verify.backends.smoothing.confidence import check_alpha
from assay.verify.backends.smoothing.deciding import Outcome, Test
from assay.verify.backends.smoothing.question import Certified, OutOfTime, Question
from assay.verify.backends.smoothing.sampling import centre, drowned, oracle
from assay.verify.core.budget import UNLIMITED, Budget, running
from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.network import Network
from assay.verify.core.problem import Problem, check_problem
from assay.verify.core.region import LpBall
from assay.verify.core.result import Guarantee, Reason, Result, Verdict
from assay.verify.core.spec import Spec
from assay.verify.support.floats import length

ONE_OUTPUT = "smoothing counts the answers of models of several outputs, not of one"


@dataclass(frozen=True)
class Smoothing:
    """Certifies the majority vote of the network under noise, with confidence 1 - alpha for each sample: the class is
    chosen on n0 draws, its probability is bounded on fresh ones.

    ``noise`` in which each value has the root mean square ``sigma`` (units of the input). ``n``: draws, at most.
    ``test``: ``fixed`` makes n draws and gives the largest radius that they show; ``pilot`` makes as many as the choice
    of the class suggests for the radius that is asked for; ``staged`` and ``anytime`` stop as soon as they have shown
    it, in stages of rising size or at any moment, a budget's end included. ``certificate``: ``cohen`` for every noise;
    ``pixeldp`` and ``renyi``, weaker theorems from the same draws; ``two-class``, which needs no majority;
    ``higher-order``, from the gradient too; ``dsrs``, from a second noise; ``soft``, of the largest mean softmax score,
    another classifier. Radii hold in real arithmetic, strictly: VERIFIED needs a radius above eps.
    """

    noise: kinds.Name = "gaussian"
    sigma: float = 0.25
    n: int = 100_000
    n0: int = 100
    alpha: float = 0.001
    test: Test = "fixed"
    certificate: named.Name = "cohen"
    name: ClassVar[str] = "smoothing"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.STATISTICAL

    def __post_init__(self) -> None:
        check_options(self.noise, self.sigma, self.n, self.n0, self.alpha)
        named.chosen(self.certificate, self.noise, self.test)

    @property
    def subject(self) -> str:
        """The classifier that results speak of."""
        return subject(self.noise, self.sigma, self._scores)

    def supports(self, problem: Problem) -> str | None:
        """Balls, the specification that one label is strictly the largest output, and noise that rounding leaves."""
        return beyond(problem) or drowned(centre(problem), self.sigma)

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """VERIFIED if the smoothed classifier's answer is the label everywhere in the ball; never FALSIFIED."""
        check_problem(problem)
        budget, begun = running(budget), time.monotonic()
        if problem.region.empty or not problem.spec.disjuncts:
            return self._result(problem, Reason.VACUOUS, begun, {})
        if why := self.supports(problem):
            return self._result(problem, Reason.UNSUPPORTED, begun, {"explanation": why})
        if budget.expired:
            return self._result(problem, Reason.TIMEOUT, begun, {})
        region = problem.region
        assert isinstance(region, LpBall)
        eps = float(region.eps)
        answer = self.certify(problem, region.p, budget.seed, eps, lambda: budget.expired)
        stats = {
            "prediction": answer.prediction,
            "radius": answer.radius,
            "n": answer.outcome.n,
            "p": answer.outcome.lower,
        }
        safe = answer.prediction == problem.label and isfinite(answer.radius) and answer.radius > eps
        reason = None if safe else Reason.TIMEOUT if answer.outcome.expired else Reason.INCOMPLETE
        certificate = {
            **stats,
            "kind": "smoothing",
            "noise": self.noise,
            "sigma": self.sigma,
            "theorem": self.certificate,
            "test": self.test,
            "most": self.n,
            "seed": budget.seed,
            "counts": answer.outcome.counts,
            "pilot": answer.pilot,
            "alpha": self.alpha,
        }
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
        at. Raises :class:`InputError` where eps is missing, and where the noise is lost in rounding,
        :class:`UnsupportedError` for a network of one output.
        """
        if problem.network.output_size < 2:
            raise UnsupportedError(ONE_OUTPUT)
        x, classes = centre(problem), problem.network.output_size
        self._check(x)
        noise = kinds.of_rms(self.noise, self.sigma, x.numel())
        question = Question(oracle(problem), x, classes, noise, norm, self.n, self.n0, self.alpha, seed, eps, expired)
        try:
            certified = named.chosen(self.certificate, self.noise, self.test).certify(question, self.test)
            return _about(problem.region.centre, x, norm, certified)
        except OutOfTime:
            nothing = [0] * (classes + 1)
            return Certified(None, 0.0, nothing, Outcome(0.0, nothing, 0, expired=True))

    def classify(self, network: Network, x: Tensor, seed: int) -> int | None:
        """The smoothed classifier's answer at x (shape) on 10 n0 draws, at alpha; None where it abstains."""
        if network.output_size < 2:
            raise UnsupportedError(ONE_OUTPUT)
        noise, model = kinds.of_rms(self.noise, self.sigma, x.numel()), network.oracle or network
        n, point = 10 * self.n0, x.to(network.dtype)
        self._check(point)
        question = Question(model, point, network.output_size, noise, n=n, n0=self.n0, alpha=self.alpha, seed=seed)
        return scores.largest(question) if self._scores else vote.most_frequent(question)

    @property
    def _scores(self) -> bool:
        return named.chosen(self.certificate, self.noise, self.test).scores

    def _check(self, x: Tensor) -> None:
        if why := drowned(x, self.sigma):
            raise InputError(why)

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


def _about(centre: Tensor, x: Tensor, norm: float, certified: Certified) -> Certified:
    """What was found at x as a statement about ``centre``, of which x is the rounding."""
    moved = float(length((x.double() - centre.double()).flatten(), norm)) * (1 + 1e-12)
    return certified if moved == 0 else replace(certified, radius=max(0.0, certified.radius - moved))


def subject(noise: str, sigma: float, scores: bool = False) -> str:
    """How results name the smoothed classifier: the vote, or the largest mean score.

    >>> subject("gaussian", 0.25)
    'smoothed(gaussian, 0.25)'
    """
    return f"smoothed({noise}, {sigma:g}{', scores' if scores else ''})"


def beyond(problem: Problem) -> str | None:
    """Why a problem is no question about the smoothed classifier's label on a ball, or None."""
    if not isinstance(problem.region, LpBall):
        return f"smoothing certifies l1, l2 and linf balls, no {type(problem.region).__name__.lower()}"
    if torch.as_tensor(problem.region.eps).dim():
        return "smoothing certifies one sample at a time, and one eps for all of its features"
    if problem.network.output_size < 2:
        return ONE_OUTPUT
    if problem.label is None or problem.spec.id != Spec.robust(problem.label, problem.network.output_size).id:
        return "smoothing certifies that one label stays the majority's, no other specification"
    return None


def check_options(noise: str, sigma: float, n: int, n0: int, alpha: float) -> None:
    """Raise :class:`InputError` for options out of their range."""
    kinds.of_rms(noise, sigma, 100)  # type: ignore[arg-type]
    check_alpha(alpha)
    for option, value in (("n", n), ("n0", n0)):
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{option} must be a whole number of at least 1, got {value}")
