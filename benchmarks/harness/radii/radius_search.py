"""One bisection for many samples and everybody: what one participant found narrows the search of the next.

A proof for a ball covers every smaller one, and a counterexample lies in every larger one, so that bisection is sound
for methods that are not monotone in eps, too: it may merely miss a larger proof.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from math import inf, isfinite, nextafter, prod, sqrt

import torch
from torch import Tensor

from assay.attacks.common.losses import margin
from assay.attacks.common.minimal_norm import MinimalAttack, dual, length
from assay.attacks.common.projected_gradient import gradient
from assay.benchmarks.harness.alarms import Case
from assay.benchmarks.harness.bracket import Role
from assay.benchmarks.harness.lost import Lost
from assay.benchmarks.harness.participants import Participant
from assay.benchmarks.harness.progress import Progress
from assay.benchmarks.harness.questions import Question, Recording, answers, grouped
from assay.benchmarks.harness.radii.bisection import NEAR, Bisection
from assay.models.data import Dataset
from assay.verify.check.replay import replay
from assay.verify.core.binary import class_scores
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError
from assay.verify.core.network import Network
from assay.verify.core.problem import Problem
from assay.verify.core.region import LpBall
from assay.verify.core.result import Reason, Result, Verdict
from assay.verify.core.spec import Spec, strictly_largest
from assay.verify.solving.falsifier import Falsifier
from assay.verify.support.plain import counted

CLOSE, AWAY = 1 / 16, 1 / 3  # of where a search begins: its first step, after somebody's search and after a guess
SHARE = 1 / 3  # of the time left, for one question: what takes longer is asked again of a smaller ball


@dataclass(eq=False)
class Reach:
    """How far one participant came with one sample.

    ``radius``: the largest that a method certified, 0 if none, or the least distance at which an attack broke it, inf
    if it did not. ``reason``: why a method proved no more when it was last asked in vain.
    """

    radius: float
    reason: Reason | None = None
    asked: int = 0
    seconds: float = 0.0


@dataclass(eq=False)
class Sample:
    """One sample on its way: ``certified`` and ``attacked`` by anybody so far, and the ``cases`` that show it.

    ``lead``: of the label over the others' outputs; ``guess``: the distance at which a linear model would err.
    """

    index: int
    label: int
    predicted: int
    lead: float
    guess: float
    certified: float = 0.0
    attacked: float = inf
    reaches: dict[str, Reach] = field(default_factory=dict)
    cases: list[Case] = field(default_factory=list)

    @property
    def right(self) -> bool:
        """Whether the sample itself is classified as its label."""
        return self.predicted == self.label


@dataclass(eq=False)
class Search:
    """Who is asked about what. Ends are found within ``tolerance``, or this ``share`` of them where that is more.

    ``budget``: its seconds are for all questions to one participant about one sample;
    ``refused``: by the names of those who cannot treat the model or the norm, why; ``specs``: by label; ``lost``:
    searches that no process survived."""

    network: Network
    data: Dataset
    participants: Sequence[Participant]
    norm: float
    tolerance: float
    share: float
    budget: Budget
    records: Recording
    progress: Progress
    refused: dict[str, str] = field(default_factory=dict)
    specs: dict[int, Spec] = field(default_factory=dict)
    recalled: int = 0
    lost: list[Lost] = field(default_factory=list)

    def judge(self, chunk: Sequence[int]) -> list[Sample]:
        """The samples of a chunk: attacks first, from above, and what is attacked need not be certified; in the end the
        last attack tries what is certified."""
        samples = self.clean(chunk)
        right = [sample for sample in samples if sample.right]
        attackers = [p for p in self.participants if p.role is Role.ATTACK]
        methods = [p for p in self.participants if p.role is Role.METHOD]
        for participant in (*attackers, *methods):
            self.progress.running(participant.name)
            self.progress.recall(len(samples) - len(right))
            self.seek(participant, right)
        tried = [each for each in attackers if each.name not in self.refused]
        certified = [sample for sample in right if sample.certified > 0 and self.has_time(sample)]
        if tried and certified:
            self.ask(tried[-1], [(sample, sample.certified) for sample in certified])
        return samples

    def seek(self, participant: Participant, samples: Sequence[Sample]) -> None:
        """How far the participant comes with each of the samples, all of them in step."""
        if not samples or participant.name in self.refused:
            self.progress.advance(len(samples))
            return
        why = participant.verifier.supports(self.problem(samples[0], self.widest))
        if why is not None:
            self.refused[participant.name] = why
            self.progress.advance(len(samples))
            return
        begin = self.from_below if participant.role is Role.METHOD else self.from_above
        for sample in samples:
            sample.reaches[participant.name] = Reach(inf if participant.role is Role.ATTACK else 0.0)
        courses = [(sample, begin(sample)) for sample in samples]
        while courses := self.round(participant, courses):
            if _finds_nearest(participant):  # it has looked everywhere
                self.progress.advance(len(courses))
                return

    def round(
        self, participant: Participant, courses: Sequence[tuple[Sample, Bisection]]
    ) -> list[tuple[Sample, Bisection]]:
        """One question for each course that goes on, and the courses that may go on after it."""
        name = participant.name
        asked = [(s, b, eps) for s, b in courses if (eps := self.next(name, s, b)) is not None]
        self.progress.advance(len(courses) - len(asked))
        results = self.ask(participant, [(sample, eps) for sample, _, eps in asked])
        first = all(bisection.asked == 0 for _, bisection, _ in asked)
        if asked and first and all(result.reason is Reason.UNSUPPORTED for result in results):
            self.refused[name] = str(results[0].stats.get("explanation", "it does not say why"))
            self.progress.advance(len(asked))
            return []
        deficits = self.deficits([sample for sample, *_ in asked], results)
        for (sample, bisection, eps), result in zip(asked, results, strict=True):
            reach = sample.reaches[name]
            if participant.role is Role.ATTACK:
                bisection.hear(eps, result.verdict is not Verdict.FALSIFIED, deficits.get(sample.index), reach.radius)
                continue
            holds = result.verdict is Verdict.VERIFIED
            known = result.margin if result.margin is not None and isfinite(result.margin) else None
            bisection.hear(eps, holds, known)
            if holds:
                reach.radius = max(reach.radius, eps)
            else:
                reach.reason = result.reason
        return [(sample, bisection) for sample, bisection, _ in asked]

    def next(self, name: str, sample: Sample, bisection: Bisection) -> float | None:
        """Where to ask, if there is time: once there always is."""
        if bisection.asked and not self.has_time(sample, name):
            return None
        return bisection.next()

    def has_time(self, sample: Sample, name: str | None = None) -> bool:
        """Whether a participant, or the whole search, has seconds left for the sample."""
        spent = max((r.seconds for n, r in sample.reaches.items() if name in (None, n)), default=0.0)
        return spent < self.budget.seconds

    def from_above(self, sample: Sample) -> Bisection:
        """An attack begins where the nearest one came to, or where a linear model would err."""
        known = sample.attacked < inf
        start = min(max(sample.attacked if known else sample.guess, self.tolerance), self.widest)
        return self.course(sample, start, self.widest, CLOSE if known else AWAY)

    def from_below(self, sample: Sample) -> Bisection:
        """A method begins where the best one came to; the first where none must succeed if an attack did."""
        top = min(sample.attacked, self.widest)
        return self.course(sample, sample.certified or top, top, CLOSE)

    def course(self, sample: Sample, start: float, top: float, step: float) -> Bisection:
        """The questions from ``start`` on, the first step as a share of it."""
        first = max(NEAR * self.tolerance, start * step)
        return Bisection(start, top, self.tolerance, first, self.share, sample.lead)

    def ask(self, participant: Participant, asked: Sequence[tuple[Sample, float]]) -> list[Result]:
        """Checked results, from the store where they are settled there."""
        samples = {sample.index: sample for sample, _ in asked}
        questions = [Question(sample.index, eps, self.problem(sample, eps)) for sample, eps in asked]
        self.records.asked(questions)
        results = self.records.known(participant, questions)
        self.recalled += len(results)
        for group in grouped(participant, [q for q in questions if q.problem.id not in results]):
            began = time.monotonic()
            reaches = [samples[question.sample].reaches[participant.name] for question in group]
            left = [max(0.0, self.budget.seconds - reach.seconds) for reach in reaches]
            self.progress.running(participant.name)
            said = answers(participant, group, replace(self.budget, seconds=SHARE * sum(left) / len(left)))
            fresh = [question.case(participant, result) for question, result in zip(group, said, strict=True)]
            for case in self.records.keep(participant, fresh):
                samples[case.sample].cases.append(case)
            results |= {result.problem_id: result for result in said}
            for reach in reaches:
                reach.seconds += (time.monotonic() - began) / len(group)
        answered = [results[question.problem.id] for question in questions]
        for question, result in zip(questions, answered, strict=True):
            sample = samples[question.sample]
            sample.reaches[participant.name].asked += 1
            self.note(participant, sample, question, result)
        return answered

    def note(self, participant: Participant, sample: Sample, question: Question, result: Result) -> None:
        """Keep a result that counts as a case: a counterexample at its own distance."""
        case = question.case(participant, result)
        if result.verdict is Verdict.VERIFIED:
            sample.certified = max(sample.certified, question.eps)
        elif result.verdict is Verdict.FALSIFIED and result.counterexample is not None:
            eps, problem = self.nearest(sample, result.counterexample, question)
            if participant.role is Role.ATTACK:
                reach = sample.reaches[participant.name]
                reach.radius = min(reach.radius, eps)
            if eps >= sample.attacked:
                return  # a nearer one contradicts all that it does
            sample.attacked = eps
            case = replace(case, eps=eps, problem=problem)
        elif "alarm" not in result.stats:
            return
        sample.cases.append(case)

    def nearest(self, sample: Sample, x: Tensor, question: Question) -> tuple[float, Problem]:
        """The smallest ball in which ``x``, an answer to the question, is a counterexample by the rules of replay."""
        radius = distance(x, self.data.x[sample.index], self.norm, self.data.eps_scale)
        for _ in range(3):  # rounding may leave the point out of the ball that it spans
            if radius >= question.eps:
                break
            problem = self.problem(sample, radius)
            if replay(problem, x).confirmed:
                return radius, problem
            radius = nextafter(radius, inf)
        return question.eps, question.problem

    def deficits(self, samples: Sequence[Sample], results: Sequence[Result]) -> dict[int, float]:
        """By sample, by how much the label is behind at the counterexample that was found, if one was: below 0."""
        pairs = zip(samples, results, strict=True)
        found = [(s.index, s.label, r.counterexample) for s, r in pairs if r.counterexample is not None]
        if not found:
            return {}
        x = torch.stack([point for _, _, point in found]).to(self.network.dtype)
        oracle: Callable[[Tensor], Tensor] = self.network.oracle or self.network
        with torch.no_grad():
            behind = margin(class_scores(oracle(x).flatten(1)), torch.tensor([label for _, label, _ in found]))
        return dict(zip((index for index, _, _ in found), (-behind).tolist(), strict=True))

    def clean(self, chunk: Sequence[int]) -> list[Sample]:
        """The samples as the original model classifies them: as their label where it is strictly the largest, else as a
        class that is not smaller."""
        x, y = self.data.x[list(chunk)].to(self.network.dtype), self.data.y[list(chunk)]
        oracle: Callable[[Tensor], Tensor] = self.network.oracle or self.network
        with torch.enable_grad():
            point = x.clone().requires_grad_()
            scores = class_scores(oracle(point).flatten(1))
            if int(y.max()) >= scores.shape[1]:
                only = counted(scores.shape[1], "output")
                raise InputError(f"{self.data.name} has the label {int(y.max())}, the model only {only}")
            behind = margin(scores, y)
        guesses = self.guesses(behind, point)
        right = strictly_largest(scores.detach(), y)
        others = scores.detach().scatter(1, y[:, None], -inf).argmax(1)
        predicted = torch.where(right, y, others).tolist()
        facts = zip(chunk, y.tolist(), predicted, (-behind.detach()).tolist(), guesses, strict=True)
        return [Sample(*each) for each in facts]

    def unsought(self, chunk: Sequence[int], why: Reason) -> list[Sample]:
        """The samples of which nobody found anything."""
        samples = self.clean(chunk)
        for sample in samples:
            if sample.right:
                sample.reaches = {
                    p.name: Reach(inf) if p.role is Role.ATTACK else Reach(0.0, why) for p in self.participants
                }
        return samples

    def guesses(self, behind: Tensor, point: Tensor) -> list[float]:
        """Where the margins ``behind`` (batch) at ``point`` would reach 0 if they went on as they begin there; the
        search takes them for no more than that."""
        anywhere = self.widest / 16
        try:
            slope = gradient(behind, point)
        except InputError:  # not differentiable, or not everywhere
            return [anywhere] * len(point)
        if self.data.eps_scale is not None:
            slope = slope * self.data.eps_scale
        guesses = (-behind.detach() / length(slope, dual(self.norm))).tolist()
        return [guess if isfinite(guess) and guess > 0 else anywhere for guess in guesses]

    def problem(self, sample: Sample, eps: float) -> Problem:
        """Is the sample robust within ``eps``?"""
        x, radius = self.data.x[sample.index], self.data.radius(eps)
        if sample.label not in self.specs:
            first = Problem.robustness(self.network, x, sample.label, radius, self.norm, self.data.legal)
            self.specs[sample.label] = first.spec
        ball = LpBall(x, radius, self.norm, self.data.legal)
        return Problem(self.network, ball, self.specs[sample.label], sample.label)

    @cached_property
    def widest(self) -> float:
        """A radius that covers the whole domain."""
        low, high = (torch.as_tensor(end, dtype=torch.float64).expand(self.data.shape) for end in self.data.legal)
        if self.data.eps_scale is None:
            return float((high - low).amax() * prod(self.data.shape) ** (1 / self.norm))
        free = self.data.eps_scale.expand(self.data.shape) > 0
        return max(((high - low) / self.data.eps_scale)[free].tolist(), default=1.0)


def _finds_nearest(participant: Participant) -> bool:
    """Whether the participant is an attack that looks for the nearest point by itself, in the whole domain."""
    return isinstance(participant.verifier, Falsifier) and isinstance(participant.verifier.attack, MinimalAttack)


def distance(x: Tensor, centre: Tensor, norm: float, scale: Tensor | None = None) -> float:
    """How far ``x`` lies from ``centre`` (one shape) in the norm, never rounded down; with a ``scale`` (broadcasts to
    the shape), linf in units of it, where a feature of scale 0 is one that has not moved.

    >>> distance(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.5]), 1)
    1.5
    """
    pairs = zip(x.double().flatten().tolist(), centre.double().flatten().tolist(), strict=True)
    steps = [abs(Fraction(a) - Fraction(b)) for a, b in pairs]
    if scale is not None:
        each = scale.double().expand(x.shape).flatten().tolist()
        steps = [step / Fraction(unit) for step, unit in zip(steps, each, strict=True) if unit] or [Fraction(0)]
    if norm == inf:
        return _float_above(max(steps))
    total = sum((step ** int(norm) for step in steps), Fraction(0))
    if norm == 1:
        return _float_above(total)
    root = sqrt(total)
    while Fraction(root) ** 2 < total:
        root = nextafter(root, inf)
    return root


def _float_above(value: Fraction) -> float:
    nearest = float(value)
    return nearest if Fraction(nearest) >= value else nextafter(nearest, inf)
