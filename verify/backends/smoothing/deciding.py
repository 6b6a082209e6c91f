"""Tests of one statement, "the probability of this class exceeds p": with n draws, in stages, or at any time.

Each spends all that is left of a ledger's alpha. The staged and the watched test stop as soon as they are sure, one
way or the other; only the first way costs confidence, since nothing is claimed the other way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

from assay.verify.backends.smoothing.confidence import least_successes, sequence_upper
from assay.verify.backends.smoothing.ledger import Draw, Ledger
from assay.verify.backends.smoothing.sampling import Stream

Test = Literal["fixed", "pilot", "staged", "anytime"]
# How many more draws the watched test makes before it looks again, as a share of those that it has.
GROWTH = 0.1
# The probability, as a share of alpha, of stopping a test that would have succeeded: it costs certificates, and no
# wrong one is given.
GIVE_UP = 1.0


@dataclass(frozen=True)
class Outcome:
    """The lower bound of the probability that was reached, with the counts and the number of draws behind it."""

    lower: float
    counts: list[int]
    n: int
    expired: bool = False


Expired = Callable[[], bool]


def never() -> bool:
    """No limit of time."""
    return False


def fixed(stream: Stream, label: int, n: int, ledger: Ledger, expired: Expired = never) -> Outcome:
    """All n draws, then the Clopper-Pearson bound; nothing is known where the time is over before."""
    draw = Draw("the estimate", [0] * (stream.classes + 1))
    while draw.n < n:
        if expired():
            return Outcome(0.0, draw.counts, draw.n, expired=True)
        add(draw, stream.take(min(1000, n - draw.n)))
    return Outcome(ledger.lower(draw, label), draw.counts, draw.n)


def staged(
    stream: Stream, label: int, p: float, sizes: Sequence[int], ledger: Ledger, expired: Expired = never
) -> Outcome:
    """Independent draws of rising ``sizes``, each with an equal share of alpha, until one proves more than p
    (Horvath et al. 2022, arXiv:2106.06946), or shows that the rest would hardly."""
    total = [0] * (stream.classes + 1)
    share, best = ledger.left / len(sizes), 0.0
    for position, size in enumerate(sizes):
        draw = Draw(f"stage {position + 1}", [0] * (stream.classes + 1))
        while draw.n < size:
            if expired():
                return Outcome(best, total, sum(total), expired=True)
            add(draw, stream.take(min(1000, size - draw.n)))
        _accumulate(total, draw.counts)
        best = max(best, ledger.lower(draw, label, share))
        if best > p or _hopeless(draw, label, p, share):
            break
    return Outcome(best, total, sum(total))


def watched(stream: Stream, label: int, p: float, n: int, ledger: Ledger, expired: Expired = never) -> Outcome:
    """One growing draw with a bound that holds at all times: stops when it exceeds p, when it hardly will, after n
    draws, or when the time is over. What it has shown by then stands."""
    draw, lower = Draw("the stream", [0] * (stream.classes + 1)), 0.0
    late = False
    alpha = ledger.left
    while draw.n < n and not late:
        more = min(max(50, ceil(draw.n * GROWTH)), 1000, n - draw.n)
        add(draw, stream.take(more))
        lower = max(lower, ledger.watch(draw, label))
        late = expired()
        if lower > p or _hopeless(draw, label, p, alpha):
            break
    return Outcome(lower, draw.counts, draw.n, expired=late and lower <= p)


def stages_of(n: int, first: int = 100, factor: int = 10) -> list[int]:
    """Sizes from ``first`` on, each ``factor`` times the one before, the last one n.

    >>> stages_of(100_000)
    [100, 1000, 10000, 100000]
    """
    sizes = []
    while first < n:
        sizes.append(first)
        first *= factor
    return [*sizes, n]


def draws_needed(successes: int, n0: int, p: float, alpha: float, most: int) -> int | None:
    """How many fresh draws will show more than p with a good chance, if a pilot of n0 tells the truth; None if
    ``most`` will hardly do. A guess from the pilot alone: it costs nothing, since the estimate is drawn afresh."""
    rate = (successes + 0.5) / (n0 + 1)
    n = max(10, ceil(n0 / 10))
    while n < most:
        deviation = (rate * (1 - rate) / n) ** 0.5
        if least_successes(n, p, alpha) <= n * (rate - deviation):
            return n
        n = ceil(n * 1.5)
    return (
        most if least_successes(most, p, alpha) <= most * min(1.0, rate + 3 * (rate * (1 - rate) / n0) ** 0.5) else None
    )


def _hopeless(draw: Draw, label: int, p: float, alpha: float) -> bool:
    return sequence_upper(draw.counts[label], draw.n, GIVE_UP * alpha) <= p


def add(draw: Draw, counts: Sequence[int]) -> None:
    """More of the same draw."""
    _accumulate(draw.counts, counts)


def _accumulate(total: list[int], counts: Sequence[int]) -> None:
    for i, count in enumerate(counts):
        total[i] += count
