"""The ledger of alpha: the confidence of one statement, handed out in parts that sum up to alpha at most.

Three habits make a stated confidence untrue: choosing the class on the draw that then bounds it, looking again and
again with a bound for one look, and reporting the best of several bounds that were each given all of alpha. A ledger
gives each draw one use, each bound a share, and never more than alpha in all (the union bound).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from assay.verify.backends.smoothing import confidence
from assay.verify.core.errors import AssayError


class LedgerError(AssayError):
    """A draw was used twice, or more of alpha was asked for than is left."""


class Use(StrEnum):
    """What a draw was for."""

    CHOICE = "choice"
    BOUND = "bound"
    SEQUENCE = "sequence"


@dataclass(eq=False)
class Draw:
    """Counts of one draw of noise: class by class. Grows only where it is a sequence's."""

    name: str
    counts: list[int]

    @property
    def n(self) -> int:
        """Samples so far."""
        return sum(self.counts)


@dataclass(eq=False)
class Ledger:
    """``alpha``: of the whole statement. Entries record what was handed out."""

    alpha: float
    spent: float = 0.0
    entries: list[tuple[str, Use, float]] = field(default_factory=list)
    _sequences: dict[int, float] = field(default_factory=dict)
    _used: dict[int, Use] = field(default_factory=dict)
    # Draws are told apart by identity: kept, so that none is mistaken for another that came later.
    _kept: list[Draw] = field(default_factory=list)

    def __post_init__(self) -> None:
        confidence.check_alpha(self.alpha)

    @property
    def left(self) -> float:
        """What has not been handed out."""
        return max(0.0, self.alpha - self.spent)

    def choose(self, draw: Draw) -> int:
        """The most frequent class; costs nothing, but the draw is used up: it bounds nothing afterwards."""
        self._enter(draw, Use.CHOICE, 0.0)
        return max(range(len(draw.counts)), key=draw.counts.__getitem__)

    def lower(self, draw: Draw, label: int, share: float | None = None) -> float:
        """Lower bound of the probability of ``label``, from a draw that nothing was done with. ``share``: of alpha,
        all that is left if not given. Raises :class:`LedgerError` for a used draw or too large a share."""
        alpha = self._enter(draw, Use.BOUND, share)
        return confidence.clopper_pearson_lower(draw.counts[label], draw.n, alpha)

    def both_sides(self, draw: Draw, label: int, share: float | None = None) -> tuple[float, float]:
        """(lower, upper) for one class: each side costs half of the share."""
        alpha = self._enter(draw, Use.BOUND, share) / 2
        k = draw.counts[label]
        return confidence.clopper_pearson_lower(k, draw.n, alpha), confidence.clopper_pearson_upper(k, draw.n, alpha)

    def all_bounds(self, draw: Draw, share: float | None = None) -> list[tuple[float, float]]:
        """(lower, upper) for every class at once: each side of each of K classes costs a 2K-th of the share, so that
        the class may be chosen on the same draw."""
        alpha = self._enter(draw, Use.BOUND, share) / (2 * len(draw.counts))
        bounds = (confidence.clopper_pearson_lower, confidence.clopper_pearson_upper)
        return [(bounds[0](k, draw.n, alpha), bounds[1](k, draw.n, alpha)) for k in draw.counts]

    def lower_of_any(self, draw: Draw, share: float | None = None) -> tuple[int, float]:
        """The most frequent class and a lower bound of its probability from one draw: each class costs a K-th."""
        alpha = self._enter(draw, Use.BOUND, share) / len(draw.counts)
        label = max(range(len(draw.counts)), key=draw.counts.__getitem__)
        return label, confidence.clopper_pearson_lower(draw.counts[label], draw.n, alpha)

    def pay(self, draw: Draw, share: float | None = None) -> float:
        """The alpha of a bound that the caller takes from a draw by itself: of a mean, of a gradient."""
        return self._enter(draw, Use.BOUND, share)

    def watch(self, draw: Draw, label: int, share: float | None = None) -> float:
        """Lower bound of the probability of ``label`` that may be asked for again after the draw has grown; paid
        once, at the first look."""
        if self._used.get(id(draw)) is not Use.SEQUENCE:
            self._sequences[id(draw)] = self._enter(draw, Use.SEQUENCE, share)
        elif share is not None:
            raise LedgerError(f"the sequence over {draw.name} has its share of alpha already")
        return confidence.sequence_lower(draw.counts[label], draw.n, self._sequences[id(draw)]) if draw.n else 0.0

    def _enter(self, draw: Draw, use: Use, share: float | None) -> float:
        before = self._used.get(id(draw))
        if before is not None:
            raise LedgerError(
                f"{draw.name} has served as {before.value} and cannot serve as {use.value} too: draw afresh, or bound "
                "all classes at once (all_bounds, lower_of_any), or use a sequence from the first look on (watch)"
            )
        alpha = self.left if share is None else share
        if use is not Use.CHOICE and not (0 < alpha <= self.left * (1 + 1e-12)):
            raise LedgerError(
                f"{use.value} on {draw.name} asks for alpha {alpha:g}, {self.left:g} of {self.alpha:g} is left: give "
                "each of several bounds a share of its own"
            )
        self._used[id(draw)] = use
        self._kept.append(draw)
        self.spent += 0.0 if use is Use.CHOICE else alpha
        self.entries.append((draw.name, use, alpha))
        return alpha
