"""Questions of a comparison as tasks of an executor: what goes to each process once, and what one task asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from assay.benchmarks.harness.participants import Participant
from assay.benchmarks.harness.questions import Question, answers, grouped
from assay.benchmarks.harness.sources import Source, checked
from assay.models.data import Dataset
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.network import Network, to_network
from assay.verify.core.norms import norm_name
from assay.verify.core.problem import Problem
from assay.verify.core.region import Intersection, LpBall
from assay.verify.core.result import Result
from assay.verify.core.verifier import OtherSubject
from assay.verify.perturbations import Perturbation, Perturbed
from assay.verify.support import devices

KEPT = 2  # batches whose problems are kept, with what they cache


@dataclass(frozen=True)
class Asked:
    """What one task asks: participant number ``participant`` about ``samples`` of a ``batch`` within ``eps``; which
    of them it classifies rightly, where there is no eps."""

    participant: int
    batch: tuple[int, ...]
    samples: tuple[int, ...]
    eps: float | None = None


@dataclass(eq=False)
class Ground:
    """What all tasks of a comparison share. ``identity``: of the network that is meant; ``perturbation``: what is asked
    about in place of balls, eps being a share of its parameters' ranges; ``within``: radii, by norm, of other balls
    about each sample that hold what is asked about, whatever the eps."""

    source: Source
    identity: str
    data: Dataset
    norm: float
    budget: Budget
    participants: Sequence[Participant]
    network: Network | None = None
    perturbation: Perturbation | None = None
    within: Mapping[float, float] = field(default_factory=dict)
    posed: dict[tuple[float, tuple[int, ...]], list[Question]] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, object]:
        """What travels: the source instead of the network."""
        return {**vars(self), "network": None, "posed": {}}

    def opened(self) -> Network:
        """The network. Raises :class:`InputError` where another one is found under the same name."""
        if self.network is None:
            self.network = checked(to_network(self.source.load(), self.data.shape), self.identity)
        return self.network

    @property
    def limits(self) -> Budget:
        """The budget; on an accelerator with half of the memory that is free there for buffers, so that what is worked
        on at once is as much as fits."""
        if not self.budget.device.startswith("cuda"):
            return self.budget
        return replace(self.budget, memory=max(1, devices.free(self.budget.device) // 2))

    def questions(self, eps: float, batch: tuple[int, ...]) -> list[Question]:
        """A batch of samples as problems, the same ones for all who are asked one after another: they are shared,
        with what they cache."""
        key = eps, batch
        if key not in self.posed:
            while len(self.posed) >= KEPT:
                del self.posed[next(iter(self.posed))]
            self.posed[key] = [
                Question(i, eps, problem) for i, problem in zip(batch, self._problems(eps, batch), strict=True)
            ]
        return self.posed[key]

    def _problems(self, eps: float, batch: tuple[int, ...]) -> Sequence[Problem]:
        x, y, network = self.data.x[[*batch]], self.data.y[[*batch]], self.opened()
        if self.perturbation is not None:
            change = self.perturbation.scaled(eps)
            return [Perturbed.of(network, one, label, change) for one, label in zip(x, y.tolist(), strict=True)]
        problems = Problem.robustness_many(network, x, y, self.data.radius(eps), self.norm, self.data.legal)
        return [self._narrowed(problem) for problem in problems] if self.within else problems

    def _narrowed(self, problem: Problem) -> Problem:
        """The same question within the other balls, too."""
        ball = problem.region
        if not isinstance(ball, LpBall):
            raise InputError(f"{norm_name(self.norm)} has no ball that others could meet: expected l1, l2 or linf")
        others = (LpBall(ball.centre, eps, p, ball.domain) for p, eps in self.within.items())
        return replace(problem, region=Intersection((ball, *others)))


def ask(ground: Ground, asked: Asked) -> list[Result] | list[int]:
    """The answers, one a sample; of classifications, the samples that are right."""
    participant = ground.participants[asked.participant]
    if asked.eps is None:
        return _right(ground, participant, asked.samples)
    wanted, limits = set(asked.samples), ground.limits
    questions = [q for q in ground.questions(asked.eps, asked.batch) if q.sample in wanted]
    return [result for group in grouped(participant, questions) for result in answers(participant, group, limits)]


def _right(ground: Ground, participant: Participant, samples: Sequence[int]) -> list[int]:
    verifier, data = participant.verifier, ground.data
    if not isinstance(verifier, OtherSubject):
        raise UnsupportedError(f"{participant.name} speaks of the network: the harness runs it")
    network, seed = ground.opened(), ground.budget.seed
    return [i for i in samples if verifier.classify(network, data.x[i], seed) == int(data.y[i])]
