"""The bracket harness: attacks from above and methods from below, sample by sample over a data set.

clean accuracy >= what attacks leave standing >= the true robust accuracy >= what methods certify. Every decided
verdict is checked before it counts (``verify.pipeline.decide``), an attack's success like a method's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attacks.base import Attack
from benchmarks import alarms, bracket
from benchmarks.alarms import Alarm, Case
from benchmarks.bracket import Judged, Role, Row
from benchmarks.progress import SILENT, Progress
from benchmarks.store import Key, Record, Store, settled
from models.data import Dataset
from verify import pipeline
from verify.core.budget import Budget
from verify.core.errors import AlarmError, InputError, InternalError, ResourceError, UnsupportedError
from verify.core.network import Network, to_network
from verify.core.problem import Problem
from verify.core.result import NETWORK, Guarantee, Reason, Result, Verdict
from verify.core.verifier import BatchVerifier, OtherSubject, Verifier

NO_LIMIT = Budget()


@dataclass(frozen=True)
class Comparison:
    """The rows of the bracket, clean first, then eps by eps: attacks, upper jaw, lower jaw, methods.

    ``folders``: where each alarm was saved, in their order; empty where no folder was named. ``resumed``: verdicts
    that were taken from the store.
    """

    model: str
    data: str
    norm: float
    seed: int
    n: int
    rows: tuple[Row, ...]
    alarms: tuple[Alarm, ...]
    folders: tuple[Path, ...]
    seconds: float
    resumed: int = 0

    def raise_alarm(self) -> None:
        """Raise :class:`AlarmError` if there was an alarm; to be called once everything is written."""
        if self.alarms:
            where = f" (saved in {self.folders[0]})" if self.folders else ""
            more = f"; {len(self.alarms) - 1} more" if len(self.alarms) > 1 else ""
            raise AlarmError(f"soundness alarm: {self.alarms[0].explanation}{where}{more}")


@dataclass(frozen=True)
class Participant:
    """A method, or an attack in a method's clothes, with its role, the name of its rows, and what it speaks of."""

    role: Role
    name: str
    key: str
    verifier: Verifier
    subject: str = NETWORK


def compare(
    model: nn.Module | Network,
    data: Dataset,
    eps: Sequence[float],
    methods: Sequence[Verifier],
    attacks: Sequence[Attack],
    *,
    norm: float = inf,
    budget: Budget = NO_LIMIT,
    batch: int = 50,
    name: str = "model",
    store: Store | None = None,
    resume: bool = False,
    alarm_folder: Path | None = None,
    progress: Progress = SILENT,
) -> Comparison:
    """Judge every sample of ``data`` at every ``eps`` (units of x, in the ``norm``) by every method and attack.

    ``budget``: its seconds are for each sample and participant, its seed for whatever is random; ``batch``: samples
    treated at once. A misclassified clean sample counts as falsified at every eps, and nobody is asked about it; for
    those who speak of another classifier, the samples that this one misclassifies or abstains on.
    Records go to ``store`` and the cases of soundness alarms to ``alarm_folder`` as they are decided. With ``resume``
    the records that are settled already (:func:`benchmarks.store.settled`) are taken from the store.

    Raises :class:`InputError` for input that cannot be used, :class:`InternalError` where a participant fails: an
    exception is never a verdict. Alarms are returned: see :meth:`Comparison.raise_alarm`.
    """
    began = time.monotonic()
    if batch < 1:
        raise InputError(f"the batch must be at least 1, got {batch}")
    if not eps:
        raise InputError("expected at least one eps")
    radii = sorted(set(eps))
    network = to_network(model, data.shape)
    for radius in radii:  # bad radii and norms are refused before the work, not in the midst of it
        Problem.robustness_many(network, data.x[:1], data.y[:1], radius, norm, data.domain)
    participants = [*_attackers(attacks), *_verifiers(methods)]
    if repeated := {p.name for p in participants if sum(q.name == p.name for q in participants) > 1}:
        raise InputError(f"{', '.join(sorted(repeated))} is given twice")
    right = _right_by_subject(network, data, batch, participants, budget.seed)
    anybody = sorted(set().union(*(right[p.subject] for p in participants)))

    judged: list[Judged] = []
    found: list[Alarm] = []
    folders: list[Path] = []
    resumed = 0
    progress.begin(sum(len(right[p.subject]) for p in participants) * len(radii))
    for start in range(0, len(anybody), batch):
        chunk = anybody[start : start + batch]
        cases = []
        for participant, radius, everyone in _work(network, data, chunk, radii, norm, participants):
            progress.running(f"{participant.name}, eps {radius:g}")
            samples = [(s, p) for s, p in zip(chunk, everyone, strict=True) if s in right[participant.subject]]
            problems = [problem for _, problem in samples]
            known = _known(store, participant, problems, budget) if store is not None and resume else {}
            new = [_case(participant, s, radius, p, known[p.id]) for s, p in samples if p.id in known]
            resumed += len(new)
            progress.advance(len(new))
            for group in _groups(participant, [(s, p) for s, p in samples if p.id not in known]):
                where = f"samples {group[0][0]} to {group[-1][0]} at eps {radius:g}"
                results = _judge(participant, [p for _, p in group], budget, where)
                fresh = [_case(participant, s, radius, p, r) for (s, p), r in zip(group, results, strict=True)]
                if store is not None:
                    records = [_record(case, participant, norm, budget) for case in fresh]
                    cases += _earlier(store.put(records), fresh, participant)
                new += fresh
                progress.advance(len(fresh))
            cases += new
            judged += [_tally(participant, case) for case in new]
        for alarm in alarms.find(cases):
            found.append(alarm)
            if alarm_folder is not None:
                folders.append(alarms.save(alarm, alarm_folder))

    return Comparison(
        name,
        f"{data.name} ({data.split})",
        norm,
        budget.seed,
        len(data),
        tuple(_rows(participants, radii, len(data), {who: len(data) - len(of) for who, of in right.items()}, judged)),
        tuple(found),
        tuple(folders),
        time.monotonic() - began,
        resumed,
    )


