"""The price of tightness: what each method certifies against the seconds that it takes for a sample."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from assay.benchmarks.harness.bracket import ALL_METHODS, Bracketed, Role, Row
from assay.benchmarks.report import canvas
from assay.benchmarks.report.bracket_figure import MARKERS
from assay.benchmarks.report.colours import COOL, DEEPER, FAINT, GRID, PAPER
from assay.verify.core.result import NETWORK
from assay.verify.support.plain import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST = 1e-6  # seconds; what is faster, or was not measured, is drawn there


def priced(comparison: Bracketed) -> list[Row]:
    """The rows of methods that took time."""
    methods = [row for row in comparison.rows if row.role is Role.METHOD and row.name != ALL_METHODS]
    return [row for row in methods if row.subject == NETWORK and not row.refusal and row.seconds > 0]


def each(row: Row) -> float:
    """Seconds for a sample that was asked about."""
    return max(row.seconds / max(row.n - row.misclassified, 1), LEAST)


def plot(comparison: Bracketed, size: canvas.Size = canvas.WIDE, heading: bool = True) -> Figure:
    """A mark for each method and radius, and for each radius a line: the most that one method certifies within the
    time. Best is the upper left."""
    rows = priced(comparison)
    figure, axes = canvas.blank(size)
    axes.set_xscale("log")
    canvas.shares(axes)
    spans = [each(row) for row in rows]
    right = max(spans) * 2
    axes.set_xlim(min(spans) / 2, right)
    ends = []
    for eps in sorted({row.eps for row in rows}):
        own = sorted((row for row in rows if row.eps == eps), key=each)
        most = list(accumulate((row.accuracy for row in own), max))
        line = {"color": FAINT, "linewidth": 1.2, "drawstyle": "steps-post", "zorder": 2}
        axes.plot([*map(each, own), right], [*most, most[-1]], **line)
        ends.append((most[-1], f"eps {eps:g}", FAINT))
    names = list(dict.fromkeys(row.name for row in rows))
    style = {"markersize": 8, "markeredgecolor": PAPER, "clip_on": False, "zorder": 4}
    marks = []
    for position, name in enumerate(names):
        colour, own = COOL[position % len(COOL)], [row for row in rows if row.name == name]
        x, y = [each(row) for row in own], [row.accuracy for row in own]
        marks += axes.plot(x, y, MARKERS[position % len(MARKERS)], color=colour, **style)
    canvas.label(axes, right, ends)
    across = 2 if size[0] < canvas.WIDE[0] else 4
    called = [canvas.short(name, size) for name in names]
    legend = figure.legend(
        marks, called, loc="outside lower left", ncols=across, frameon=False, fontsize=canvas.LETTERS
    )
    for text, mark in zip(legend.get_texts(), marks, strict=True):
        text.set_color(DEEPER[mark.get_color()])
        text.set_parse_math(False)
    axes.grid(axis="x", color=GRID, linewidth=0.8, zorder=0)
    near = max(spans) < 8 * min(spans)  # so that there may be no power of ten between them
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if near and f"{value:e}"[0] in "235" else "")
    axes.tick_params(which="minor", labelsize=canvas.LETTERS - 0.5)
    title = f"The price of tightness: {plain(comparison.model)}" if heading else ""
    canvas.caption(axes, "seconds for a sample", "certified accuracy", title)
    return figure
