"""How much room linear constraints leave in a box: the simplex method with bounded variables (Dantzig 1955), in
fractions where that is cheap; with Bland's rule (1977) where it makes no progress, so that it ends.

It starts at a corner of the box, so far outside of all constraints that it satisfies them when they are relaxed, and
moves to where they need to be relaxed least, or can be tightened most. Nothing that comes of it is taken for granted:
points are tested, and what multipliers prove is worked out in fractions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import isfinite

EXACT = 1500  # numbers of a table that is kept in fractions
PIVOTS = 1000  # more are not made
WORK = 20_000_000  # numbers of the table that are worked out in all of them, at most
SMALL = 1e-10  # what counts for nothing in floating point

ZERO = Fraction(0)
Number = Fraction | float


@dataclass(frozen=True)
class Room:
    """``point``: where ``A x + s w <= b`` holds with the largest s, or one of at least 1; ``duals``: multipliers of the
    constraints, which prove that there is no larger one."""

    point: tuple[Number, ...]
    duals: tuple[Fraction, ...]


def room(
    A: Sequence[Sequence[float]],
    b: Sequence[float],
    lower: Sequence[float],
    upper: Sequence[float],
    weights: Sequence[float],
) -> Room | None:
    """The room that ``A x <= b`` leaves in the box ``lower <= x <= upper``, measured by positive ``weights`` w (rows).

    Finite numbers, lower <= upper, at least one row. None where it would take too long, or overflows.
    """
    free = [j for j in range(len(lower)) if lower[j] < upper[j] and any(row[j] for row in A)]
    exact = len(A) * (len(A) + len(free) + 1) <= EXACT
    number: Callable[[float], Number] = Fraction if exact else float
    point = [number(v) for v in lower]
    left = [number(s) - _product(row, point) for row, s in zip(A, b, strict=True)]
    rows = [[number(row[j]) for j in free] for row in A]
    simplex = _Simplex.at_corner(rows, left, [number(w) for w in weights], 0.0 if exact else SMALL)
    widths = [number(upper[j]) - point[j] for j in free]
    if not simplex.solve([*widths, *[None] * (len(A) + 1)]):
        return None
    if not exact and not all(map(isfinite, (*simplex.values, *simplex.cost))):
        return None
    for j, value in zip(free, simplex.values, strict=False):
        point[j] += value
    # What the slack of a constraint costs is its multiplier.
    return Room(tuple(point), tuple(Fraction(max(-cost, 0)) for cost in simplex.cost[len(free) : -1]))


def _product(row: Sequence[float], x: Sequence[Number]) -> Number:
    return sum((type(v)(a) * v for a, v in zip(row, x, strict=True) if a), type(x[0])(0) if x else ZERO)


@dataclass
class _Simplex:
    """Variables are the free inputs, counted from their lower ends, a slack for each row, and s, the last.

    ``table`` (rows x variables), ``cost`` (variables): of each variable that is not in the ``basis`` (rows), what the
    basic ones lose and what s gains when it grows by one; ``values``: of all of them; ``at_upper``: those that rest
    there; ``small``: what is not told from 0.
    """

    table: list[list[Number]]
    cost: list[Number]
    basis: list[int]
    values: list[Number]
    small: float
    at_upper: set[int] = field(default_factory=set)

    @classmethod
    def at_corner(cls, A: list[list[Number]], b: list[Number], w: list[Number], small: float) -> _Simplex:
        """All inputs at their lower ends, and s where the first of the rows holds with equality."""
        rows, inputs = len(A), len(A[0])
        zero, one = w[0] - w[0], w[0] / w[0]
        tight = min(range(rows), key=lambda k: b[k] / w[k])
        s = b[tight] / w[tight]
        table = [[*A[k], *(one if i == k else zero for i in range(rows)), w[k]] for k in range(rows)]
        cost = [*[zero] * (inputs + rows), one]
        values = [*[zero] * inputs, *(b[k] - w[k] * s for k in range(rows)), s]
        simplex = cls(table, cost, [inputs + k for k in range(rows)], values, small)
        simplex._pivot(tight, inputs + rows)
        return simplex

    def solve(self, upper: list[Number | None]) -> bool:
        """Move until s is 1 or cannot grow; ``upper``: of the variables, None for infinity; False if it takes long."""
        stuck = False
        for _ in range(min(PIVOTS, WORK // (len(self.table) * len(self.cost)))):
            entering = self._entering(stuck)
            if entering is None or self.values[-1] >= 1:
                return True
            stuck = not self._move(entering, upper)
        return False

    def _entering(self, stuck: bool) -> int | None:
        """The variable that s gains most from, the first that it gains from where it is ``stuck``; None if none is."""
        basic = set(self.basis)
        gains = ((j, -g if j in self.at_upper else g) for j, g in enumerate(self.cost) if j not in basic)
        better = ((j, gain) for j, gain in gains if gain > self.small)
        found = next(better, None) if stuck else max(better, key=lambda pair: pair[1], default=None)
        return None if found is None else found[0]

    def _move(self, j: int, upper: list[Number | None]) -> bool:
        """Variable ``j`` as far as it, or a basic one, reaches a bound, which s has not; whether that is anywhere."""
        sign = -1 if j in self.at_upper else 1
        step, leaving = upper[j], None
        for row, i in enumerate(self.basis):
            rate = -sign * self.table[row][j]
            end = None if i == len(upper) - 1 or abs(rate) <= self.small else upper[i] if rate > 0 else 0
            if end is None:
                continue
            reach = max((end - self.values[i]) / rate, 0)
            if step is None or reach < step or (reach == step and (leaving is None or i < self.basis[leaving])):
                step, leaving = reach, row
        if step is None:  # s can grow without end: one is enough
            row = self.basis.index(len(upper) - 1)
            step = (1 - self.values[-1]) / (-sign * self.table[row][j])
        for row, i in enumerate(self.basis):
            self.values[i] -= sign * self.table[row][j] * step
        self.values[j] += sign * step
        if leaving is None:
            self.at_upper ^= {j}
            return True
        if -sign * self.table[leaving][j] > 0:
            self.at_upper.add(self.basis[leaving])
        self.at_upper.discard(j)
        self._pivot(leaving, j)
        return step > self.small

    def _pivot(self, row: int, j: int) -> None:
        """``j`` takes the place of what is basic in ``row``."""
        pivot = self.table[row][j]
        own = self.table[row] = [v / pivot for v in self.table[row]]
        for k, other in enumerate(self.table):
            if k != row and (factor := other[j]):
                self.table[k] = [v - factor * o if o else v for v, o in zip(other, own, strict=True)]
        if factor := self.cost[j]:
            self.cost = [v - factor * o if o else v for v, o in zip(self.cost, own, strict=True)]
        self.basis[row] = j


def excludes(
    duals: Sequence[Fraction],
    A: Sequence[Sequence[float]],
    b: Sequence[float],
    strict: Sequence[bool],
    lower: Sequence[float],
    upper: Sequence[float],
) -> bool:
    """Whether multipliers prove that no x of the box satisfies ``A x <= b``, or ``<`` in ``strict`` rows (Farkas 1902):
    the sum of ``A x - b`` that they weigh is above 0 all over the box, or at least 0 where a strict row takes part."""
    if any(y < 0 for y in duals):
        return False
    least = -sum((y * Fraction(s) for y, s in zip(duals, b, strict=True)), ZERO)
    for j, (low, high) in enumerate(zip(lower, upper, strict=True)):
        q = sum((y * Fraction(row[j]) for y, row in zip(duals, A, strict=True) if y), ZERO)
        least += min(q * Fraction(low), q * Fraction(high)) if q else ZERO
    return least > 0 or (least == 0 and any(y > 0 and s for y, s in zip(duals, strict, strict=True)))