def title(options: Any) -> str:
    """A method or an attack as short as the command takes it: its name and the options that differ from the default.

    >>> from verify.registry import get_verifier
    >>> title(get_verifier("ibp"))
    'ibp'
    """
    values = [(f, getattr(options, f.name)) for f in fields(options) if f.init]
    given = [f"{f.name}={value}" for f, value in values if value != f.default]
    return f"{options.name}({','.join(given)})" if given else str(options.name)


def _attackers(attacks: Sequence[Attack]) -> Iterator[Participant]:
    for attack in attacks:
        yield Participant(Role.ATTACK, title(attack), repr(attack), pipeline.Falsifier(attack))


def _verifiers(methods: Sequence[Verifier]) -> Iterator[Participant]:
    for method in methods:
        role = Role.ATTACK if method.guarantee is Guarantee.EMPIRICAL else Role.METHOD
        subject = method.subject if isinstance(method, OtherSubject) else NETWORK
        yield Participant(role, title(method), repr(method), method, subject)


def _work(
    network: Network, data: Dataset, chunk: list[int], radii: Sequence[float], norm: float, who: Sequence[Participant]
) -> Iterator[tuple[Participant, float, list[Problem]]]:
    """Everybody's tasks on one chunk of samples; the problems are shared, with what they cache."""
    for radius in radii:
        problems = Problem.robustness_many(network, data.x[chunk], data.y[chunk], radius, norm, data.domain)
        for participant in who:
            yield participant, radius, problems


def _rows(
    participants: Sequence[Participant], radii: Sequence[float], n: int, wrong: dict[str, int], judged: Sequence[Judged]
) -> Iterator[Row]:
    """All rows in the order of :class:`Comparison`; ``wrong``: clean samples that each subject misclassifies."""
    yield from (bracket.clean(n, count, who) for who, count in wrong.items())
    for radius in radii:
        here = [item for item in judged if item.eps == radius]
        rows = [
            bracket.row(p.role, p.name, p.key, radius, n, wrong[p.subject], [i for i in here if i.name == p.name])
            for p in participants
        ]
        yield from (row for row in rows if row.role is Role.ATTACK)
        yield from bracket.jaws(radius, n, wrong[NETWORK], here)
        yield from (row for row in rows if row.role is Role.METHOD)


