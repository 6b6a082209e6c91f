"""What z3 is asked, one query after the other. It runs in a process of its own and needs no tensors.

z3's numbers are rational and of any size: its "unsat" is a proof, and its models are exact.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from importlib import import_module
from typing import Any

from assay.verify.backends.smt.question import Point, Question
from assay.verify.backends.smt.script import piece, script

ZERO = Fraction(0)
TIMEOUT = "timeout"
APART = Fraction(1, 2**10)  # of what is jumped over, how far from the jump a counterexample is looked for
NEAREST = 2**200  # as a part of what a margin can be, how near to 0 one that is positive is looked for


def _z3() -> Any:
    """The package, which is loaded on use."""
    return import_module("z3")


class Undecided(Exception):
    """z3 gave up; the message is the reason that z3 gives."""


@dataclass
class Answer:
    """``proven``: by disjunct, a number that its margin exceeds (or, of the optimum, reaches) on all of the box;
    ``point``: an input whose margin is at most 0 (or the least of all); ``stopped``: why z3 gave up on the rest."""

    proven: dict[int, Fraction] = field(default_factory=dict)
    point: Point | None = None
    margin: Fraction = ZERO
    disjunct: int = 0
    stopped: str = ""
    queries: int = 0


@dataclass
class Search:
    """Queries about one question until the deadline on the monotonic clock; ``bits`` of the relaxed form, 0: none."""

    question: Question
    bits: int
    seconds: float
    answer: Answer = field(default_factory=Answer)
    deadline: float = field(init=False)

    def __post_init__(self) -> None:
        self.deadline = time.monotonic() + self.seconds

    def below(
        self, disjunct: int, threshold: Fraction, strict: bool = False, relaxed: bool = True, apart: Fraction = ZERO
    ) -> Point | None:
        """An input at which the disjunct's margin is at most the threshold, so far ``apart`` from jumps; None if it is
        proven that none is.

        A point of the relaxed form that misses the threshold decides nothing: the exact form is asked then.
        """
        for bits in (self.bits, 0) if self.bits and relaxed else (0,):
            point = self.ask(disjunct, threshold, strict, bits, apart)
            if point is None:
                return None
            margin = self.question.margin(disjunct, point)
            if self.question.within(point) and (margin < threshold or (margin == threshold and not strict)):
                return point
        raise Undecided("a model does not satisfy what was asked")

    def ask(self, disjunct: int, threshold: Fraction, strict: bool, bits: int, apart: Fraction = ZERO) -> Point | None:
        """A point that z3 finds in one form, or None; it satisfies the exact one up to what was rounded."""
        self.answer.queries += 1
        text = script(self.question, disjunct, threshold, strict, bits, apart)
        return self._model(_z3().SolverFor("QF_LRA", ctx=_z3().Context()), text)

    def keep(self, disjunct: int, point: Point) -> Fraction:
        """Answer with this point; its margin."""
        self.answer.point, self.answer.disjunct = point, disjunct
        self.answer.margin = self.question.margin(disjunct, point)
        return self.answer.margin

    def least_nearby(self, disjunct: int, point: Point) -> Point:
        """Where the disjunct's margin is least among the inputs that switch no neuron; the point itself where that is
        at a jump, on whose other side it is worse."""
        optimizer = _z3().Optimize(ctx=_z3().Context())
        moved = self._model(optimizer, piece(self.question, disjunct, self.question.values(point))) or point
        return min(point, moved, key=lambda at: self.question.margin(disjunct, at))

    def _model(self, solver: Any, text: str) -> Point | None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise Undecided(TIMEOUT)
        if left < 1e6:
            solver.set("timeout", max(1, int(1000 * left)))
        solver.from_string(text)
        status = str(solver.check())
        if status == "unknown":
            raise Undecided(TIMEOUT if time.monotonic() >= self.deadline else solver.reason_unknown())
        if status == "unsat":
            return None
        model = solver.model()
        known = {str(name): model[name].as_fraction() for name in model.decls()}
        # What the model leaves open is free. The relaxed form's box is a little wider.
        return tuple(min(max(known.get(f"x{j}", low), low), high) for j, (low, high) in enumerate(self.question.box))


def _answered(search: Search, work: Callable[[], object]) -> Answer:
    """What is known when the work is done or z3 has given up."""
    try:
        work()
    except Undecided as stop:
        search.answer.stopped = str(stop)
    except _z3().Z3Exception as error:
        if "memory" in str(error):
            raise MemoryError(str(error)) from error
        raise
    return search.answer


def first_reached(
    question: Question, order: Sequence[int], above: Sequence[Fraction], bits: int, seconds: float
) -> Answer:
    """The disjuncts in this order, until one seems to have an input with a margin of at most ``above`` (by disjunct): a
    little more than 0, so that "unsat" proves a positive margin. The point is one of the relaxed form, if there is."""
    search = Search(question, bits, seconds)

    def work() -> None:
        for disjunct in order:
            point = search.ask(disjunct, above[disjunct], False, bits)
            if point is not None:
                search.keep(disjunct, point)
                return
            search.answer.proven[disjunct] = above[disjunct]

    return _answered(search, work)


def settled(
    question: Question,
    order: Sequence[int],
    above: Sequence[Fraction],
    beyond: Sequence[Fraction],
    bits: int,
    seconds: float,
) -> Answer:
    """The truth about the disjuncts in this order, of which the relaxed form of the first one is known to be reached,
    until one has an input with a margin below 0 by ``beyond`` (by disjunct), which rounding cannot hide."""
    search = Search(question, bits, seconds)

    def reaches(disjunct: int) -> bool:
        """Whether there is a clear violation; what else is found out of the disjunct is kept."""
        threshold = above[disjunct]
        point = search.below(disjunct, threshold, relaxed=disjunct != order[0])
        if point is not None and search.question.margin(disjunct, point) > ZERO:
            edge = search.below(disjunct, ZERO)
            while edge is None and point is not None:  # the least margin is positive, and passed after a few steps
                threshold = question.margin(disjunct, point) / 2**10
                if threshold < question.size(disjunct) / NEAREST:  # before a jump there may be no least one
                    raise Undecided("margins come as near to 0 as was looked")
                point = search.below(disjunct, threshold)
            point = edge
        if point is None:
            search.answer.proven[disjunct] = threshold
            return False
        if search.keep(disjunct, point) > -beyond[disjunct] or any(neuron.jump for neuron in question.neurons):
            clear = search.below(disjunct, -beyond[disjunct], apart=APART)
            # What lies so near to 0 may be hidden by rounding, or not: the deepest point of its piece is tried.
            search.keep(disjunct, search.least_nearby(disjunct, point) if clear is None else clear)
            return clear is not None
        return True

    return _answered(search, lambda: any(reaches(disjunct) for disjunct in order))


def optimum(question: Question, order: Sequence[int], lower: Sequence[float], bits: int, seconds: float) -> Answer:
    """The least margin of all, with an input that has it: points with less of it are asked for until there is none,
    and each is moved to the least of its linear piece, of which there are finitely many.

    ``lower``: bounds of the margin that are proven already, by disjunct.
    """
    search = Search(question, bits, seconds)

    def work() -> None:
        begin: Point | None = tuple((low + high) / 2 for low, high in question.box)
        if begin is not None and not question.within(begin):
            highest = max(row.range(question.bounds)[1] for row in question.disjuncts[order[0]])
            begin = search.below(order[0], highest, relaxed=False)
        if begin is None:
            raise Undecided("no input keeps the limits")
        least = search.keep(order[0], search.least_nearby(order[0], begin))
        for disjunct in order:
            while lower[disjunct] < least and (point := search.below(disjunct, least, strict=True)) is not None:
                least = search.keep(disjunct, search.least_nearby(disjunct, point))
        search.answer.proven = dict.fromkeys(order, least)

    return _answered(search, work)
