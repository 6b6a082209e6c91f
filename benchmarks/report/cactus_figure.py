"""The plot of a run over instances: how many are solved within so many seconds, by us and by the peers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from assay.benchmarks.harness.suite import DECIDED, Outcome
from assay.benchmarks.report.bracket_figure import COOL, INK, WARM, spread
from assay.benchmarks.report.competition import OURS, Peers
from assay.verify.support.files import write_atomic
from assay.verify.support.plain import counted, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST = 0.01  # seconds; what is faster is drawn there
MOST_PEERS = 7
COLOURS = (*COOL[1:], *WARM)
LABEL_GAP = 0.048


def draw(outcome: Outcome, peers: Peers, path: Path) -> None:
    """Write the picture to ``path`` as PNG, whole or not at all."""
    buffer = io.BytesIO()
    plot(outcome, peers).savefig(buffer, format="png", facecolor="white", metadata={"Software": "assay"})
    write_atomic(path, buffer.getvalue())


def lines(outcome: Outcome, peers: Peers) -> dict[str, list[float]]:
    """Seconds of the solved instances, rising: ours first, then the best peers, best first; each peer's best year
    in each benchmark counts."""
    ours = [row.seconds for row in outcome.rows if row.word in DECIDED and not row.contradicts]
    best: dict[tuple[str, str], list[float]] = {}
    for tool, by_name in (peers.seconds or {}).items():
        for benchmark in {name[0] for name in by_name}:
            key = tool.partition(" ")[0], benchmark
            seconds = [spent for name, spent in by_name.items() if name[0] == benchmark]
            best[key] = max(best.get(key, []), seconds, key=len)
    theirs: dict[str, list[float]] = {}
    for (tool, _), seconds in best.items():
        theirs[tool] = sorted([*theirs.get(tool, []), *seconds])
    first = sorted(theirs, key=lambda tool: -len(theirs[tool]))[:MOST_PEERS]
    return {OURS: sorted(ours)} | {tool: theirs[tool] for tool in first}


def plot(outcome: Outcome, peers: Peers) -> Figure:
    """The picture, on matplotlib's Agg canvas."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn, total = lines(outcome, peers), len(outcome.rows)
    right = 1.2 * max([1.0, *(seconds[-1] for seconds in drawn.values() if seconds)])
    figure = Figure(figsize=(8.0, 4.8), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    colours = [INK, *COLOURS]
    places = spread([len(seconds) / max(total, 1) for seconds in drawn.values()], LABEL_GAP)
    for (tool, seconds), colour, place in zip(drawn.items(), colours, places, strict=False):
        x, y = _steps(seconds, right)
        ours = tool == OURS
        axes.plot(x, y, color=colour, linewidth=2.4 if ours else 1.4, drawstyle="steps-post", zorder=4 if ours else 3)
        axes.annotate(
            f"{plain(tool)}  {len(seconds)}",
            (right, len(seconds)),
            (1.03, place / 1.04),
            textcoords="axes fraction",
            color=colour,
            parse_math=False,
            va="center",
            fontsize=10.5,
            fontweight="bold" if ours else "normal",
            annotation_clip=False,
        )
    axes.set_xlim(LEAST, right)
    axes.set_ylim(0, 1.04 * max(total, 1))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(color="#E6E6E6", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, labelsize=10, colors="#444444")
    note = " (peers: as published, start-up included)" if len(drawn) > 1 else ""
    axes.set_xlabel(f"seconds for an instance{note}", fontsize=11, color="#444444")
    axes.set_ylabel("instances solved", fontsize=11, color="#444444")
    size = counted(total, "instance")
    heading = f"{', '.join(dict.fromkeys(plain(row.instance.benchmark) for row in outcome.rows))}: {size}"
    heading = heading if len(heading) <= 80 else size
    axes.set_title(heading, loc="left", fontsize=12.5, fontweight="bold", color=INK, pad=12, parse_math=False)
    return figure


def _steps(seconds: Sequence[float], right: float) -> tuple[list[float], list[int]]:
    """The staircase: one step up at each instance's seconds, level up to the right edge."""
    times = [max(second, LEAST) for second in seconds]
    return [LEAST, *times, right], [0, *range(1, len(times) + 1), len(times)]
