"""Counts of verdicts as rows: clean accuracy >= attacks >= the truth >= certificates, with exact intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from assay.verify.core.result import NETWORK, Reason, Verdict

CONFIDENCE = 0.95
ALL_ATTACKS = "all attacks"
ALL_METHODS = "all methods"


class Role(StrEnum):
    """From which side a row bounds the robust accuracy: an attack from above, a method from below."""

    ATTACK = "attack"
    METHOD = "method"


@dataclass(frozen=True)
class Judged:
    """What one participant said of one sample at one eps: as little of it as the counts need."""

    role: Role
    name: str
    eps: float
    sample: int
    verdict: Verdict
    reason: Reason | None = None
    seconds: float = 0.0
    subject: str = NETWORK


@dataclass(frozen=True)
class Row:
    """Verdicts of one participant at one eps over n samples.

    ``falsified`` includes the ``misclassified`` clean samples, which no participant is asked about. ``accuracy`` is
    what the row bounds: the certified share of a method, the share that an attack left standing. ``key`` is the repr
    that the records stand under; ``reasons`` counts why samples are unknown.
    """

    role: Role
    name: str
    key: str
    eps: float
    n: int
    verified: int
    falsified: int
    misclassified: int
    seconds: float = 0.0
    subject: str = NETWORK
    reasons: dict[str, int] = field(default_factory=dict)

    @property
    def unknown(self) -> int:
        """Samples that are neither verified nor falsified."""
        return self.n - self.verified - self.falsified

    @property
    def count(self) -> int:
        """Samples that speak for the model."""
        return self.verified if self.role is Role.METHOD else self.n - self.falsified

    @property
    def accuracy(self) -> float:
        """``count / n``."""
        return self.count / self.n

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Exact binomial interval of the accuracy on the population (Clopper and Pearson 1934), at 95%."""
        from scipy.stats import binomtest  # here: it takes a second to import

        interval = binomtest(self.count, self.n).proportion_ci(CONFIDENCE, method="exact")
        return float(interval.low), float(interval.high)

    def to_json(self) -> dict[str, Any]:
        """Plain data; the participant's name stands under its role."""
        low, high = self.interval
        return {
            "subject": self.subject,
            self.role.value: self.name,
            "key": self.key,
            "eps": self.eps,
            "n": self.n,
            "verified": self.verified,
            "falsified": self.falsified,
            "unknown": self.unknown,
            "misclassified": self.misclassified,
            "accuracy": self.accuracy,
            "low": low,
            "high": high,
            "seconds": round(self.seconds, 4),
            "reasons": self.reasons,
        }


def clean(n: int, misclassified: int, subject: str = NETWORK) -> Row:
    """A classifier without an attacker: what an attack of radius 0 leaves."""
    return Row(Role.ATTACK, "clean", "clean", 0.0, n, 0, misclassified, misclassified, subject=subject)


def row(role: Role, name: str, key: str, eps: float, n: int, misclassified: int, judged: Sequence[Judged]) -> Row:
    """The row of one participant from what it ``judged``: every rightly classified sample once."""
    verdicts = Counter(item.verdict for item in judged)
    return Row(
        role,
        name,
        key,
        eps,
        n,
        verified=verdicts[Verdict.VERIFIED],
        falsified=verdicts[Verdict.FALSIFIED] + misclassified,
        misclassified=misclassified,
        seconds=sum(item.seconds for item in judged),
        subject=judged[0].subject if judged else NETWORK,
        reasons=dict(sorted(Counter(item.reason.value for item in judged if item.reason).items())),
    )


def jaws(eps: float, n: int, misclassified: int, judged: Sequence[Judged]) -> tuple[Row, Row]:
    """The bracket at one eps, upper jaw first: what nothing broke, and what some method certified.

    Counterexamples of methods count in the upper jaw too. Only statements about the network itself count: what a
    smoothed classifier is certified for says nothing of the network under it.
    """
    own = [item for item in judged if item.eps == eps and item.subject == NETWORK]
    broken = {item.sample for item in own if item.verdict is Verdict.FALSIFIED}
    by_methods = {item.sample for item in own if item.verdict is Verdict.FALSIFIED and item.role is Role.METHOD}
    certified = {item.sample for item in own if item.verdict is Verdict.VERIFIED}
    spent = {role: sum(item.seconds for item in own if item.role is role) for role in Role}
    upper = Row(
        Role.ATTACK,
        ALL_ATTACKS,
        ALL_ATTACKS,
        eps,
        n,
        0,
        len(broken) + misclassified,
        misclassified,
        spent[Role.ATTACK],
    )
    lower = Row(
        Role.METHOD,
        ALL_METHODS,
        ALL_METHODS,
        eps,
        n,
        len(certified),
        len(by_methods - certified) + misclassified,
        misclassified,
        spent[Role.METHOD],
    )
    return upper, lower
