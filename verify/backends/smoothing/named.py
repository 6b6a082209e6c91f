"""The certificates by name: what each is for, and what it refuses."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, Protocol, get_args

from assay.verify.backends.smoothing import kinds, refined, scores, vote
from assay.verify.backends.smoothing.deciding import Test
from assay.verify.backends.smoothing.question import Certified, Question
from assay.verify.backends.smoothing.refined import OfDraws
from assay.verify.backends.smoothing.vote import OfVote
from assay.verify.core.errors import InputError, unknown_name

Name = Literal["cohen", "pixeldp", "renyi", "two-class", "higher-order", "dsrs", "soft"]


class Certificate(Protocol):
    """A theorem, with the draws that it needs."""

    @property
    def tests(self) -> Collection[Test]:
        """How its draws may be made."""
        ...

    @property
    def scores(self) -> bool:
        """Whether it speaks of the largest mean score instead of the vote."""
        ...

    def certify(self, question: Question, test: Test) -> Certified:
        """The answer and its radius. Raises :class:`OutOfTime` where the time is over before anything is known."""
        ...


# By the noises that each is for.
CERTIFICATES: dict[Name, dict[kinds.Name, Certificate]] = {
    "cohen": dict.fromkeys(get_args(kinds.Name), OfVote(vote.own)),
    "pixeldp": {"gaussian": OfVote(vote.privacy_of_gaussian), "laplace": OfVote(vote.privacy_of_laplace)},
    "renyi": {"gaussian": OfVote(vote.divergence_of_gaussian)},
    "two-class": {"gaussian": OfDraws(refined.against_rivals)},
    "higher-order": {"gaussian": OfDraws(refined.by_gradient)},
    "dsrs": dict.fromkeys(("gaussian", "generalised-gaussian"), OfDraws(refined.by_two_noises)),
    "soft": {"gaussian": OfDraws(scores.by_scores, scores=True)},
}


def chosen(name: Name, noise: kinds.Name, test: Test) -> Certificate:
    """The certificate ``name``. Raises :class:`InputError` where it is not for the noise or the test."""
    if name not in CERTIFICATES:
        raise unknown_name("certificate of smoothing", name, CERTIFICATES)
    if test not in get_args(Test):
        raise unknown_name("test of smoothing", test, get_args(Test))
    for_noises = CERTIFICATES[name]
    if noise not in for_noises:
        known = " or ".join(for_noises)
        raise InputError(f"certificate {name} is for {known} noise, got {noise}: cohen is for every noise")
    certificate = for_noises[noise]
    if test not in certificate.tests:
        able = ", ".join(other for other, kinds_ in CERTIFICATES.items() if test in next(iter(kinds_.values())).tests)
        raise InputError(f"certificate {name} makes all its draws, got test={test}: take fixed, or one of {able}")
    return certificate
