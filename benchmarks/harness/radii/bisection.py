"""Where a yes turns into a no: bisection that starts from a guess, and follows margins where there are any."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

GROWTH = 3  # from one step away from the guess to the next
NEAR = 0.9  # of what is close enough: so far at least every question lies from both ends


@dataclass(eq=False)
class Bisection:
    """The largest ``low`` with a yes and the least ``high`` with a no so far; a yes at ``top`` is the end of it.

    ``start`` is asked first, then places away from it in growing steps, of which ``step`` is the first, until there was
    a yes and a no; from then on the middle, or where the line through the margins at both ends crosses 0 as long as
    that halves the interval. ``tolerance``: how close the ends shall be, or ``share`` of ``high`` where that is more.
    Where they are known: ``lead``, the margin at 0; ``margin``, above 0, at ``place``, which had a yes; ``deficit``,
    below 0, at ``high``.
    """

    start: float
    top: float
    tolerance: float
    step: float
    share: float = 0.0
    lead: float | None = None
    low: float = 0.0
    high: float = inf
    margin: float | None = None
    place: float = 0.0
    deficit: float | None = None
    asked: int = 0
    halved: bool = True

    def next(self) -> float | None:
        """The next question; None once the ends are within the tolerance, or ``top`` got a yes."""
        if not self.asked:
            return min(self.start, self.top)
        if self.high == inf:
            return None if self.low >= self.top else min(self._beyond(), self.top)
        middle = (self.low + self.high) / 2
        if self.high - self.low <= self._enough or not self.low < middle < self.high:
            return None
        crossing = self._crossing()
        if crossing is not None:
            return crossing
        if self.low == 0:
            return max(self._away(self.high, -1), middle)
        return middle

    def hear(self, eps: float, holds: bool, margin: float | None = None, nearer: float = inf) -> None:
        """The answer at ``eps``. ``margin``: above 0 for a yes, below it for a no; ``nearer``: a place that is known to
        be a no as well, and where the margin is if it is the smaller one."""
        self.asked += 1
        before = self.high - self.low
        if holds and eps > self.low:
            self.low = eps
            if margin is not None:
                self.place, self.margin = eps, margin
        elif not holds and min(eps, nearer) < self.high:
            self.high, self.deficit = min(eps, nearer), margin
        self.halved = self.high - self.low <= before / 2

    @property
    def _enough(self) -> float:
        return max(self.tolerance, self.share * min(self.high, self.top))

    def _beyond(self) -> float:
        """After a yes: where the margin, on the line from 0, comes to an end; a step where there is no such line."""
        if self.lead is None or self.margin is None or not self.lead > self.margin > 0 or self.place < self.low:
            return self._away(self.low, 1)
        return max(self.low / (1 - self.margin / self.lead) - self._enough / 2, self.low + NEAR * self._enough)

    def _away(self, end: float, sign: int) -> float:
        step, self.step = self.step, self.step * GROWTH
        return end + sign * step

    def _crossing(self) -> float | None:
        """A little below where the margin is 0 on the line between both ends: at 0 itself rounding decides. None where
        there is no such line."""
        margin, place = (self.lead, 0.0) if self.margin is None else (self.margin, self.place)
        if margin is None or self.deficit is None or not margin > 0 > self.deficit or not self.halved:
            return None
        steepness = (margin - self.deficit) / (self.high - place)
        at = place + margin / steepness - self._enough / 2
        inside = min(NEAR * self._enough, (self.high - self.low) / 2)
        if at < self.low and place < self.low:
            return None  # the line lies too low
        return min(max(at, self.low + inside), self.high - inside)
