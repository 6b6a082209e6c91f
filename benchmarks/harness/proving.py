"""Verdicts of a comparison proved one by one, as tasks of an executor: certificates that the checker accepted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from assay.benchmarks.harness.asking import Ground
from assay.benchmarks.harness.bracket import Role
from assay.benchmarks.harness.compare import rightly_classified
from assay.benchmarks.harness.participants import Participant
from assay.benchmarks.harness.progress import Progress
from assay.benchmarks.harness.questions import Question, Records
from assay.benchmarks.harness.records.store import Store
from assay.verify.check.certificate import Certificate
from assay.verify.core.budget import Budget
from assay.verify.core.errors import AssayError
from assay.verify.core.result import NETWORK, Guarantee, Result, Verdict
from assay.verify.support.executors import Fate, Hiring, Job, Task, run

PRELOAD = ("assay.benchmarks.harness.proving", "assay.verify.solving.proofs", "assay.verify.frontends.onnx.write")
SECONDS = 10.0  # that a proof may take, or as long as the verdict took, where that is longer
GRACE = 30.0  # seconds beyond, for checking, and reading the model
CLEAN = "clean input"  # who falsifies where the sample itself is misclassified


@dataclass(frozen=True)
class Claim:
    """What was said of a sample within ``eps``, as JSON of the result that decides; ``subject``: of what it speaks."""

    sample: int
    label: int
    eps: float
    subject: str
    name: str
    problem: str
    result: str

    @property
    def told(self) -> Result:
        """The result."""
        return Result.from_json(self.result)


@dataclass(frozen=True)
class Proof:
    """A certificate that was accepted, with what it proves, or ``none``: why there is none."""

    certificate: Certificate | None = None
    report: dict[str, Any] | None = None
    none: str = ""

    def guarantee(self, result: Result) -> Guarantee:
        """How much the verdict may be trusted now."""
        proved = self.certificate is not None and result.subject == NETWORK
        return Guarantee.RIGOROUS if proved else result.guarantee


def prove(ground: Ground, claim: Claim) -> Proof:
    """The proof of a claim; whatever stands in its way takes nothing from the verdict."""
    from assay.verify.solving import proofs

    result = claim.told
    if result.verdict is Verdict.UNKNOWN:
        return Proof(none=f"open: {result.reason}")
    ((question),) = ground.questions(claim.eps, (claim.sample,))
    try:
        return Proof(*proofs.accepted(question.problem, result, Budget(_seconds(result))))
    except (AssayError, MemoryError) as why:
        return Proof(none=str(why) or type(why).__name__)


def proofs(ground: Ground, asked: Sequence[Claim], hiring: Hiring, progress: Progress) -> Iterator[tuple[Claim, Proof]]:
    """The proof of each claim, as they come."""
    progress.begin(len(asked))
    with hiring(Job(prove, ground, PRELOAD)) as executor:
        for ended in run(executor, (Task(claim, 2 * _seconds(claim.told) + GRACE, claim) for claim in asked)):
            late = ended.fate is Fate.TIMEOUT
            yield (
                ended.task.tag,
                Proof(none="the time is over") if late else ended.value(f"sample {ended.task.tag.sample}"),
            )
            progress.advance(1)


def _seconds(result: Result) -> float:
    return max(SECONDS, result.seconds)


def claims(ground: Ground, radii: Sequence[float], store: Store, batch: int) -> Iterator[Claim]:
    """What decides each sample at each radius, of the network and of each other subject, by the store."""
    everybody, records = range(len(ground.data)), Records(store, True, ground.norm, ground.budget)
    right = set(rightly_classified(ground.opened(), ground.data, batch).tolist())
    for eps in radii:
        for start in everybody[::batch]:
            asked = ground.questions(eps, tuple(everybody[start : start + batch]))
            said = [(p, records.known(p, asked)) for p in ground.participants]
            for question in asked:
                mine = [(p, known[question.problem.id]) for p, known in said if question.problem.id in known]
                if question.sample not in right:
                    yield _claim(question, NETWORK, CLEAN, _misclassified(ground, question))
                for subject in dict.fromkeys(p.subject for p in ground.participants):
                    told = [pair for pair in mine if pair[0].subject == subject]
                    if told and (subject != NETWORK or question.sample in right):
                        participant, result = min(told, key=_rank)
                        yield _claim(question, subject, participant.name, result)


def _rank(said: tuple[Participant, Result]) -> tuple[bool, bool, bool, float]:
    """What is proved soonest first: counterexamples, then what has a proof of its own, then what took least."""
    participant, result = said
    falsified, verified = (result.verdict is verdict for verdict in (Verdict.FALSIFIED, Verdict.VERIFIED))
    return not falsified, not verified, result.certificate is None or participant.role is Role.ATTACK, result.seconds


def _misclassified(ground: Ground, question: Question) -> Result:
    point = ground.data.x[question.sample].to(ground.opened().dtype)
    return Result(question.problem.id, CLEAN, Verdict.FALSIFIED, counterexample=point)


def _claim(question: Question, subject: str, name: str, result: Result) -> Claim:
    label = question.problem.label
    kept = result if result.verdict is not Verdict.UNKNOWN else replace(result, certificate=None)
    told = question.problem.id, kept.to_json()
    return Claim(question.sample, -1 if label is None else label, question.eps, subject, name, *told)
