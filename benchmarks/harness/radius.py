"""The robust radius of a sample, between the largest ball that is certified and the smallest that is attacked.

The radius is the supremum of all eps for which the label is strictly the largest output everywhere within eps. A proof
for a ball covers every smaller one, and a counterexample lies in every larger one, so that bisection is sound for
methods that are not monotone in eps, too: it may merely miss a larger proof.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from math import inf, nextafter, prod, sqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assay.attacks.common.interface import Attack
from assay.attacks.common.minimal_norm import MinimalAttack
from assay.benchmarks.harness import alarms
from assay.benchmarks.harness.alarms import Alarm, Case
from assay.benchmarks.harness.progress import SILENT, Progress
from assay.models.data import Dataset
from assay.verify.check.replay import replay
from assay.verify.core.binary import class_scores
from assay.verify.core.budget import Budget
from assay.verify.core.errors import AlarmError, InputError, UnsupportedError
from assay.verify.core.network import Network, to_network
from assay.verify.core.problem import Problem
from assay.verify.core.result import Reason, Result, Verdict
from assay.verify.core.spec import strictly_largest
from assay.verify.core.verifier import OtherSubject, Verifier
from assay.verify.solving import stages
from assay.verify.solving.falsifier import Falsifier
from assay.verify.support.options import title
from assay.verify.support.plain import counted

NO_LIMIT = Budget()
GROWTH = 4  # from one radius at which the attack fails to the next that it is tried at
SHARE = 1 / 3  # of the time left, for one question: what takes longer is asked again of a smaller ball


@dataclass(frozen=True)
class Bracket:
    """``certified`` <= radius <= ``attacked`` for one sample, in the units of x.

    ``certified`` is 0 where nothing is certified, ``attacked`` inf where no attack succeeded; both are 0 for a sample
    that is misclassified (``predicted`` differs from ``label``), and None after a soundness alarm. ``reason``: why the
    method proved no more at the smallest eps that it was asked about in vain. ``questions``: to the method, and runs of
    the attack.
    """

    sample: int
    label: int
    predicted: int
    certified: float | None
    attacked: float | None
    reason: Reason | None
    questions: tuple[int, int]
    seconds: float

    @property
    def right(self) -> bool:
        """Whether the sample itself is classified as its label."""
        return self.predicted == self.label


@dataclass(frozen=True)
class Radii:
    """The brackets of some samples; ``folders``: where each alarm was saved, in their order, if anywhere."""

    model: str
    data: str
    norm: float
    method: str
    attack: str
    tolerance: float
    seed: int
    brackets: tuple[Bracket, ...]
    alarms: tuple[Alarm, ...]
    folders: tuple[Path, ...]

    def raise_alarm(self) -> None:
        """Raise :class:`AlarmError` if there was an alarm; to be called once everything is printed."""
        if self.alarms:
            where = f" (saved in {self.folders[0]})" if self.folders else ""
            more = f"; {len(self.alarms) - 1} more" if len(self.alarms) > 1 else ""
            raise AlarmError(f"soundness alarm: {self.alarms[0].explanation}{where}{more}")

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        told = [alarm.to_json() for alarm in self.alarms]
        for entry, folder in zip(told, self.folders, strict=False):
            entry["folder"] = str(folder)
        samples = [asdict(bracket) for bracket in self.brackets]
        for entry in samples:
            asked, tried = entry.pop("questions")
            entry |= {"asked": asked, "attacks": tried, "seconds": round(entry["seconds"], 3)}
        names = ("model", "data", "norm", "method", "attack", "tolerance", "seed")
        return {**{name: getattr(self, name) for name in names}, "samples": samples, "alarms": told}


def radii(
    model: Any,
    data: Dataset,
    samples: Sequence[int],
    method: Verifier,
    attack: Attack,
    *,
    norm: float = inf,
    tolerance: float = 1e-3,
    budget: Budget = NO_LIMIT,
    name: str = "model",
    alarm_folder: Path | None = None,
    progress: Progress = SILENT,
) -> Radii:
    """The bracket of each of these ``samples`` of ``data``: its ends are found within ``tolerance`` (units of x).

    ``budget``: its seconds are for all questions about one sample.

    Raises :class:`InputError` for input that cannot be used, :class:`UnsupportedError` where the method or the attack
    cannot treat the model or the norm. Alarms are returned: see :meth:`Radii.raise_alarm`.
    """
    if not tolerance > 0:
        raise InputError(f"the tolerance must be above 0, got {tolerance}")
    if isinstance(method, OtherSubject):  # and asking again and again would spend its confidence many times
        raise UnsupportedError(f"{method.name} speaks of {method.subject}, not of the network: take assay smooth")
    if missing := [i for i in samples if not 0 <= i < len(data)]:
        raise InputError(f"{data.name} ({data.split}) has samples from 0 to {len(data) - 1}, not {missing[0]}")
    network = to_network(model, data.shape)
    brackets: list[Bracket] = []
    contradictions: list[Alarm] = []
    progress.begin(len(samples))
    for sample in samples:
        search = Search(network, data, sample, method, attack, norm, tolerance, budget.started(), progress)
        brackets.append(search.run())
        contradictions += search.alarms
        progress.advance(1)
    folders = alarms.save_all(contradictions, alarm_folder)
    where = f"{data.name} ({data.split})"
    names = (title(method), title(attack))
    return Radii(
        name, where, norm, *names, tolerance, budget.seed, tuple(brackets), tuple(contradictions), tuple(folders)
    )


@dataclass(eq=False)
class Search:
    """One sample on its way: what is ``certified`` and ``attacked`` so far, and the ``cases`` that show it."""

    network: Network
    data: Dataset
    sample: int
    method: Verifier
    attacker: Attack
    norm: float
    tolerance: float
    budget: Budget
    progress: Progress
    certified: float = 0.0
    attacked: float = inf
    reason: Reason | None = None
    asked: int = 0
    tried: int = 0
    cases: list[Case] = field(default_factory=list)
    alarms: list[Alarm] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    def run(self) -> Bracket:
        """Both ends, from above first: what is attacked need not be certified."""
        predicted = self.predicted()
        if predicted != self.label:
            return self.bracket(predicted, 0.0, 0.0)
        widest = self.widest()
        why_not = self.method.supports(self.problem(widest))
        if why_not is not None:
            raise UnsupportedError(f"{title(self.method)} cannot treat this model in this norm: {why_not}")
        self.from_above(widest)
        self.from_below(min(self.attacked, widest))
        if self.certified > 0 and not self.budget.expired:
            self.attack(self.certified)
        self.alarms = alarms.find(self.cases)
        if self.alarms:
            return self.bracket(predicted, None, None)
        return self.bracket(predicted, self.certified, self.attacked)

    def from_above(self, widest: float) -> None:
        """The attack: everywhere, then at radii that grow until it succeeds, then by bisection."""
        self.attack(widest)
        if isinstance(self.attacker, MinimalAttack):
            return  # it has looked for the nearest point already
        low, eps = 0.0, self.tolerance
        while eps < min(self.attacked, widest) and not self.budget.expired:
            if self.attack(eps):
                break
            low, eps = eps, eps * GROWTH
        while self.attacked < inf and self.gap(low, self.attacked):
            middle = (low + self.attacked) / 2
            if not self.attack(middle):
                low = middle

    def from_below(self, top: float) -> None:
        """The method: first where it must not succeed if the attack did, then by bisection."""
        if self.certify(top):
            return
        while self.gap(self.certified, top):
            middle = (self.certified + top) / 2
            if not self.certify(middle):
                top = min(middle, self.attacked)

    def gap(self, low: float, high: float) -> bool:
        """Whether there is more to find between two radii, and time for it."""
        return high - low > self.tolerance and low < (low + high) / 2 < high and not self.budget.expired

    def attack(self, eps: float) -> bool:
        """Whether the attack succeeds within ``eps``."""
        self.tried += 1
        return self.decide(Falsifier(self.attacker), title(self.attacker), eps).verdict is Verdict.FALSIFIED

    def certify(self, eps: float) -> bool:
        """Whether the method proves all of ``eps``; a counterexample of its own counts as an attack."""
        self.asked += 1
        result = self.decide(self.method, title(self.method), eps)
        if result.verdict is Verdict.VERIFIED:
            self.certified = max(self.certified, eps)
            return True
        self.reason = result.reason
        return False

    def decide(self, verifier: Verifier, name: str, eps: float) -> Result:
        """A checked result, which is kept as a case if it counts: a counterexample at its own distance."""
        self.progress.running(f"sample {self.sample}: {name} at eps {eps:g}")
        problem = self.problem(eps)
        share = replace(self.budget, seconds=max(0.0, self.budget.remaining) * SHARE, deadline=None)
        (result,) = stages.decide(verifier, [problem], share)
        keep = result.verdict is Verdict.VERIFIED or "alarm" in result.stats
        if result.verdict is Verdict.FALSIFIED and result.counterexample is not None:
            eps, problem = self.nearest(result.counterexample, eps)
            keep = eps < self.attacked  # it contradicts all that a farther one does
            self.attacked = min(self.attacked, eps)
        if keep:
            self.cases.append(Case(name, self.sample, eps, problem, result))
        return result

    def nearest(self, x: Tensor, eps: float) -> tuple[float, Problem]:
        """The smallest ball in which ``x``, found within ``eps``, is a counterexample by the rules of replay."""
        radius = distance(x, self.x, self.norm, self.data.eps_scale)
        for _ in range(3):  # rounding may leave the point out of the ball that it spans
            problem = self.problem(min(radius, eps))
            if replay(problem, x).confirmed:
                return min(radius, eps), problem
            radius = nextafter(radius, inf)
        return eps, self.problem(eps)

    def predicted(self) -> int:
        """The label if it is strictly the largest output of the original model, else a class that is not smaller."""
        oracle = self.network.oracle or self.network
        with torch.no_grad():
            scores = class_scores(oracle(self.x[None].to(self.network.dtype)).flatten(1))[0]
        if self.label >= len(scores):
            only = counted(len(scores), "output")
            raise InputError(f"{self.data.name} has the label {self.label}, the model only {only}")
        if bool(strictly_largest(scores[None], torch.tensor([self.label]))):
            return self.label
        others = scores.clone()
        others[self.label] = -inf
        return int(others.argmax())

    def problem(self, eps: float) -> Problem:
        """Is the sample robust within ``eps``?"""
        return Problem.robustness(self.network, self.x, self.label, self.data.radius(eps), self.norm, self.data.legal)

    def widest(self) -> float:
        """A radius that covers the whole domain."""
        low, high = (torch.as_tensor(end, dtype=torch.float64).expand(self.data.shape) for end in self.data.legal)
        if self.data.eps_scale is None:
            return float((high - low).amax() * prod(self.data.shape) ** (1 / self.norm))
        free = self.data.eps_scale.expand(self.data.shape) > 0
        return max(((high - low) / self.data.eps_scale)[free].tolist(), default=1.0)

    def bracket(self, predicted: int, certified: float | None, attacked: float | None) -> Bracket:
        """The outcome."""
        seconds, questions = time.monotonic() - self.begun, (self.asked, self.tried)
        return Bracket(self.sample, self.label, predicted, certified, attacked, self.reason, questions, seconds)

    @property
    def x(self) -> Tensor:
        """The sample."""
        return self.data.x[self.sample]

    @property
    def label(self) -> int:
        """Its class."""
        return int(self.data.y[self.sample])


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
