"""A comparison read back out of its store: the rows of the bracket, sample by sample who said what, and what is amiss.

Nothing is asked again. What the store does not hold is listed in ``unknown``, never made up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from typing import Any

import torch
from torch import Tensor

from assay.benchmarks.harness import bracket
from assay.benchmarks.harness.bracket import Role, Row
from assay.benchmarks.harness.records import described
from assay.benchmarks.harness.records.described import Description, Seat
from assay.benchmarks.harness.records.store import Record, Store
from assay.verify.core.errors import InputError
from assay.verify.core.result import NETWORK, Reason, Verdict
from assay.verify.support.plain import counted, plain

NEARER = 1 - 1e-6  # of a certified radius: a counterexample that is nearer contradicts the proof, rounding aside

LEVELS = 6  # eps at which the bracket of a search for radii is shown

OF_THOSE = "They are missing from all counts, and accuracies are shares of the samples that were."


@dataclass(frozen=True, eq=False)
class Said:
    """What a participant said of a sample at an eps; ``distance``: of its counterexample from the sample, or None."""

    seat: Seat
    eps: float
    record: Record
    distance: float | None

    @property
    def reach(self) -> float:
        """The distance, or the eps of the question where that is nearer or all that is known."""
        return self.eps if self.distance is None else min(self.distance, self.eps)


@dataclass(frozen=True, eq=False)
class Sample:
    """One sample; ``x`` and ``right`` (whether the network classifies it rightly) are None where that is not known."""

    index: int
    label: int | None
    x: Tensor | None
    right: bool | None
    said: tuple[Said, ...]

    def of(self, verdict: Verdict) -> list[Said]:
        """Who gave a verdict on the network itself."""
        return [s for s in self.said if s.record.result.verdict is verdict and s.record.result.subject == NETWORK]

    @cached_property
    def certified(self) -> float:
        """The largest radius that is certified, 0 if none is."""
        return max((s.eps for s in self.of(Verdict.VERIFIED)), default=0.0)

    @cached_property
    def certifiers(self) -> list[str]:
        """Who certified it."""
        return _names(s for s in self.of(Verdict.VERIFIED) if s.eps == self.certified)

    @cached_property
    def nearest(self) -> Said | None:
        """The counterexample at the least distance, or within the least eps where distances are not known."""
        return min(self.of(Verdict.FALSIFIED), key=lambda said: said.reach, default=None)

    @cached_property
    def broken(self) -> float:
        """The least distance at which it is known to err, 0 if it does so by itself, inf if none is known."""
        if self.right is False:
            return 0.0
        return inf if self.nearest is None else self.nearest.reach

    @cached_property
    def breakers(self) -> list[str]:
        """Who broke it, whatever the eps."""
        return _names(self.of(Verdict.FALSIFIED))

    @cached_property
    def disputes(self) -> list[str]:
        """The contradictions, one line each: a proof for a ball and a counterexample in it, and verdicts that failed
        their check."""
        proofs = [s for s in self.said if s.record.result.verdict is Verdict.VERIFIED]
        points = [s for s in self.said if s.record.result.verdict is Verdict.FALSIFIED]
        failed = [s for s in self.said if "alarm" in s.record.result.stats]
        return [
            f"{proof.seat.name} verifies sample {self.index} at eps {proof.eps:g}, {point.seat.name} has a "
            f"counterexample within {point.reach:.6g}"
            for proof in proofs
            for point in points
            if proof.record.result.subject == point.record.result.subject
            and (point.eps <= proof.eps or point.reach < proof.eps * NEARER)
        ] + [
            f"{s.seat.name} gave a verdict on sample {self.index} at eps {s.eps:g} that fails its check: "
            f"{s.record.result.stats['alarm']}"
            for s in failed
        ]

    def verdict(self, eps: float) -> Verdict:
        """What is known of the network at ``eps``: broken in a smaller ball is broken in this one, and the reverse."""
        if self.broken <= eps or any(s.eps <= eps for s in self.of(Verdict.FALSIFIED)):
            return Verdict.FALSIFIED
        return Verdict.VERIFIED if self.certified >= eps else Verdict.UNKNOWN


@dataclass(frozen=True, eq=False)
class Recorded:
    """A run of a store. ``unknown``: what a reader may miss and why; ``faults``: records that cannot be trusted."""

    about: Description
    command: str
    started: str
    rows: tuple[Row, ...]
    samples: tuple[Sample, ...]
    alarms: tuple[str, ...]
    unknown: tuple[str, ...]
    faults: tuple[str, ...]

    @property
    def model(self) -> str:
        """As it was named."""
        return self.about.model

    @property
    def data(self) -> str:
        """As they were named."""
        return self.about.data

    @property
    def norm(self) -> float:
        """Of the balls."""
        return self.about.norm

    @property
    def threat(self) -> str:
        """The perturbation, or the norm by name."""
        return self.about.threat

    @property
    def n(self) -> int:
        """Samples."""
        return self.about.n


def read(store: Store, run: int | None = None) -> Recorded:
    """The run of that number, or the last one that compared anything.

    Raises :class:`InputError` where there is none.
    """
    runs = dict(enumerate(store.runs(), 1))
    noted = {number: told for number, told in store.noted.described().items() if told[0] != described.INSTANCES}
    if run is not None and run not in runs:
        last = f"its runs are 1 to {len(runs)}" if runs else "it has none"
        raise InputError(f"{store.path} has no run {run}: {last}")
    records, faults = store.read()
    chosen = run if run is not None else max(noted, default=None)
    about = None if chosen is None or chosen not in noted else described.read(*noted[chosen])
    if chosen is not None and isinstance(about, Description):
        return _described(store, chosen, runs[chosen], about, records, faults)
    why = about or "it was written before runs were described"
    return _undescribed(store, runs, chosen, str(why), records, faults)


def at_levels(recorded: Recorded) -> Recorded:
    """A search for radii with rows at a few eps, as its radii and distances imply them; any other run as it is.

    The rows have no seconds: a search pays for all eps at once.
    """
    about = recorded.about
    if about.tolerance is None or about.radii:
        return recorded
    levels = _levels(recorded.samples)
    judged = [each for sample in recorded.samples for each in _followed(sample, levels)]
    counts = {subject: len(which) for subject, which in about.wrong.items()}
    rows = tuple(bracket.rows(about.seats, levels, about.n, counts, judged))
    written = tuple(f"{eps:g}" for eps in levels)
    return replace(recorded, about=replace(about, radii=levels, written=written), rows=rows)


def compared(store: Store, run: int | None = None) -> bool:
    """Whether the run of that number, or the last that was described, is a comparison and not one over instances."""
    forms = {number: form for number, (form, _) in store.noted.described().items()}
    if run in forms:
        return forms[run] != described.INSTANCES
    return forms[max(forms)] != described.INSTANCES if forms else not store.noted.enrolled()


def _described(
    store: Store,
    run: int,
    noted: Mapping[str, str],
    about: Description,
    records: Sequence[Record],
    faults: Sequence[str],
) -> Recorded:
    """A run with its description: of the records those that answer its questions, by the same code."""
    seats = {seat.key: seat for seat in about.seats}
    questions: dict[str, list[tuple[int, float]]] = {}
    for sample, eps, problem in store.noted.asked(run):  # equal samples are one problem
        questions.setdefault(problem, []).append((sample, eps))
    kept, said = store.noted.samples(run), list[tuple[int, Said]]()
    for record in records:
        key = record.key
        code = (about.versions.get("assay"), about.source)
        ours = (key.seed, key.device, key.version, key.source) == (about.seed, about.device, *code)
        if ours and key.method in seats:
            for sample, eps in questions.get(key.problem, ()):
                said.append((sample, _said(seats[key.method], eps, record, kept.get(sample), about)))
    wrong = set(about.wrong[NETWORK])
    by = _by_sample(said)
    samples = [_sample(i, kept.get(i), i not in wrong, by.get(i, [])) for i in range(about.n)]
    judged = [bracket.judged(s.seat, at, s.eps, s.record.result) for at, s in said]
    counts = {subject: len(which) for subject, which in about.wrong.items()}
    rows = tuple(bracket.rows(about.seats, about.radii, about.n, counts, judged))
    unknown = []
    if about.seconds is None:
        asked = sum((about.n - counts[seat.subject]) * len(about.radii) for seat in about.seats)
        unknown.append(
            f"The run did not come to its end: {len(said)} of {counted(asked, 'verdict')} are there. Samples without "
            f"a verdict count as standing for attacks and as open for methods."
        )
    if len(kept) < about.n:
        unknown.append(f"The store keeps {counted(len(kept), 'sample')} of {about.n}: the others have no image here.")
    return Recorded(
        about,
        noted["command"],
        noted["started"],
        rows,
        tuple(samples),
        _alarms(about.alarms, samples, records),
        tuple(unknown),
        tuple(faults),
    )


def _undescribed(
    store: Store,
    runs: Mapping[int, Mapping[str, str]],
    run: int | None,
    why: str,
    records: Sequence[Record],
    faults: Sequence[str],
) -> Recorded:
    """Records without a description: what they say by themselves."""
    mine = [r for r in records if r.sample is not None and r.eps is not None and r.norm is not None]
    if not mine:
        raise InputError(f"{store.path} has no comparison in it: expected a store that assay compare wrote")
    norm = mine[-1].norm
    mine = [r for r in mine if r.norm == norm]
    of = runs[run if run is not None else max(runs)] if runs else {}
    keys = dict.fromkeys((r.role, r.key.method, r.result.subject) for r in mine)
    seats = {key: Seat(Role(role), key, key, subject) for role, key, subject in keys}
    radii = tuple(sorted({r.eps for r in mine if r.eps is not None}))
    indices = sorted({r.sample for r in mine if r.sample is not None})
    subjects = {NETWORK, *(seat.subject for seat in seats.values())}
    about = Description(
        model=of.get("model") or "a model that is not named",
        network="",
        data=of.get("data") or "data that are not named",
        origin="",
        norm=float(norm or inf),
        n=len(indices),
        radii=radii,
        written=tuple(f"{eps:g}" for eps in radii),
        seed=mine[-1].key.seed,
        device=mine[-1].key.device,
        threads=0,
        budget=max((r.budget or 0.0 for r in mine), default=0.0),
        seats=tuple(seats.values()),
        wrong=dict.fromkeys(sorted(subjects, key=lambda s: s != NETWORK), ()),
        domain=[],
        eps_scale=None,
        source=mine[-1].key.source,
        versions={"assay": mine[-1].key.version},
        machine={},
    )
    said = [
        (r.sample, _said(seats[r.key.method], r.eps, r, None, about))
        for r in mine
        if r.sample is not None and r.eps is not None
    ]
    by = _by_sample(said)
    samples = [_sample(i, None, None, by[i]) for i in indices]
    judged = [bracket.judged(s.seat, at, s.eps, s.record.result) for at, s in said]
    rows = tuple(bracket.rows(about.seats, radii, about.n, dict.fromkeys(about.wrong, 0), judged))
    unknown = (
        f"This store does not say what the run was about: {why}.",
        f"Clean accuracy: samples that are misclassified without an attack were never asked about. {OF_THOSE}",
        "The samples themselves: there are no images here, and distances stand for the eps of the question.",
        "The seconds of the whole run, the machine, and the versions of what assay stands on.",
        *(["The store has several runs: all records of one norm are counted together."] if len(runs) > 1 else []),
    )
    alarms = _alarms([], samples, records)
    return Recorded(
        about, of.get("command", ""), of.get("started", ""), rows, tuple(samples), alarms, unknown, tuple(faults)
    )


def _said(seat: Seat, eps: float, record: Record, kept: tuple[int, Tensor] | None, about: Description) -> Said:
    """With how far the counterexample is from the sample; None where there is none, or eps is no length."""
    point, length = record.result.counterexample, about.norm >= 0
    if point is None or kept is None or point.shape != kept[1].shape or record.result.subject != NETWORK or not length:
        return Said(seat, eps, record, None)
    step = (point.double() - kept[1].double()).abs()
    if about.eps_scale is not None:
        scale = torch.tensor(about.eps_scale, dtype=torch.float64).expand(step.shape)
        step = torch.where(scale > 0, step / scale, 0.0)
    return Said(seat, eps, record, float(torch.linalg.vector_norm(step.flatten(), about.norm)))


def _levels(samples: Sequence[Sample]) -> tuple[float, ...]:
    """A few eps, in round numbers, up to where half of the samples that are ever broken are, and as far again."""
    ends = sorted(end for s in samples if s.right for end in (s.certified, s.broken) if 0 < end < inf)
    if not ends:
        return ()
    top = min(ends[-1], 2 * ends[len(ends) // 2])
    return tuple(sorted({float(f"{top * step / LEVELS:.2g}") for step in range(1, LEVELS + 1)}))


def _followed(sample: Sample, levels: Sequence[float]) -> Iterator[bracket.Judged]:
    """What each participant's answers on the sample imply at these eps."""
    by: dict[Seat, list[Said]] = {}
    for said in sample.said:
        by.setdefault(said.seat, []).append(said)
    for seat, all_said in by.items():
        refused = all(said.record.result.reason is Reason.UNSUPPORTED for said in all_said)
        none = Reason.UNSUPPORTED if refused else Reason.INCOMPLETE
        proved = max((s.eps for s in all_said if s.record.result.verdict is Verdict.VERIFIED), default=0.0)
        broken = min((s.reach for s in all_said if s.record.result.verdict is Verdict.FALSIFIED), default=inf)
        for eps in levels:
            verdict = Verdict.VERIFIED if eps <= proved else Verdict.FALSIFIED if eps >= broken else Verdict.UNKNOWN
            reason = none if verdict is Verdict.UNKNOWN else None
            yield bracket.Judged(seat.role, seat.name, eps, sample.index, verdict, reason, subject=seat.subject)