def _known(store: Store, participant: Participant, problems: Sequence[Problem], budget: Budget) -> dict[str, Result]:
    """What the store knows for good, by problem id. Asked batch by batch: another run may be at work on the store."""
    found = (store.get(_key(problem, participant, budget)) for problem in problems)
    return {r.key.problem: r.result for r in found if r is not None and settled(r, budget.seconds)}


def _groups(participant: Participant, asked: list[tuple[int, Problem]]) -> list[list[tuple[int, Problem]]]:
    """What is asked, and recorded, at once: everything where the participant takes batches, else one by one."""
    if isinstance(participant.verifier, BatchVerifier):
        return [asked] if asked else []
    return [[one] for one in asked]


def _judge(participant: Participant, problems: Sequence[Problem], budget: Budget, where: str) -> list[Result]:
    """Checked results, one per problem. Each problem has the budget's seconds; a batch shares the sum of them."""
    try:
        limit = replace(budget, seconds=budget.seconds * len(problems))
        results = pipeline.decide(participant.verifier, problems, limit)
    except UnsupportedError as error:
        why = {"explanation": str(error)}
        return [
            Result(problem.id, participant.key, Verdict.UNKNOWN, Reason.UNSUPPORTED, stats=why) for problem in problems
        ]
    except (MemoryError, torch.OutOfMemoryError, ResourceError) as error:
        raise ResourceError(
            f"{participant.name} ran out of memory on {where}: take a smaller batch ({error})"
        ) from error
    except Exception as error:
        raise InternalError(f"{participant.name} failed on {where}: {type(error).__name__}: {error}") from error
    if [result.problem_id for result in results] != [problem.id for problem in problems]:
        raise InternalError(f"{participant.name} answered other problems than it was asked on {where}")
    return results


def _right_by_subject(
    network: Network, data: Dataset, batch: int, participants: Sequence[Participant], seed: int
) -> dict[str, set[int]]:
    """Positions of the samples that each subject classifies rightly, the network first."""
    right = {NETWORK: set(_rightly_classified(network, data, batch).tolist())}
    for verifier in (p.verifier for p in participants):
        if isinstance(verifier, OtherSubject) and verifier.subject not in right:
            pairs = enumerate(zip(data.x, data.y.tolist(), strict=True))
            right[verifier.subject] = {i for i, (x, y) in pairs if verifier.classify(network, x, seed) == y}
    return right


def _rightly_classified(network: Network, data: Dataset, batch: int) -> Tensor:
    """Positions of the samples whose label is strictly the largest output of the original model; NaN is wrong."""
    if int(data.y.max()) >= network.output_size:
        raise InputError(f"{data.name} has the label {int(data.y.max())}, the model only {network.output_size} outputs")
    oracle = network.oracle or network
    right = []
    with torch.no_grad():
        for x, y in zip(torch.split(data.x, batch), torch.split(data.y, batch), strict=True):
            outputs = oracle(x.to(network.dtype)).flatten(1)
            own = torch.zeros_like(outputs, dtype=torch.bool).scatter(1, y[:, None], True)
            right.append(outputs[own] > outputs.masked_fill(own, -inf).amax(1))
    return torch.cat(right).nonzero().flatten()


def _case(participant: Participant, sample: int, eps: float, problem: Problem, result: Result) -> Case:
    return Case(participant.name, sample, eps, problem, result)


def _key(problem: Problem, participant: Participant, budget: Budget) -> Key:
    return Key(problem.id, participant.key, budget.seed, budget.device)


def _record(case: Case, participant: Participant, norm: float, budget: Budget) -> Record:
    key = _key(case.problem, participant, budget)
    label = case.problem.label
    return Record(key, case.result, participant.role.value, case.sample, label, case.eps, norm, budget.seconds)


def _earlier(contradicted: Sequence[Record], new: Sequence[Case], participant: Participant) -> list[Case]:
    """Stored verdicts of the same method on the same problem that its new ones contradict."""
    by_problem = {case.problem.id: case for case in new}
    return [
        replace(by_problem[record.key.problem], name=f"{participant.name} (earlier)", result=record.result)
        for record in contradicted
    ]


def _tally(participant: Participant, case: Case) -> Judged:
    result = case.result
    return Judged(
        participant.role,
        participant.name,
        case.eps,
        case.sample,
        result.verdict,
        result.reason,
        result.seconds,
        result.subject,
    )
