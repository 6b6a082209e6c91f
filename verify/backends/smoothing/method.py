"""Randomized smoothing as a method: it speaks of the smoothed classifier, never of the network under it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite
from typing import ClassVar

import torch
from torch import Tensor

from assay.verify.backends.smoothing import deciding, kinds, named, scores, transformations, vote
from assay.verify.backends.smoothing.confidence import check_alpha
from assay.verify.backends.smoothing.deciding import Outcome, Test
from assay.verify.backends.smoothing.kinds import Kind
from assay.verify.backends.smoothing.question import Certified, OutOfTime, Question
from assay.verify.backends.smoothing.sampling import centre, drowned, oracle
from assay.verify.backends.smoothing.statements import declined, stated
from assay.verify.core.budget import UNLIMITED, Budget, running
from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.network import Network
from assay.verify.core.norms import covers
from assay.verify.core.problem import Problem, check_problem
from assay.verify.core.region import LpBall, Region, Sparse
from assay.verify.core.region.sparse import pixels
from assay.verify.core.result import Guarantee, Reason, Result
from assay.verify.core.spec import Spec
from assay.verify.perturbations import Perturbed
from assay.verify.support.floats import length

ONE_OUTPUT = "smoothing counts the answers of models of several outputs, not of one"


@dataclass(frozen=True)
class Smoothing:
    """Certifies the majority vote of the network under noise, with confidence 1 - alpha for each sample: the class is
    chosen on n0 draws, its probability is bounded on fresh ones.

    ``noise`` in which each value has the root mean square ``sigma`` (units of the input), or that leaves the share
    ``keep`` of the pixels and erases the others, for perturbations of few pixels: ``masking`` keeps each with that
    probability, ``ablation`` exactly so many (Levine and Feizi 2020, arXiv:1911.09272). ``n``: draws, at most.
    ``test``: ``fixed`` makes n draws and gives the largest radius that they show; ``pilot`` makes as many as the choice
    of the class suggests for the radius that is asked for; ``staged`` and ``anytime`` stop as soon as they have shown
    it, in stages of rising size or at any moment, a budget's end included. ``certificate``: ``cohen`` for every noise;
    ``pixeldp`` and ``renyi``, weaker theorems from the same draws; ``two-class``, which needs no majority;
    ``higher-order``, from the gradient too; ``dsrs``, from a second noise; ``soft``, of the largest mean softmax score,
    another classifier. Radii hold in real arithmetic, strictly: VERIFIED needs a radius above eps, or as many
    pixels. Perturbations are certified cell by cell of their parameters, which alpha is shared out among, and those by
    ``gamma``, ``contrast`` or ``brightness`` alone by noise of that name, in one vote (Li et al. 2021,
    arXiv:2002.12398).
    """

    noise: kinds.Name = "gaussian"
    sigma: float = 0.25
    n: int = 100_000
    n0: int = 100
    alpha: float = 0.001
    test: Test = "fixed"
    certificate: named.Name = "cohen"
    keep: float = 0.1
    name: ClassVar[str] = "smoothing"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.STATISTICAL

    def __post_init__(self) -> None:
        check_options(self.kind, self.n, self.n0, self.alpha)
        named.chosen(self.certificate, self.noise, self.test)

    @property
    def subject(self) -> str:
        """The classifier that results speak of."""
        return subject(self.kind, self.scores)

    @property
    def kind(self) -> Kind:
        """The noise and how much of it."""
        return Kind(self.noise, self.sigma, self.keep)

    def supports(self, problem: Problem) -> str | None:
        """Balls, the specification that one label is strictly the largest output, and noise that rounding leaves."""
        return beyond(problem, self.kind)

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """VERIFIED if the smoothed classifier's answer is the label everywhere in the ball; never FALSIFIED."""
        check_problem(problem)
        budget, begun = running(budget), time.monotonic()
        if (none := declined(self, problem, budget, begun)) is not None:
            return none
        if isinstance(problem, Perturbed):
            return self._perturbed(problem, budget, begun)
        norm, eps = asked(problem.region)
        answer = self.certify(problem, norm, budget.seed, eps, lambda: budget.expired)
        stats = {
            "prediction": answer.prediction,
            "radius": answer.radius,
            "n": answer.outcome.n,
            "p": answer.outcome.lower,
        }
        safe = answer.prediction == problem.label and isfinite(answer.radius) and covers(answer.radius, eps, norm)
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
        return stated(self, problem, begun, reason, stats, self.alpha, certificate)

    def _perturbed(self, problem: Perturbed, budget: Budget, begun: float) -> Result:
        """The answer for all parameters of a perturbation."""
        x = centre(problem)
        how = (2.0, self.n, self.n0, self.alpha, budget.seed, None, lambda: budget.expired)
        question = Question(oracle(problem), x, problem.behind.output_size, self.kind.of(x), *how)
        theorem = named.chosen(self.certificate, self.noise, self.test)
        try:
            found = transformations.held(problem, question, lambda asked: theorem.certify(asked, self.test))
        except OutOfTime:
            return stated(self, problem, begun, Reason.TIMEOUT, alpha=self.alpha)
        reason = None if found.safe else Reason.TIMEOUT if found.expired else Reason.INCOMPLETE
        return stated(self, problem, begun, reason, vars(found), self.alpha)

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
        noise = self.kind.of(x)
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
        noise, model = self.kind.of(x), network.oracle or network
        n, point = 10 * self.n0, x.to(network.dtype)
        self._check(point)
        question = Question(model, point, network.output_size, noise, n=n, n0=self.n0, alpha=self.alpha, seed=seed)
        return scores.largest(question) if self.scores else vote.most_frequent(question)

    @property
    def scores(self) -> bool:
        """Whether the classifier is that of the largest mean score."""
        return named.chosen(self.certificate, self.noise, self.test).scores

    def _check(self, x: Tensor) -> None:
        if why := lost(x, self.kind):
            raise InputError(why)