def _sample(index: int, kept: tuple[int, Tensor] | None, right: bool | None, said: Sequence[Said]) -> Sample:
    label, x = kept if kept is not None else (next((s.record.label for s in said), None), None)
    return Sample(index, label, x, right, tuple(said))


def _by_sample(said: Sequence[tuple[int, Said]]) -> dict[int, list[Said]]:
    by: dict[int, list[Said]] = {}
    for at, each in said:
        by.setdefault(at, []).append(each)
    return by


def _alarms(told: Sequence[Mapping[str, Any]], samples: Sequence[Sample], records: Sequence[Record]) -> tuple[str, ...]:
    """What the run said, what its samples show, and contradictions between all runs of the store about one problem: an
    alarm too many is better than one too few."""
    lines = [str(alarm.get("explanation", "an alarm that does not say what it is")) for alarm in told]
    known = {alarm.get("sample") for alarm in told}
    lines += [line for sample in samples if sample.index not in known for line in sample.disputes]
    mine = {id(said.record) for sample in samples for said in sample.said}
    verdicts: dict[tuple[str, str], dict[Verdict, Record]] = {}
    for record in records:
        result = record.result
        verdicts.setdefault((result.problem_id, result.subject), {}).setdefault(result.verdict, record)
    for by in verdicts.values():
        proof, point = by.get(Verdict.VERIFIED), by.get(Verdict.FALSIFIED)
        if proof is not None and point is not None and not {id(proof), id(point)} <= mine:
            where = f"sample {proof.sample}" if proof.sample is not None else f"the problem {proof.key.problem[:16]}"
            across = f"{proof.key.method} verifies {where} and {point.key.method} falsifies it"
            lines.append(f"in another run in this store, or between two: {across}")
    return tuple(dict.fromkeys(plain(line) for line in lines))


def _names(said: Iterator[Said] | Sequence[Said]) -> list[str]:
    return list(dict.fromkeys(each.seat.name for each in said))
