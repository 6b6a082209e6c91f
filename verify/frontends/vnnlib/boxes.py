"""Bounds of inputs as boxes: exact while they are compared, rounded outward to float64 at the end."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable
from fractions import Fraction
from math import inf
from typing import Generic, TypeVar

import torch
from torch import Tensor

from assay.verify.core.errors import InputError
from assay.verify.core.region import Box
from assay.verify.frontends.vnnlib.formula import Bound
from assay.verify.frontends.vnnlib.rounding import following, neighbours

# A lower end is (value, whether strict) and an upper one (value, whether closed): of two lower ends the larger tuple is
# the tighter one, of two upper ends the smaller.
End = tuple[Fraction, bool]
# Lower and upper bound of one input, rounded outward, and its least and greatest float64 member.
Column = tuple[float, float, float, float]
Changes = tuple[tuple[int, Column], ...]
K = TypeVar("K", bound=Hashable)


class Ends(Generic[K]):
    """The tightest ends so far of what is bounded: inputs by their position, outputs by the direction of a row."""

    def __init__(self) -> None:
        self.lower: dict[K, End] = {}
        self.upper: dict[K, End] = {}

    def tighten(self, key: K, value: Fraction, upper: bool, strict: bool) -> None:
        """Take in one more bound."""
        if upper:
            end = (value, not strict)
            self.upper[key] = min(end, self.upper[key]) if key in self.upper else end
        else:
            end = (value, strict)
            self.lower[key] = max(end, self.lower[key]) if key in self.lower else end

    def empty(self) -> K | None:
        """Something that no number fits: its lower end lies above its upper one, or on it and one is strict."""
        for key, (low, strict) in self.lower.items():
            if key in self.upper:
                high, closed = self.upper[key]
                if low > high or (low == high and (strict or not closed)):
                    return key
        return None


class Boxes:
    """Boxes that differ from one in few inputs: ``always`` holds in all of them."""

    def __init__(self, always: Iterable[Bound], inputs: int) -> None:
        self.base: Ends[int] = Ends()
        for bound in always:
            self.base.tighten(*bound)
        self.open = [i for i in range(inputs) if i not in self.base.lower or i not in self.base.upper]
        self.fault = _fault(self.base)
        closed = set(range(inputs)).difference(self.open)
        self.columns = {i: float_ends(self.base.lower[i], self.base.upper[i]) for i in sorted(closed)}
        self.numbers = _with_columns(torch.zeros(4, inputs, dtype=torch.float64), self.columns.items())

    def narrowed(self, bounds: Iterable[Bound]) -> Ends[int]:
        """The ends of the inputs that ``bounds`` speak of.

        Raises :class:`InputError` for an input that lacks a bound.
        """
        own: Ends[int] = Ends()
        for bound in bounds:
            position = bound.position
            if position in self.base.lower:
                own.lower.setdefault(position, self.base.lower[position])
            if position in self.base.upper:
                own.upper.setdefault(position, self.base.upper[position])
            own.tighten(*bound)
        sides = (("lower", own.lower, self.base.lower), ("upper", own.upper, self.base.upper))
        for position in self.open:
            for side, ends, base in sides:
                if position not in ends and position not in base:
                    raise InputError(f"input X_{position} has no {side} bound: each input needs both")
        return own

    def empty(self, own: Ends[int]) -> str | None:
        """Why the box is empty; None if it is not."""
        return _fault(own) or self.fault

    def changes(self, own: Ends[int]) -> Changes:
        """The columns in which the box of ``own`` differs from the one of ``always``: boxes are equal if these are."""
        changes = []
        for i in sorted({*own.lower, *own.upper}):
            column = float_ends(own.lower.get(i) or self.base.lower[i], own.upper.get(i) or self.base.upper[i])
            if column != self.columns.get(i):
                changes.append((i, column))
        return tuple(changes)

    def box(self, changes: Changes) -> Box:
        """The box of float64 bounds, rounded outward, with that of its members, rounded inward."""
        lower, upper, least, most = _with_columns(self.numbers.clone(), changes)
        same = torch.equal(lower, least) and torch.equal(upper, most)
        return Box(lower, upper, None if same else Box(least, most))

    def crossed(self, changes: Changes) -> Box:
        """A box that is empty, as one whose bounds are rounded inward: then they cross."""
        _, _, least, most = _with_columns(self.numbers.clone(), changes)
        return Box(least, most)


def float_ends(lower: End, upper: End) -> Column:
    """Lower and upper rounded outward, then the least and the greatest float64 between the two."""
    (low, strict), (high, closed) = lower, upper
    below_low, above_low = neighbours(low)
    below_high, above_high = neighbours(high)
    least = following(below_low, inf) if strict else above_low
    most = below_high if closed else following(above_high, -inf)
    return below_low, above_high, least, most


def _with_columns(numbers: Tensor, columns: Collection[tuple[int, Column]]) -> Tensor:
    """``numbers`` (4 x inputs), changed in place."""
    if columns:
        positions, values = zip(*columns, strict=True)
        numbers[:, torch.tensor(positions)] = torch.tensor(values, dtype=torch.float64).T
    return numbers


def _fault(ends: Ends[int]) -> str | None:
    position = ends.empty()
    if position is None:
        return None
    (low, strict), (high, closed) = ends.lower[position], ends.upper[position]
    interval = f"{'(' if strict else '['}{float(low)!r}, {float(high)!r}{']' if closed else ')'}"
    return f"the interval {interval} of input X_{position} is empty"
