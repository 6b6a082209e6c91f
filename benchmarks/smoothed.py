"""A data set through a smoothed classifier: one certified radius a sample, and the curve of certified accuracy."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from benchmarks.bracket import CONFIDENCE
from benchmarks.figure import COOL, FAINT, INK, NORMS
from benchmarks.files import write_atomic
from benchmarks.plain import plain
from benchmarks.progress import SILENT, Progress
from models.data import Dataset
from verify.backends.smoothing.method import Smoothing
from verify.core.network import to_network
from verify.core.problem import Problem

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from verify.core.network import Network

ABSTAINED = -1


@dataclass(frozen=True)
class Row:
    """One sample: its label, the smoothed classifier's answer (-1: it abstained), the certified radius, how many of n
    fresh draws gave the answer, the lower bound p of its probability, and the seconds that it took."""

    index: int
    label: int
    prediction: int
    radius: float
    successes: int
    n: int
    p: float
    seconds: float

    @property
    def right(self) -> bool:
        """Whether the answer is the label."""
        return self.prediction == self.label


@dataclass(frozen=True)
class Point:
    """Certified accuracy at a radius: the share of the samples that are right with a radius ABOVE it, and the exact
    95% interval over samples of the same kind."""

    radius: float
    count: int
    accuracy: float
    low: float
    high: float


def certify(
    model: nn.Module | Network,
    data: Dataset,
    method: Smoothing,
    norm: float,
    seed: int,
    indices: Sequence[int],
    progress: Progress = SILENT,
) -> Iterator[Row]:
    """The rows of the samples at ``indices``, as they are decided."""
    network = to_network(model, data.shape)
    progress.begin(len(indices))
    for index in indices:
        progress.running(f"sample {index}")
        begun = time.monotonic()
        label = int(data.y[index])
        problem = Problem.robustness(network, data.x[index], label, 0.0, norm, data.domain)
        found = method.certify(problem, norm, seed)
        answer = ABSTAINED if found.prediction is None else found.prediction
        successes = 0 if found.prediction is None else found.outcome.counts[found.prediction]
        spent = time.monotonic() - begun
        yield Row(index, label, answer, found.radius, successes, found.outcome.n, found.outcome.lower, spent)
        progress.advance(1)


def curve(rows: Sequence[Row], radii: Sequence[float]) -> list[Point]:
    """Certified accuracy at each radius, in rising order; at 0 the accuracy of the smoothed classifier."""
    from scipy.stats import binomtest

    points = []
    for radius in sorted(set(radii)):
        count = sum(row.right and row.radius > radius for row in rows)
        interval = binomtest(count, len(rows)).proportion_ci(CONFIDENCE, method="exact")
        points.append(Point(radius, count, count / len(rows), float(interval.low), float(interval.high)))
    return points


def caveats(rows: Sequence[Row], alpha: float) -> list[str]:
    """What the figures do not say by themselves."""
    together = max(0.0, 1 - alpha * len(rows))
    interval = (
        "The interval is over samples, given the draws: noise is drawn afresh for each sample (equal samples share "
        "it), and a new seed moves the radii a little."
    )
    return [
        f"Each row holds with confidence {1 - alpha:g} by itself, all {len(rows)} at once with at least {together:g}.",
        interval,
        "Radii hold in real arithmetic.",
    ]


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
        "rows": [{**vars(row), "correct": row.right} for row in rows],
        "confidence": CONFIDENCE,
        "caveats": caveats(rows, facts["alpha"]),
    }


def draw(rows: Sequence[Row], norm: float, heading: Sequence[str], path: Path) -> None:
    """Write the curve to ``path`` as PNG, whole or not at all."""
    buffer = io.BytesIO()
    plot(rows, norm, heading).savefig(buffer, format="png", facecolor="white", metadata={"Software": "assay"})
    write_atomic(path, buffer.getvalue())


def plot(rows: Sequence[Row], norm: float, heading: Sequence[str]) -> Figure:
    """Certified accuracy against the radius, a staircase, with its interval."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    largest = max([row.radius for row in rows if row.right], default=0.0) or 1.0
    points = curve(rows, [largest * 1.02 * k / 150 for k in range(151)])
    x = [point.radius for point in points]
    figure = Figure(figsize=(8.0, 4.8), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.fill_between(
        x, [p.low for p in points], [p.high for p in points], color=COOL[0], alpha=0.15, step="pre", linewidth=0
    )
    axes.plot(x, [p.accuracy for p in points], color=COOL[0], linewidth=2.2, drawstyle="steps-pre")
    axes.axhline(points[0].accuracy, color=FAINT, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
    axes.set_xlim(0, largest * 1.02)
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, labelsize=10, colors="#444444")
    name = NORMS.get(norm, f"l{norm:g}")
    axes.set_xlabel(f"certified {name} radius (95% interval over samples)", fontsize=11, color="#444444")
    axes.set_ylabel("certified accuracy", fontsize=11, color="#444444")
    axes.set_title(
        "\n".join(map(plain, heading)), loc="left", fontsize=11, fontweight="bold", color=INK, pad=12, parse_math=False
    )
    return figure
