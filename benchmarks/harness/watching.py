"""A run that another process makes, looked at from beside: counts, both jaws, and the time left, out of its store."""

from __future__ import annotations

import calendar
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from assay.benchmarks.harness import bracket
from assay.benchmarks.harness.bracket import Judged, Row
from assay.benchmarks.harness.progress import Pace
from assay.benchmarks.harness.radii.radius_search import Reach
from assay.benchmarks.harness.radii.radius_table import Line, Spread, spreads
from assay.benchmarks.harness.records import described
from assay.benchmarks.harness.records.described import Description
from assay.benchmarks.harness.records.store import Store
from assay.verify.core.errors import InputError
from assay.verify.core.norms import threat_name
from assay.verify.core.result import NETWORK, Verdict

Known = tuple[str, int, float, str, float]  # method, sample, eps, verdict, seconds


@dataclass(frozen=True)
class Sight:
    """What is to be seen of run number ``run``. ``done`` of ``total`` verdicts, or samples of a search for radii, or
    instances, whose number is not known (0) until the end; ``counts``: by verdict.

    ``rows``: of a comparison, over the first ``n`` samples; ``spreads``: of a search for radii, over the ``n`` samples
    that it has come to, distances as the eps of the question. ``left``: seconds, inf where nothing is known.
    """

    run: int
    command: str
    model: str
    data: str
    norm: float
    n: int
    done: int
    total: int
    counts: dict[str, int]
    rows: tuple[Row, ...]
    spreads: tuple[Spread, ...]
    elapsed: float
    left: float
    ended: bool
    alarms: int
    perturbation: str = ""
    within: str = ""

    @property
    def threat(self) -> str:
        """The perturbation, or the norm by name, and what other balls it is within."""
        return threat_name(self.norm, self.perturbation, self.within)


def look(store: Store, run: int | None = None) -> Sight:
    """The run of that number, the last if none is given. Raises :class:`InputError` where there is none."""
    runs = store.runs()
    number = len(runs) if run is None else run
    if not 1 <= number <= len(runs):
        has = f"its runs are 1 to {len(runs)}" if runs else "it has none"
        raise InputError(f"{store.path} has no run {number}: {has}")
    noted = runs[number - 1]
    elapsed = max(0.0, time.time() - calendar.timegm(time.strptime(noted["started"], "%Y-%m-%dT%H:%M:%SZ")))
    form, document = store.noted.described().get(number, (None, ""))
    about = described.read(form, document) if form == described.COMPARISON else None
    facts = (number, noted["command"], noted["model"], noted["data"])
    if not isinstance(about, Description):
        counts = store.decided(number)
        ended = form == described.INSTANCES
        return Sight(*facts, inf, 0, sum(counts.values()), 0, counts, (), (), elapsed, inf, ended, 0)
    names = {seat.key: seat.name for seat in about.seats}
    who = (about.seed, about.device, about.versions.get("assay", ""), about.source)
    known = [each for each in store.noted.counts(number, who) if each[0] in names]
    counts = dict(Counter(verdict for _, _, _, verdict, _ in known))
    ended, alarms = about.seconds is not None, len(about.alarms)
    elapsed = elapsed if about.seconds is None else about.seconds
    if about.tolerance is not None:
        begun = len({(names[method], sample) for method, sample, *_ in known})
        total = len(about.seats) * (about.n - len(about.wrong[NETWORK]))
        left = 0.0 if ended else elapsed * (total - begun) / begun if begun else inf
        n, found = _spreads(about, known)
        return Sight(*facts, about.norm, n, begun, total, counts, (), found, elapsed, left, ended, alarms)
    owed = {
        f"{seat.key}@{eps}": about.n - len(about.wrong[seat.subject]) for seat in about.seats for eps in about.radii
    }
    left = 0.0 if ended else _left(owed, known)
    n, rows = _rows(about, known)
    at = n, len(known), sum(owed.values())
    return Sight(
        *facts, about.norm, *at, counts, rows, (), elapsed, left, ended, alarms, about.perturbation, about.within
    )


def _left(owed: dict[str, int], known: Sequence[Known]) -> float:
    """Each stage as long a verdict as it has taken so far."""
    pace = Pace(sum(owed.values()), owed)
    for method, _, eps, _, seconds in known:
        pace.done[f"{method}@{eps}"] += 1
        pace.spent[f"{method}@{eps}"] += seconds
    return pace.left


def _rows(about: Description, known: Sequence[Known]) -> tuple[int, tuple[Row, ...]]:
    """The first samples that everybody has come to, how many, and the rows over them."""
    seats = {seat.key: seat for seat in about.seats}
    judged = [
        Judged(seats[m].role, seats[m].name, eps, sample, Verdict(verdict), None, seconds, seats[m].subject)
        for m, sample, eps, verdict, seconds in known
    ]
    own = [seat.name for seat in about.seats if seat.subject == NETWORK]
    last = min((max((j.sample for j in judged if j.name == name), default=-1) for name in own), default=-1)
    n = about.n if about.seconds is not None else last + 1
    if n <= 0:
        return 0, ()
    wrong = {subject: sum(i < n for i in which) for subject, which in about.wrong.items()}
    return n, tuple(bracket.rows(about.seats, about.radii, n, wrong, [j for j in judged if j.sample < n]))


def _spreads(about: Description, known: Sequence[Known]) -> tuple[int, tuple[Spread, ...]]:
    """How many samples the search has come to, and the spreads over them; what is misclassified has radius 0."""
    seats = {seat.key: seat for seat in about.seats}
    reaches: dict[int, dict[str, Reach]] = {}
    ends: dict[int, tuple[float, float]] = {}
    for method, sample, eps, verdict, seconds in known:
        seat, (low, high) = seats[method], ends.get(sample, (0.0, inf))
        attack = seat.role is bracket.Role.ATTACK
        reach = reaches.setdefault(sample, {}).setdefault(seat.name, Reach(inf if attack else 0.0))
        reach.asked, reach.seconds = reach.asked + 1, reach.seconds + seconds
        if verdict == Verdict.VERIFIED:
            low, reach.radius = max(low, eps), reach.radius if attack else max(reach.radius, eps)
        elif verdict == Verdict.FALSIFIED:
            high, reach.radius = min(high, eps), min(reach.radius, eps) if attack else reach.radius
        ends[sample] = (low, high)
    lines = [Line(sample, 0, 0, *ends[sample], False, found) for sample, found in reaches.items()]
    last = inf if about.seconds is not None else max(reaches, default=-1)
    lines += [Line(sample, 0, 1, 0.0, 0.0, False, {}) for sample in about.wrong[NETWORK] if sample <= last]
    return len(lines), tuple(spreads(about.seats, lines))
