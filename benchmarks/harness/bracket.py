"""Counts of verdicts as rows: clean accuracy >= attacks >= the truth >= certificates, with exact intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, Protocol

from assay.verify.backends.smoothing.confidence import clopper_pearson
from assay.verify.core.result import NETWORK, Reason, Result, Verdict

CONFIDENCE = 0.95
CLEAN = "clean"
ALL_ATTACKS = "all attacks"
ALL_METHODS = "all methods"
UNSUPPORTED = Reason.UNSUPPORTED.value


class Role(StrEnum):
    """From which side a row bounds the robust accuracy: an attack from above, a method from below."""

    ATTACK = "attack"
    METHOD = "method"


class Seat(Protocol):
    """Who takes part, as far as the counts need to know: the side, the name of the rows, the key of the records, and
    what classifier it speaks of."""

    @property
    def role(self) -> Role: ...
    @property
    def name(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def subject(self) -> str: ...


class Searched(Protocol):
    """A model, and n samples around which it was looked at in a norm, or under a perturbation, by name."""

    @property
    def model(self) -> str: ...
    @property
    def data(self) -> str: ...
    @property
    def norm(self) -> float: ...
    @property
    def threat(self) -> str: ...
    @property
    def n(self) -> int: ...


class Bracketed(Searched, Protocol):
    """A bracket around a model's robust accuracy: what tables and figures show."""

    @property
    def rows(self) -> tuple[Row, ...]: ...


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
    explanation: str = ""


@dataclass(frozen=True)
class Row:
    """Verdicts of one participant at one eps over n samples.

    ``falsified`` includes the ``misclassified`` clean samples, which no participant is asked about. ``accuracy`` is
    what the row bounds: the certified share of a method, the share that an attack left standing. ``key`` is the repr
    that the records stand under; ``reasons`` counts why samples are unknown, ``explanations`` has one for each reason.
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
    explanations: dict[str, str] = field(default_factory=dict)

    @property
    def refusal(self) -> str:
        """Why the participant could not treat a single sample, in which case its counts say nothing; else empty."""
        if not 0 < self.reasons.get(UNSUPPORTED, 0) == self.n - self.misclassified:
            return ""
        return f"{UNSUPPORTED}: {self.explanations.get(UNSUPPORTED, 'it does not say why')}"

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
        return clopper_pearson(self.count, self.n, CONFIDENCE)

    def to_json(self) -> dict[str, Any]:
        """Plain data; the participant's name stands under its role. A row that is refused has no accuracy."""
        bounds = (None, None, None) if self.refusal else (self.accuracy, *self.interval)
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
            **dict(zip(("accuracy", "low", "high"), bounds, strict=True)),
            "seconds": round(self.seconds, 4),
            "reason": self.refusal or None,
            "reasons": self.reasons,
            "explanations": self.explanations,
        }


@dataclass(eq=False)
class Tally:
    """Both jaws over the first ``n`` samples, while a run goes on."""

    radii: Sequence[float]
    n: int = 0
    certified: Counter[float] = field(default_factory=Counter)
    broken: Counter[float] = field(default_factory=Counter)

    def add(self, n: int, right: int, judged: Sequence[Judged]) -> None:
        """The next ``n`` samples, of which ``right`` are classified rightly, and all that was said of these."""
        self.n += n
        for eps in self.radii:
            upper, lower = jaws(eps, n, n - right, judged)
            self.certified[eps] += lower.verified
            self.broken[eps] += upper.falsified

    def __str__(self) -> str:
        ends = (
            f"{self.certified[eps] / self.n:.1%} to {1 - self.broken[eps] / self.n:.1%} at eps {eps:g}"
            for eps in self.radii
        )
        return f"{', '.join(ends)} of {self.n}" if self.n else ""


def rows(
    seats: Sequence[Seat], radii: Sequence[float], n: int, wrong: Mapping[str, int], judged: Sequence[Judged]
) -> Iterator[Row]:
    """All rows, clean first, then eps by eps: attacks, upper jaw, lower jaw, methods. ``wrong``: clean samples that
    each subject misclassifies."""
    yield from (clean(n, count, who) for who, count in wrong.items())
    for radius in radii:
        here = [item for item in judged if item.eps == radius]
        of = [
            row(s.role, s.name, s.key, radius, n, wrong[s.subject], [i for i in here if i.name == s.name])
            for s in seats
        ]
        yield from (each for each in of if each.role is Role.ATTACK)
        yield from jaws(radius, n, wrong[NETWORK], judged)
        yield from (each for each in of if each.role is Role.METHOD)


