"""A verification problem in exact rational numbers, free of tensors: affine functions of inputs, ReLUs and jumps.

Plain data of the standard library, so that the process that solves it loads nothing else but the solver.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Point = tuple[Fraction, ...]


@dataclass(frozen=True)
class Form:
    """``constant`` plus each coefficient times its variable; no coefficient is 0."""

    terms: tuple[tuple[int, Fraction], ...]
    constant: Fraction

    def at(self, values: Sequence[Fraction]) -> Fraction:
        """Its value where the variables have these values."""
        return sum((c * values[j] for j, c in self.terms), self.constant)

    def range(self, bounds: Sequence[tuple[Fraction, Fraction]]) -> tuple[Fraction, Fraction]:
        """Its least and greatest value where each variable lies within its bounds."""
        least = greatest = self.constant
        for j, c in self.terms:
            ends = sorted((c * bounds[j][0], c * bounds[j][1]))
            least, greatest = least + ends[0], greatest + ends[1]
        return least, greatest


@dataclass(frozen=True)
class Neuron:
    """A variable that is ``max(z, 0)``, where ``lower <= z <= upper`` is proven and ``lower < 0 < upper``; or a
    ``jump`` from 0 to 1 where z passes 0, which itself belongs to the upper side (">=") or does not (">"): then one of
    the bounds may be 0."""

    z: Form
    lower: Fraction
    upper: Fraction
    jump: Literal["", ">=", ">"] = ""

    @property
    def most(self) -> Fraction:
        """Its largest value."""
        return Fraction(1) if self.jump else self.upper

    def of(self, z: Fraction) -> Fraction:
        """Its value where z is this."""
        if self.jump:
            return Fraction(z > 0 or (z == 0 and self.jump == ">="))
        return max(z, Fraction(0))


@dataclass(frozen=True)
class Question:
    """Which inputs within ``box``, at which no form of ``limits`` is above 0, make all rows of some disjunct at most 0?

    Variables are the inputs, in the order of the box, then the neurons; a neuron's z speaks of earlier ones only.
    ``strict``: per row, whether 0 itself is not unsafe; it counts for witnesses, not for proofs.
    """

    box: tuple[tuple[Fraction, Fraction], ...]
    neurons: tuple[Neuron, ...]
    disjuncts: tuple[tuple[Form, ...], ...]
    strict: tuple[tuple[bool, ...], ...]
    limits: tuple[Form, ...] = ()

    @property
    def bounds(self) -> list[tuple[Fraction, Fraction]]:
        """Proven bounds of every variable."""
        return [*self.box, *((Fraction(0), neuron.most) for neuron in self.neurons)]

    def values(self, point: Point) -> list[Fraction]:
        """The value of every variable at a point of the inputs."""
        values = list(point)
        for neuron in self.neurons:
            values.append(neuron.of(neuron.z.at(values)))
        return values

    def margin(self, disjunct: int, point: Point) -> Fraction:
        """The largest of the disjunct's rows at a point: it is unsafe where this is at most 0."""
        values = self.values(point)
        return max(row.at(values) for row in self.disjuncts[disjunct])

    def within(self, point: Point) -> bool:
        """Whether a point of the box keeps the limits."""
        return all(limit.at(point) <= 0 for limit in self.limits)

    def size(self, disjunct: int) -> Fraction:
        """A power of two of about the largest magnitude that the disjunct's rows can have."""
        bounds = self.bounds
        ends = [abs(end) for row in self.disjuncts[disjunct] for end in row.range(bounds)]
        return power_of_two(max(ends)) if any(ends) else Fraction(1)

    def unsafe(self, point: Point) -> bool:
        """Whether the point satisfies all rows of some disjunct, strictness honoured."""
        values = self.values(point)
        return any(
            all(row.at(values) < 0 or (row.at(values) == 0 and not strict) for row, strict in zip(*pair, strict=True))
            for pair in zip(self.disjuncts, self.strict, strict=True)
        )

    def concerned(self, forms: Iterable[Form]) -> list[int]:
        """The variables that these forms depend on, directly or through neurons, in ascending order."""
        variables: set[int] = set()
        waiting = [j for form in forms for j, _ in form.terms]
        while waiting:
            j = waiting.pop()
            if j not in variables:
                variables.add(j)
                if j >= len(self.box):
                    waiting += [i for i, _ in self.neurons[j - len(self.box)].z.terms]
        return sorted(variables)


def power_of_two(value: Fraction) -> Fraction:
    """A power of two that is at most ``value``, which is positive, and more than a quarter of it."""
    return Fraction(2) ** (value.numerator.bit_length() - value.denominator.bit_length() - 1)


def floor_to(value: Fraction, grid: Fraction) -> Fraction:
    """The largest multiple of ``grid`` that is at most ``value``."""
    return value // grid * grid


def ceil_to(value: Fraction, grid: Fraction) -> Fraction:
    """The smallest multiple of ``grid`` that is at least ``value``."""
    return -floor_to(-value, grid)
