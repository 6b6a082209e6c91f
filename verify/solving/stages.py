"""Stages one after the other, each with its share of the time, and the one place where decided verdicts are checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, ClassVar, Protocol, runtime_checkable

from assay.verify.check.corroborate import corroborate
from assay.verify.check.replay import replayed, withdrawn
from assay.verify.core.budget import UNLIMITED, Budget, running
from assay.verify.core.problem import Problem, check_problem
from assay.verify.core.result import NETWORK, Guarantee, Reason, Result, Verdict
from assay.verify.core.verifier import BatchVerifier, Verifier
from assay.verify.registry import get_verifier

# What a search tells of its tree: domains, the share of the tree that is closed, its depth, the worst open bound.
TREE = ("domains", "closed", "depth", "worst")

# Hears of the results so far, one per problem, after each stage: for whoever has to answer before the last one is back.
Report = Callable[[Sequence[Result]], None]


@dataclass(frozen=True)
class Stage:
    """A verifier in its turn, with a ``share`` of the time that is left then, and so many seconds at ``most``.

    ``unlimited``: the seconds that it gets where there is no limit of time, for what might not end by itself; with 0 it
    is not asked then. ``price``: it is asked only where that is at least so many times what the verifier that measures
    the price of one step of its own has taken; ``crowd``: and only where so many problems wait for it.
    """

    verifier: Verifier
    share: float = 1.0
    most: float = inf
    unlimited: float = inf
    price: tuple[float, Verifier] | None = None
    crowd: int = 1

    def budget(self, whole: Budget) -> Budget:
        """What the stage gets of the ``whole``, its clock running."""
        left = max(whole.remaining, 0.0)
        seconds = min(self.share * left if left < inf else self.unlimited, self.most)
        return replace(whole, seconds=seconds, deadline=None).started()

    def affords(self, course: Course, whole: Budget) -> bool:
        """Whether what it would get of the ``whole`` is worth a beginning."""
        if self.price is None:
            return True
        count, verifier = self.price
        return self.budget(whole).remaining >= count * course.seconds(verifier)


@runtime_checkable
class Staged(Verifier, Protocol):
    """A verifier that is nothing but stages: whoever decides by it runs and checks them one by one."""

    def stages(self) -> Sequence[Stage]:
        """The stages in order."""
        ...


@dataclass(frozen=True)
class Late:
    """The first of some methods, by their names, that supports the problem; imported when its turn comes: packages that
    take long to load are not for every start."""

    methods: tuple[str, ...]
    name: ClassVar[str] = "late"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def supports(self, problem: Problem) -> str | None:
        """Why none of them does."""
        reasons = [get_verifier(method).supports(problem) for method in self.methods]
        return None if None in reasons else "; ".join(reason for reason in reasons if reason)

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """What the method says."""
        methods = [get_verifier(method) for method in self.methods]
        return next((m for m in methods if m.supports(problem) is None), methods[0]).verify(problem, budget)


def unheard(results: Sequence[Result]) -> None:
    """Reports are dropped."""


def decide(
    verifier: Verifier, problems: Sequence[Problem], budget: Budget, *, union: bool = False, report: Report = unheard
) -> list[Result]:
    """``verifier`` on every problem, each decided verdict checked, once.

    With ``union`` the problems are parts of one property: once one of them is falsified, the others may stay open.
    """
    budget = running(budget)
    for problem in problems:
        check_problem(problem)
    if isinstance(verifier, Staged):
        results = run(problems, verifier.stages(), budget, union=union, report=report)
        return [replace(result, verifier=repr(verifier)) for result in results]
    return _asked(verifier, problems, budget, union)


def _asked(verifier: Verifier, problems: Sequence[Problem], budget: Budget, union: bool) -> list[Result]:
    """Checked results, of one batch where the verifier takes batches.

    Otherwise one after the other. What is left of the time is shared out evenly among those to come, but for a union:
    one part that stays open leaves it open, so that each part may take all that is left.
    """
    if isinstance(verifier, BatchVerifier):
        return check(problems, verifier.verify_many(problems, budget))
    results: list[Result] = []
    for position, problem in enumerate(problems):
        if union and any(result.verdict is Verdict.FALSIFIED for result in results):
            results.append(Result(problem.id, repr(verifier), Verdict.UNKNOWN, Reason.INCOMPLETE))
        elif results and budget.expired:
            results.append(Result(problem.id, repr(verifier), Verdict.UNKNOWN, Reason.TIMEOUT))
        else:
            part = Stage(verifier, 1.0 if union else 1 / (len(problems) - position)).budget(budget)
            results += check([problem], [verifier.verify(problem, part)])
    return results


def run(
    problems: Sequence[Problem],
    stages: Sequence[Stage],
    budget: Budget,
    *,
    union: bool = False,
    report: Report = unheard,
) -> list[Result]:
    """Each stage on the problems still undecided; the first checked verdict of a problem stands.

    A stage is passed over where its verifier does not support the problem, and where it has had its say before: it was
    asked and did not run out of time. An undecided problem gets the largest margin that any stage proved.
    """
    budget = running(budget)
    courses = [Course(problem) for problem in problems]
    for stage in stages:
        late = budget.expired and all(course.steps for course in courses)
        if late or (budget.remaining == inf and not stage.unlimited):
            continue
        if union and any(course.falsified for course in courses):
            break
        waiting = [c for c in courses if c.awaits(stage.verifier) and stage.affords(c, budget)]
        if len(waiting) < stage.crowd:
            continue
        answers = _asked(stage.verifier, [course.problem for course in waiting], stage.budget(budget), union)
        for course, result in zip(waiting, answers, strict=True):
            course.take(stage.verifier, result)
        report([course.result() for course in courses])
    return [course.result() for course in courses]


@dataclass(eq=False)
class Course:
    """What the stages have said of one problem so far: each ``steps`` entry is one of them, told in ``stats["tried"]``.

    ``proofs``, ``attacks``: why each verifier left it open when it was last asked; ``declined``: why the first that
    does not support the problem does not.
    """

    problem: Problem
    last: Result | None = None
    steps: list[dict[str, Any]] = field(default_factory=list)
    proofs: dict[str, Reason] = field(default_factory=dict)
    attacks: dict[str, Reason] = field(default_factory=dict)
    declined: str = ""

    @property
    def falsified(self) -> bool:
        """Whether a counterexample is known."""
        return self.last is not None and self.last.verdict is Verdict.FALSIFIED

    def seconds(self, verifier: Verifier) -> float:
        """What ``verifier`` has taken, whenever it was asked."""
        taken: float = sum(step["seconds"] for step in self.steps if step["stage"] == repr(verifier))
        return taken

    def awaits(self, verifier: Verifier) -> bool:
        """Whether ``verifier`` may still tell something."""
        before = (self.proofs | self.attacks).get(repr(verifier), Reason.TIMEOUT)
        settled = self.last is not None and self.last.reason in (None, Reason.VACUOUS)
        if settled or before is not Reason.TIMEOUT:
            return False
        why = verifier.supports(self.problem)
        self.declined = self.declined or why or ""
        return why is None

    def take(self, verifier: Verifier, new: Result) -> None:
        """Note what ``verifier`` says, beside what the earlier ones had proved, spent and explained."""
        if new.reason is not None:
            (self.attacks if verifier.guarantee is Guarantee.EMPIRICAL else self.proofs)[repr(verifier)] = new.reason
        self.steps.append(
            {
                "stage": new.verifier,
                "outcome": (new.reason or new.verdict).value,
                "margin": new.margin,
                "seconds": new.seconds,
                **{key: new.stats[key] for key in TREE if new.stats.get(key) is not None},
            }
        )
        old = self.last
        if old is not None:
            said = (new.margin,) if new.verdict is Verdict.VERIFIED else (old.margin, new.margin)
            margins = [m for m in said if m is not None]
            why: dict[str, Any] = {key: old.stats[key] for key in ("alarm", "explanation") if key in old.stats}
            new = replace(new, margin=max(margins, default=None), stats={**why, **new.stats})
            new = replace(new, seconds=old.seconds + new.seconds)
        self.last = new

    def result(self) -> Result:
        """The answer so far."""
        trail = {"stages": [step["stage"] for step in self.steps], "tried": self.steps}
        if self.last is None:
            return self._beyond(Result(self.problem.id, "", Verdict.UNKNOWN, Reason.UNSUPPORTED, stats=trail))
        result = replace(self.last, stats={**self.last.stats, **trail})
        if result.reason in (None, Reason.VACUOUS):
            return result
        if not self.proofs and self.declined:
            return self._beyond(result)
        return replace(result, reason=self._reason())

    def _beyond(self, result: Result) -> Result:
        why = {"explanation": self.declined} if self.declined else {}
        return replace(result, reason=Reason.UNSUPPORTED, stats={**why, **result.stats})

    def _reason(self) -> Reason:
        """That a proof had not the time says most; that somebody merely found nothing says least."""
        if Reason.TIMEOUT in self.proofs.values():
            return Reason.TIMEOUT
        order = [Reason.INCOMPLETE, Reason.TIMEOUT]  # and above them all others, of which the last stands
        reasons = [*self.attacks.values(), *self.proofs.values()]
        return max(reversed(reasons), key=lambda reason: order.index(reason) if reason in order else len(order))


def check(problems: Sequence[Problem], results: Sequence[Result]) -> list[Result]:
    """Each result if it stands up to the second opinion; otherwise UNKNOWN(numerical) that says why.

    A verdict that fails is reported in ``stats["alarm"]`` unless the point is merely one on which float32 and real
    arithmetic differ. The model says nothing against a verdict on another subject; its counterexample must be a
    member of the region all the same.
    """
    checked = list(results)
    own = [i for i, result in enumerate(results) if result.subject == NETWORK]
    verified = [i for i in own if results[i].verdict is Verdict.VERIFIED]
    faults = corroborate([problems[i] for i in verified], [results[i] for i in verified])
    for i, fault in zip(verified, faults, strict=True):
        if fault is not None:
            checked[i] = withdrawn(results[i], {"alarm": fault})
    for i, result in enumerate(results):
        if result.verdict is Verdict.FALSIFIED:
            checked[i] = (replayed if result.subject == NETWORK else _member)(problems[i], result)
    return [_about_region(problem, result) for problem, result in zip(problems, checked, strict=True)]


def _about_region(problem: Problem, result: Result) -> Result:
    """The result with what is odd about its region: an input that was moved, or that no point of the dtype fits."""
    facts = {"moved": problem.moved} if problem.moved else {}
    if result.verdict is Verdict.UNKNOWN and problem.unreachable and "explanation" not in result.stats:
        facts["explanation"] = problem.unreachable
    return replace(result, stats={**result.stats, **facts}) if facts else result


def _member(problem: Problem, result: Result) -> Result:
    assert result.counterexample is not None
    if bool(problem.region.contains(result.counterexample[None])[0]):
        return result
    return withdrawn(result, {"alarm": "the counterexample lies outside of the region"})