def judged(seat: Seat, sample: int, eps: float, result: Result) -> Judged:
    """What the counts need of a result."""
    why = str(result.stats.get("explanation", ""))
    said = (result.verdict, result.reason, result.seconds, result.subject, why)
    return Judged(seat.role, seat.name, eps, sample, *said)


def flat(row: Row) -> dict[str, Any]:
    """The row as one record of numbers, texts and None, for tables: shares of 1, and seconds. An attack proves nothing:
    what it verified and what it leaves unknown are None. The note is of what else than looseness left samples open."""
    told = row.to_json()
    odd = {why: count for why, count in row.reasons.items() if why != "incomplete"}
    note = told["reason"] or ", ".join(f"{count} {why}" for why, count in odd.items())
    for name in ("reason", "reasons", "explanations", "key", "subject", row.role.value):
        del told[name]
    if row.role is Role.ATTACK:
        told |= {"verified": None, "unknown": None}
    return {"subject": row.subject, "side": row.role.value, "name": row.name, **told, "note": note}


def cells(row: Row) -> tuple[str, ...]:
    """A row for people: eps, name, what it bounds, its interval, seconds."""
    if row.refusal:
        return f"{row.eps:g}", row.name, UNSUPPORTED, "", ""
    sign = "" if row.name == CLEAN else "\u2264 " if row.role is Role.ATTACK else "\u2265 "
    low, high = row.interval
    figures = (f"{sign}{row.accuracy:.1%}", f"{low:.1%} to {high:.1%}", f"{row.seconds:.2f}" if row.seconds else "")
    return ("" if row.name == CLEAN else f"{row.eps:g}", row.name, *figures)


def clean(n: int, misclassified: int, subject: str = NETWORK) -> Row:
    """A classifier without an attacker: what an attack of radius 0 leaves."""
    return Row(Role.ATTACK, CLEAN, CLEAN, 0.0, n, 0, misclassified, misclassified, subject=subject)


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
        explanations={item.reason.value: item.explanation for item in judged[::-1] if item.reason and item.explanation},
    )


def jaws(eps: float, n: int, misclassified: int, judged: Sequence[Judged]) -> tuple[Row, Row]:
    """The bracket at one eps, upper jaw first: what nothing broke, and what some method certified.

    What is asked about at an eps holds all that is asked about at a smaller one, in norms as under perturbations: a
    certificate counts at every smaller eps, a counterexample at every larger one. Counterexamples of methods count in
    the upper jaw too. Only statements about the network itself count: what a smoothed classifier is certified for says
    nothing of the network under it.
    """
    own = [item for item in judged if item.subject == NETWORK]
    points = [item for item in own if item.verdict is Verdict.FALSIFIED and item.eps <= eps]
    broken = {item.sample for item in points}
    by_methods = {item.sample for item in points if item.role is Role.METHOD}
    certified = {item.sample for item in own if item.verdict is Verdict.VERIFIED and item.eps >= eps}

    def jaw(role: Role, name: str, verified: int, falsified: int) -> Row:
        asked = [item for item in own if item.role is role and item.eps == eps]
        refused = bool(asked) and all(item.reason is Reason.UNSUPPORTED for item in asked) and not verified + falsified
        reasons = {UNSUPPORTED: n - misclassified} if refused else {}
        why = {UNSUPPORTED: "none of them could run"} if refused else {}
        seconds, falsified = sum(item.seconds for item in asked), falsified + misclassified
        return Row(
            role, name, name, eps, n, verified, falsified, misclassified, seconds, reasons=reasons, explanations=why
        )

    return (
        jaw(Role.ATTACK, ALL_ATTACKS, 0, len(broken)),
        jaw(Role.METHOD, ALL_METHODS, len(certified), len(by_methods - certified)),
    )