def _about(centre: Tensor, x: Tensor, norm: float, certified: Certified) -> Certified:
    """What was found at x as a statement about ``centre``, of which x is the rounding. Members that differ in few
    pixels have the others of x itself."""
    if norm == 0:
        return certified
    moved = float(length((x.double() - centre.double()).flatten(), norm)) * (1 + 1e-12)
    return certified if moved == 0 else replace(certified, radius=max(0.0, certified.radius - moved))


def subject(kind: Kind, scores: bool = False) -> str:
    """How results name the smoothed classifier: the vote, or the largest mean score.

    >>> subject(Kind("gaussian", 0.25)), subject(Kind("ablation", keep=0.05))
    ('smoothed(gaussian, 0.25)', 'smoothed(ablation, keep 0.05)')
    """
    return f"smoothed({kind}{', scores' if scores else ''})"


def asked(region: Region) -> tuple[float, float]:
    """The norm and the radius of a ball, or 0 and the number of pixels that may change."""
    if isinstance(region, Sparse):
        return 0.0, float(region.support.size(*pixels(region.shape)))
    assert isinstance(region, LpBall)
    return region.p, float(region.eps)


def lost(x: Tensor, kind: Kind) -> str | None:
    """Why the noise is lost in rounding at x (shape), or None: what erases, or changes a parameter, is not."""
    return None if kind.erases or kind.of_parameter else drowned(x, kind.sigma)


def beyond(problem: Problem, kind: Kind) -> str | None:
    """Why a problem is no question about the smoothed classifier's label within a radius of the noise's, or None."""
    region = problem.region
    if isinstance(problem, Perturbed):
        if why := transformations.beyond(problem, kind):
            return why
    elif why := _of_others(region, kind):
        return why
    if problem.network.output_size < 2:
        return ONE_OUTPUT
    if problem.label is None or problem.spec.id != Spec.robust(problem.label, problem.network.output_size).id:
        return "smoothing certifies that one label stays the majority's, no other specification"
    return lost(centre(problem), kind)


def _of_others(region: Region, kind: Kind) -> str | None:
    """Why the noise is not for a region, or None."""
    if kind.of_parameter:
        return f"{kind.name} noise certifies perturbations by {kind.name}, and no regions of inputs"
    if isinstance(region, Sparse) and not kind.erases:
        return f"{kind.name} noise certifies l1, l2 and linf balls; masking and ablation certify few changed pixels"
    if isinstance(region, LpBall) and kind.erases:
        return f"{kind.name} noise certifies few changed pixels (the norm 0), no balls"
    if not isinstance(region, LpBall | Sparse):
        return f"smoothing certifies balls and few changed pixels, no {type(region).__name__.lower()}"
    if isinstance(region, LpBall) and torch.as_tensor(region.eps).dim():
        return "smoothing certifies one sample at a time, and one eps for all of its features"
    return None


def check_options(kind: Kind, n: int, n0: int, alpha: float) -> None:
    """Raise :class:`InputError` for options out of their range; those of ``kind`` have been."""
    check_alpha(alpha)
    for option, value in (("n", n), ("n0", n0)):
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{option} must be a whole number of at least 1, got {value}")
