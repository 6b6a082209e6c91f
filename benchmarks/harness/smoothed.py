"""A data set through a smoothed classifier: one certified radius a sample, and the curve of certified accuracy.

Every answer with a radius is attacked within it, for a small part of what it cost. One that breaks is an alarm.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite, prod
from typing import Any

from torch import nn

from assay.benchmarks.harness.beside import against
from assay.benchmarks.harness.bracket import CONFIDENCE
from assay.benchmarks.harness.lost import Lost
from assay.benchmarks.harness.preloaded import SAMPLES
from assay.benchmarks.harness.progress import SILENT, Progress
from assay.benchmarks.harness.sources import Held, Source, checked
from assay.models.data import Dataset
from assay.verify.backends.smoothing.confidence import clopper_pearson
from assay.verify.backends.smoothing.method import Smoothing
from assay.verify.core.budget import Budget
from assay.verify.core.errors import AlarmError
from assay.verify.core.network import Network
from assay.verify.core.norms import SPARSE, covers
from assay.verify.core.problem import Problem
from assay.verify.core.result import Reason, Verdict
from assay.verify.frontends.whole import runnable
from assay.verify.support.executors import Ended, Hiring, Job, Task, run
from assay.verify.support.executors.inline import here
from assay.verify.support.plain import counted

ABSTAINED = -1
INSIDE = 1 - 1e-3  # of a radius, where the attack looks: a radius holds for what is nearer
CHANCE = 0.01  # that so many are broken, below which it is an alarm


@dataclass(frozen=True)
class Row:
    """One sample: its label, the smoothed classifier's answer (-1: it abstained), the certified radius, how many of n
    fresh draws gave the answer, the lower bound p of its probability, and the seconds that it took; ``lost``: why there
    is no answer, where no process survived the sample; ``broken``: whether an attack within the radius changed the
    answer, None where nothing was attacked."""

    index: int
    label: int
    prediction: int
    radius: float
    successes: int
    n: int
    p: float
    seconds: float
    lost: Lost | None = None
    broken: bool | None = None

    @property
    def right(self) -> bool:
        """Whether the answer is the label."""
        return self.prediction == self.label


@dataclass(frozen=True)
class Point:
    """Certified accuracy at a radius: the share of the samples that are right with a radius ABOVE it, or as many
    pixels, and the exact 95% interval over samples of the same kind."""

    radius: float
    count: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Ground:
    """What all samples share: the model, or where it comes from, and how it is smoothed."""

    model: Source
    data: Dataset
    method: Smoothing
    norm: float
    seed: int
    identity: str = ""

    @cached_property
    def network(self) -> Network:
        """The model, as it is run. Raises :class:`InputError` where another one is found under the same name."""
        return checked(runnable(self.model.load(), self.data.shape), self.identity)

    def __getstate__(self) -> dict[str, object]:
        """What travels: not the network."""
        return {name: value for name, value in vars(self).items() if name != "network"}


def certify(
    model: nn.Module | Network,
    data: Dataset,
    method: Smoothing,
    norm: float,
    seed: int,
    indices: Sequence[int],
    progress: Progress = SILENT,
    hiring: Hiring = here,
    source: Source | None = None,
) -> Iterator[Row]:
    """The rows of the samples at ``indices``, as they are decided; ``hiring``, ``source``: as in
    :func:`assay.benchmarks.harness.compare.compare`."""
    progress.begin(len(indices))
    done = right = 0
    ground = Ground(source or Held(model), data, method, norm, seed, runnable(model, data.shape).id)
    with hiring(Job(_row, ground, SAMPLES)) as executor:
        for ended in run(executor, (Task(index) for index in indices)):
            row = _unanswered(ground, ended) if ended.lost else ended.value(f"sample {ended.task.argument}")
            done, right = done + 1, right + row.right
            yield row
            progress.so_far(f"{right} of {done} right")
            progress.advance(1)


def _unanswered(ground: Ground, ended: Ended) -> Row:
    """The row of a sample that no process survived: nothing is certified."""
    index: int = ended.task.argument
    label, lost = int(ground.data.y[index]), Lost.of(ended, f"sample {index}")
    return Row(index, label, ABSTAINED, 0.0, 0, ground.method.n, 0.0, ended.seconds, lost)


def _row(ground: Ground, index: int) -> Row:
    """What comes of one sample."""
    network, data = ground.network, ground.data
    begun = time.monotonic()
    label = int(data.y[index])
    problem = Problem.robustness(network, data.x[index], label, 0.0, ground.norm, data.legal)
    certified = ground.method.certify(problem, ground.norm, ground.seed)
    outcome = certified.outcome
    answer, successes = ABSTAINED, 0
    if certified.prediction is not None:
        answer, successes = certified.prediction, outcome.counts[certified.prediction]
    broken = _broken(ground, problem, answer, certified.radius) if answer != ABSTAINED else None
    spent = time.monotonic() - begun
    return Row(index, label, answer, certified.radius, successes, outcome.n, outcome.lower, spent, broken=broken)


def _broken(ground: Ground, problem: Problem, answer: int, radius: float) -> bool | None:
    """Whether an attack within the radius changes the certified answer; None where there is no room or no gradient."""
    size = float(min(int(radius), prod(problem.network.input_shape))) if ground.norm in SPARSE else radius * INSIDE
    if not (isfinite(radius) and size > 0):
        return None
    near = Problem.robustness(problem.network, problem.region.centre, answer, size, ground.norm, ground.data.legal)
    found = against(ground.method).verify(near, Budget(seed=ground.seed))
    return None if found.reason in (Reason.UNSUPPORTED, Reason.VACUOUS) else found.verdict is Verdict.FALSIFIED


def raise_alarm(rows: Sequence[Row], alpha: float) -> None:
    """Raise :class:`AlarmError` if more certified answers were broken within their radii than chance explains, each of
    which is wrong with probability ``alpha``."""
    from scipy.special import bdtrc

    broken, tried = [row for row in rows if row.broken], sum(row.broken is not None for row in rows)
    if broken and bdtrc(len(broken) - 1, tried, alpha) < CHANCE:
        more = f"; {len(broken) - 1} more" if len(broken) > 1 else ""
        raise AlarmError(
            f"soundness alarm: the vote on sample {broken[0].index} is certified within {broken[0].radius:g}, and an "
            f"attack within it changes the answer{more}: please report it"
        )


def curve(rows: Sequence[Row], radii: Sequence[float], norm: float = 2.0) -> list[Point]:
    """Certified accuracy at each radius in the ``norm``, rising; at 0 the accuracy of the smoothed classifier."""
    points = []
    for radius in sorted(set(radii)):
        count = sum(row.right and covers(row.radius, radius, norm) for row in rows)
        points.append(Point(radius, count, count / len(rows), *clopper_pearson(count, len(rows), CONFIDENCE)))
    return points


def caveats(rows: Sequence[Row], alpha: float) -> list[str]:
    """What the figures do not say by themselves."""
    together = max(0.0, 1 - alpha * len(rows))
    interval = (
        "The interval is over samples, given the draws: noise is drawn afresh for each sample (equal samples share "
        "it), and a new seed moves the radii a little."
    )
    return [
        f"Each sample's radius holds with confidence {1 - alpha:g}, all {len(rows)} together with {together:g}.",
        interval,
        "Radii hold in real arithmetic.",
        _attacked(rows),
    ]


def _attacked(rows: Sequence[Row]) -> str:
    """What came of the attacks, in a line."""
    tried = [row.broken for row in rows if row.broken is not None]
    return f"{counted(len(tried), 'certified answer')} attacked within the radius: {sum(tried) or 'none'} changed."


def table_text(rows: Sequence[Row]) -> str:
    """The rows as CSV; radii and p with all their digits."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["index", "label", "prediction", "correct", "radius", "successes", "n", "p", "seconds"])
    for row in rows:
        facts = [row.index, row.label, row.prediction, int(row.right), repr(row.radius), row.successes, row.n]
        writer.writerow([*facts, repr(row.p), f"{row.seconds:.3f}"])
    return buffer.getvalue()


def summary(rows: Sequence[Row], points: Sequence[Point], facts: dict[str, Any]) -> dict[str, Any]:
    """Everything as plain data."""
    return {
        **facts,
        "samples": len(rows),
        "abstained": sum(row.prediction == ABSTAINED for row in rows),
        "curve": [vars(point) for point in points],
        "rows": [{**vars(row), "correct": row.right, "lost": row.lost and row.lost.why} for row in rows],
        "confidence": CONFIDENCE,
        "caveats": caveats(rows, facts["alpha"]),
    }
