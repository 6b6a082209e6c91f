"""Many problems in which few inputs vary, as the parts of a property are, halved together.

One search after the other bounds a handful of boxes at a time, which takes as long as it takes to bound dozens. Here
boxes of all problems are bounded side by side.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, nan
from typing import ClassVar

from assay.verify.backends.bab.inputs.prepared import varied
from assay.verify.backends.crown import CROWN
from assay.verify.bounds.verdicts import concluded, unanswerable
from assay.verify.core.budget import UNLIMITED, Budget, running
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall
from assay.verify.core.result import Guarantee, Reason, Result, Verdict

TOGETHER = 256  # boxes that are bounded at a time


@dataclass(frozen=True)
class Crowd:
    """Boxes of all problems are bounded by CROWN side by side, and what is open is halved along the input that is
    widest there, as a share of its width in the region.

    ``max_inputs``: regions in which more inputs vary are declined; ``boxes``: a problem with more open ones is given
    up. Counterexamples are not looked for.
    """

    max_inputs: int = 8
    boxes: int = 64
    name: ClassVar[str] = "crowd"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def supports(self, problem: Problem) -> str | None:
        """Boxes in which few inputs vary, and whatever CROWN bounds."""
        region = problem.region
        if not isinstance(region, Box | LpBall) or (isinstance(region, LpBall) and region.p != inf):
            return "a region that is no box"
        inputs = len(varied(region.box()))
        if inputs > self.max_inputs:
            return f"{inputs} inputs that vary, more than the {self.max_inputs} that are halved at most"
        return CROWN().supports(problem)

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """One problem alone."""
        return self.verify_many([problem], budget)[0]

    def verify_many(self, problems: Sequence[Problem], budget: Budget = UNLIMITED) -> list[Result]:
        """One result per problem: VERIFIED where boxes that together are all of the region are, each by its bounds."""
        budget, begun = running(budget), time.monotonic()
        declined = {i: result for i, p in enumerate(problems) if (result := unanswerable(self, p)) is not None}
        courses = [Course(problem, problem.region.box()) for problem in problems]
        waiting = [(course, course.box) for i, course in enumerate(courses) if i not in declined][::-1]
        while waiting:
            some, waiting = waiting[-TOGETHER:], waiting[:-TOGETHER]
            parts = [course.problem.with_parts(region=box) for course, box in some]
            for (course, box), result in zip(some, CROWN().verify_many(parts, budget), strict=True):
                waiting += [(course, half) for half in course.take(box, result, self.boxes)]
            waiting = [(course, box) for course, box in waiting if course.reason is None]
        seconds = (time.monotonic() - begun) / max(1, len(problems))
        return [declined.get(i) or course.result(self, seconds) for i, course in enumerate(courses)]


@dataclass(eq=False)
class Course:
    """What is known of a problem within a ``box``: how many parts of it are ``open``, how many have been ``bounded``, a
    lower bound of the margin on those that are closed, and why it was given up, if it was."""

    problem: Problem
    box: Box
    open: int = 1
    bounded: int = 0
    margin: float = inf
    reason: Reason | None = None

    def take(self, box: Box, result: Result, most: int) -> list[Box]:
        """Note what is said of one of the open boxes; its halves, where it stays open and may be halved."""
        self.open, self.bounded = self.open - 1, self.bounded + 1
        if result.verdict is Verdict.VERIFIED and result.margin is not None:
            self.margin = min(self.margin, result.margin)
            return []
        halves = halved(box, self.box) if result.reason is Reason.INCOMPLETE and self.open + 2 <= most else []
        if not halves:
            self.reason = self.reason or result.reason or Reason.INCOMPLETE
        self.open += len(halves)
        return halves

    def result(self, verifier: Crowd, seconds: float) -> Result:
        """VERIFIED only where none is open and none was given up."""
        closed = self.reason is None and not self.open
        margin, reason = (self.margin if closed else nan), self.reason or Reason.INCOMPLETE
        return concluded(verifier, self.problem, margin, reason, seconds, stats={"boxes": self.bounded})


def halved(box: Box, whole: Box) -> list[Box]:
    """Two boxes that together are ``box``, cut where it is widest as a share of the ``whole``; none where no float64
    number lies between the bounds that could be cut."""
    lower, upper = box.lower.flatten(), box.upper.flatten()
    few = varied(whole)
    width = (whole.upper - whole.lower).flatten()[few]
    if not len(few):
        return []
    axis = few[((upper - lower)[few] / width).argmax()]
    middle = lower[axis] / 2 + upper[axis] / 2
    if not bool((lower[axis] < middle) & (middle < upper[axis])):
        return []
    first, second = upper.clone(), lower.clone()
    first[axis] = second[axis] = middle
    return [Box(box.lower, first.view(box.shape)), Box(second.view(box.shape), box.upper)]
