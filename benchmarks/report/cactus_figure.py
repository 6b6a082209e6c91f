"""The plot of a run over instances: how many are solved within so many seconds, by us and by the peers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from assay.benchmarks.harness.suite import DECIDED, Outcome
from assay.benchmarks.report import canvas
from assay.benchmarks.report.colours import COOL, GRID, INK, WARM
from assay.benchmarks.report.competition import OURS, Peers
from assay.verify.support.plain import counted, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST = 0.01  # seconds; what is faster is drawn there
MOST_PEERS = 7
COLOURS = (*COOL[1:], *WARM)


def draw(outcome: Outcome, peers: Peers, path: Path) -> None:
    """Write the picture to ``path`` as PNG, whole or not at all."""
    canvas.save(plot(outcome, peers), path)


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


def plot(outcome: Outcome, peers: Peers, size: canvas.Size = canvas.WIDE, heading: bool = True) -> Figure:
    """The picture; without a ``heading`` the names of the benchmarks stand elsewhere."""
    drawn, total = lines(outcome, peers), len(outcome.rows)
    right = 1.2 * max([1.0, *(seconds[-1] for seconds in drawn.values() if seconds)])
    figure, axes = canvas.blank(size)
    axes.set_xscale("log")
    axes.set_xlim(LEAST, right)
    axes.set_ylim(0, 1.04 * max(total, 1))
    colours = [INK, *COLOURS]
    for (tool, seconds), colour in zip(drawn.items(), colours, strict=False):
        x, y = _steps(seconds, right)
        ours = tool == OURS
        axes.plot(x, y, color=colour, linewidth=2.4 if ours else 1.4, drawstyle="steps-post", zorder=4 if ours else 3)
    ends = [
        (len(seconds), f"{canvas.short(tool, size)}  {len(seconds)}", colour)
        for (tool, seconds), colour in zip(drawn.items(), colours, strict=False)
    ]
    canvas.label(axes, right, ends, [tool == OURS for tool in drawn])
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(color=GRID, linewidth=0.8, zorder=0)
    note = " (peers: as published, start-up included)" if len(drawn) > 1 and heading else ""
    number = counted(total, "instance")
    title = f"{', '.join(dict.fromkeys(plain(row.instance.benchmark) for row in outcome.rows))}: {number}"
    title = title if len(title) <= 80 else number
    canvas.caption(axes, f"seconds for an instance{note}", "instances solved", title if heading else "")
    return figure


def _steps(seconds: Sequence[float], right: float) -> tuple[list[float], list[int]]:
    """The staircase: one step up at each instance's seconds, level up to the right edge."""
    times = [max(second, LEAST) for second in seconds]
    return [LEAST, *times, right], [0, *range(1, len(times) + 1), len(times)]
