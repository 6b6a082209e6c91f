"""Radii in one table: of each sample the largest that every method certifies and the least at which every attack errs.

Beside them how tight each is: a method's radius as a share of the least distance of any attack, and the largest radius
of any method as a share of an attack's distance; 1 is a closed bracket.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf, isfinite
from pathlib import Path
from statistics import fmean
from typing import Any

from assay.attacks.common.interface import Attack
from assay.benchmarks.harness import alarms
from assay.benchmarks.harness.alarms import Alarm
from assay.benchmarks.harness.bracket import ALL_ATTACKS, ALL_METHODS, Role, Seat
from assay.benchmarks.harness.compare import ATTACKS, METHODS, check_asked, rightly_classified
from assay.benchmarks.harness.outcome import Outcome
from assay.benchmarks.harness.participants import Participant, participants_of
from assay.benchmarks.harness.progress import SILENT, Progress
from assay.benchmarks.harness.questions import Records
from assay.benchmarks.harness.radii.radius_search import SHARE, Reach, Sample, Search
from assay.benchmarks.harness.radii.radius_shares import shared_out
from assay.benchmarks.harness.records import described
from assay.benchmarks.harness.records.recorded import Recorded
from assay.benchmarks.harness.records.store import Store
from assay.benchmarks.harness.sources import Held, Source
from assay.models.data import Dataset
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.network import to_network
from assay.verify.core.result import NETWORK, Verdict
from assay.verify.core.verifier import OtherSubject, Verifier
from assay.verify.support import shown
from assay.verify.support.executors import Hiring
from assay.verify.support.executors.inline import here

NO_LIMIT = Budget()
TENTHS = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Line:
    """One sample: the ends of its bracket, whether they contradict each other, and how far each participant came."""

    sample: int
    label: int
    predicted: int
    certified: float
    attacked: float
    disputed: bool
    reaches: Mapping[str, Reach]

    def to_json(self) -> dict[str, Any]:
        """Plain data; a sample in dispute has no ends."""
        ends = (None, None) if self.disputed else (self.certified, self.attacked)
        return {
            "sample": self.sample,
            "label": self.label,
            "predicted": self.predicted,
            **dict(zip(("certified", "attacked"), ends, strict=True)),
            "radii": {name: reach.radius for name, reach in self.reaches.items()},
        }


@dataclass(frozen=True)
class Spread:
    """The radii of one participant over ``n`` samples, misclassified ones at 0, those in dispute left out.

    ``mean``: of those that are finite; ``infinite``: samples that an attack did not break at any distance; ``tenths``:
    the quantiles at 10, 50 and 90%, each on the safe side of its place; ``tightness`` and ``median_tightness``: in
    [0, 1], over the rightly classified samples that have a distance to compare with, None if there are none.
    """

    role: Role
    name: str
    n: int
    mean: float
    tenths: tuple[float, float, float]
    infinite: int
    tightness: float | None
    median_tightness: float | None
    asked: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        low, median, high = self.tenths
        return {
            self.role.value: self.name,
            "n": self.n,
            "mean": self.mean,
            "q10": low,
            "median": median,
            "q90": high,
            "infinite": self.infinite,
            "tightness": self.tightness,
            "median_tightness": self.median_tightness,
            "questions": self.asked,
            "seconds": round(self.seconds, 4),
        }


@dataclass(frozen=True, kw_only=True, repr=False)
class RadiusTable(Outcome):
    """What was found, line by line; ``refused``: by name, why a participant could not treat the model or the norm."""

    tolerance: float
    seats: tuple[Seat, ...]
    lines: tuple[Line, ...]
    refused: Mapping[str, str]

    def _repr_html_(self) -> str:
        rows = ([s.name, *(f"{value:.4g}" for value in (s.mean, *s.tenths)), s.asked] for s in self.spreads)
        return shown.grid(self.caption, ("name", "mean", "10%", "median", "90%", "questions"), rows)

    @property
    def facts(self) -> dict[str, object]:
        """Beside the model and the data the mean of both ends."""
        return {**super().facts, "samples": self.n, "found": _means(self.lines)}

    @property
    def n(self) -> int:
        """Samples."""
        return len(self.lines)

    @property
    def spreads(self) -> list[Spread]:
        """Attacks, both jaws, methods."""
        return spreads([seat for seat in self.seats if seat.name not in self.refused], self.lines)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        names = ("model", "data", "norm", "tolerance", "seed", "n")
        return {
            **{name: getattr(self, name) for name in names},
            "participants": [spread.to_json() for spread in self.spreads],
            "samples": [line.to_json() for line in self.lines],
            "refused": dict(self.refused),
            "alarms": alarms.told(self.alarms, self.folders),
            "lost": [asdict(each) for each in self.lost],
            "seconds": round(self.seconds, 3),
        }


def compare_radii(
    model: Any,
    data: Dataset,
    methods: Sequence[Verifier] = METHODS,
    attacks: Sequence[Attack] = ATTACKS,
    *,
    samples: Sequence[int] | None = None,
    norm: float = inf,
    tolerance: float = 1e-3,
    share: float = 0.02,
    budget: Budget = NO_LIMIT,
    batch: int = 50,
    name: str = "model",
    store: Store | None = None,
    resume: bool = False,
    alarm_folder: Path | None = None,
    progress: Progress = SILENT,
    hiring: Hiring = here,
    source: Source | None = None,
) -> RadiusTable:
    """The radii of these ``samples`` of ``data``, or of all, each within ``tolerance`` (units of x, or of the
    ``eps_scale`` of the data) or this ``share`` of it where that is more.

    What one participant found narrows the search of the next, so that the order of ``methods``, from cheap to tight,
    saves time and changes little else. ``budget``: its seconds are for each sample and participant; ``batch``: samples
    that are searched in step; the others: as in :func:`assay.benchmarks.harness.compare.compare`.

    Raises :class:`InputError` for input that cannot be used, :class:`UnsupportedError` for a method that speaks of
    another classifier than the network. Alarms are returned: see :meth:`Outcome.raise_alarm`.
    """
    began = time.monotonic()
    check_asked(data, budget)
    participants = _participants(methods, attacks, tolerance, batch)
    network = to_network(model, data.shape)
    chosen = range(len(data)) if samples is None else samples
    if store is not None:
        right = {NETWORK: set(rightly_classified(network, data, batch).tolist())}
        about = described.describe(network, name, data, norm, (), budget, participants, right)
        about = replace(about, tolerance=tolerance)
        described.begin(store, about, data)
    # A question has a share of the time: that is what the records say it had.
    records = Records(store, resume, norm, replace(budget, seconds=budget.seconds * SHARE))
    search = Search(network, data, participants, norm, tolerance, share, budget, records, progress)
    stages = dict.fromkeys((participant.name for participant in participants), len(chosen))
    progress.begin(sum(stages.values()), stages)
    lines, found, folders = list[Line](), list[Alarm](), list[Path]()
    for judged in _judged(search, records, chosen, batch, hiring, source or Held(model)):
        fresh = alarms.find([case for sample in judged for case in sample.cases])
        disputed = {alarm.claims[0].sample for alarm in fresh}
        lines += [_line(sample, sample.index in disputed) for sample in judged]
        found += fresh
        progress.so_far(_means(lines))
        folders += alarms.save_all(fresh, alarm_folder)
    places = {sample: place for place, sample in enumerate(chosen)}
    lines.sort(key=lambda line: places[line.sample])
    spent = time.monotonic() - began
    if store is not None:
        described.end(store, about, spent, found, folders)
    return RadiusTable(
        model=name,
        data=f"{data.name} ({data.split})",
        norm=norm,
        tolerance=tolerance,
        seed=budget.seed,
        seats=tuple(participants),
        lines=tuple(lines),
        refused=search.refused,
        alarms=tuple(found),
        folders=tuple(folders),
        seconds=spent,
        resumed=search.recalled,
        lost=tuple(search.lost),
    )


def _participants(
    methods: Sequence[Verifier], attacks: Sequence[Attack], tolerance: float, batch: int
) -> list[Participant]:
    """Who takes part, once all that can be refused beforehand was looked at."""
    if not tolerance > 0:
        raise InputError(f"the tolerance must be above 0, got {tolerance}")
    if batch < 1:
        raise InputError(f"the batch must be at least 1, got {batch}")
    participants = participants_of(methods, attacks)
    for method in methods:
        if isinstance(method, OtherSubject):  # and asking again and again would spend its confidence many times
            raise UnsupportedError(f"{method.name} speaks of {method.subject}, not of the network: take assay smooth")
    return participants


def _judged(
    search: Search, records: Records, chosen: Sequence[int], batch: int, hiring: Hiring, source: Source
) -> Iterator[list[Sample]]:
    """What the search says of all samples, a batch at a time: here in their order, elsewhere as they are ready."""
    if hiring is not here:
        yield from shared_out(search, records, chosen, batch, hiring, source)
        return
    for start in range(0, len(chosen), batch):
        yield search.judge(chosen[start : start + batch])


def recorded_lines(recorded: Recorded) -> list[Line]:
    """The lines of a run that is read back: questions are as many as have records, and what a sample was taken for
    instead of its label is not known (-1)."""
    lines = []
    for sample in recorded.samples:
        reaches: dict[str, Reach] = {}
        for said in sample.said:
            attack = said.seat.role is Role.ATTACK
            reach = reaches.setdefault(said.seat.name, Reach(inf if attack else 0.0))
            reach.asked += 1
            reach.seconds += said.record.result.seconds
            verdict = said.record.result.verdict
            if attack and verdict is Verdict.FALSIFIED:
                reach.radius = min(reach.radius, said.reach)
            elif not attack and verdict is Verdict.VERIFIED:
                reach.radius = max(reach.radius, said.eps)
        label = -1 if sample.label is None else sample.label
        predicted = -1 if sample.right is False else label
        ends = (sample.certified, sample.broken)
        ordered = {seat.name: reaches[seat.name] for seat in recorded.about.seats if seat.name in reaches}
        lines.append(Line(sample.index, label, predicted, *ends, bool(sample.disputes), ordered))
    return lines


def spreads(seats: Sequence[Seat], lines: Sequence[Line]) -> list[Spread]:
    """Attacks, both jaws, methods, each over the lines that are not in dispute."""
    kept = [line for line in lines if not line.disputed]
    attacks = [_spread(seat.role, seat.name, kept) for seat in seats if seat.role is Role.ATTACK]
    methods = [_spread(seat.role, seat.name, kept) for seat in seats if seat.role is Role.METHOD]
    jaws = [_spread(Role.ATTACK, ALL_ATTACKS, kept), _spread(Role.METHOD, ALL_METHODS, kept)]
    return [*attacks, *jaws, *methods]


def _spread(role: Role, name: str, lines: Sequence[Line]) -> Spread:
    radii = [_radius(line, role, name) for line in lines]
    ratios = []
    for line, radius in zip(lines, radii, strict=True):
        low, high = (radius, line.attacked) if role is Role.METHOD else (line.certified, radius)
        if line.predicted == line.label and 0 < high < inf:
            ratios.append(min(low / high, 1.0))
    finite = [radius for radius in radii if isfinite(radius)]
    reaches = [reach for line in lines for who, reach in line.reaches.items() if who == name]
    return Spread(
        role,
        name,
        len(lines),
        fmean(finite) if finite else (0.0 if role is Role.METHOD else inf),
        (_quantile(radii, TENTHS[0], role), _quantile(radii, TENTHS[1], role), _quantile(radii, TENTHS[2], role)),
        len(radii) - len(finite),
        fmean(ratios) if ratios else None,
        _quantile(ratios, 0.5, Role.METHOD) if ratios else None,
        sum(reach.asked for reach in reaches),
        sum(reach.seconds for reach in reaches),
    )


def _radius(line: Line, role: Role, name: str) -> float:
    """Of one participant or of a jaw."""
    if line.predicted != line.label:
        return 0.0
    if name in (ALL_ATTACKS, ALL_METHODS):
        return line.certified if role is Role.METHOD else line.attacked
    reach = line.reaches.get(name)
    return reach.radius if reach is not None else (0.0 if role is Role.METHOD else inf)


def _quantile(values: Sequence[float], share: float, role: Role) -> float:
    """A value of the sample: from below for what is certified, from above for distances.

    >>> _quantile([0.1, 0.2, 0.3, 0.4], 0.5, Role.METHOD), _quantile([0.1, 0.2, 0.3, 0.4], 0.5, Role.ATTACK)
    (0.2, 0.3)
    """
    place = share * (len(values) - 1)
    return sorted(values)[int(place) if role is Role.METHOD else -int(-place // 1)] if values else 0.0


def _means(lines: Sequence[Line]) -> str:
    """Both ends, while a search goes on."""
    upper, lower = spreads([], lines)
    return f"radii of {lower.mean:.3g} to {upper.mean:.3g} in the mean of {len(lines)}"


def _line(sample: Sample, disputed: bool) -> Line:
    ends = (sample.certified, sample.attacked) if sample.right else (0.0, 0.0)
    return Line(sample.index, sample.label, sample.predicted, *ends, disputed, sample.reaches)
