"""The price of tightness: what each method certifies against the seconds that it takes for a sample."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import TYPE_CHECKING

from assay.benchmarks.harness.bracket import ALL_METHODS, Bracketed, Role, Row
from assay.benchmarks.report import canvas
from assay.benchmarks.report.bracket_figure import MARKERS
from assay.benchmarks.report.colours import COOL, DEEPER, GRID, PAPER
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
    """A line for each method through its radii, which are written beside their points; best is the upper left."""
    rows = priced(comparison)
    figure, axes = canvas.blank(size)
    axes.set_xscale("log")
    canvas.shares(axes)
    spans = [each(row) for row in rows]
    axes.set_xlim(min(spans) / 2, max(spans) * 2)
    named: list[tuple[str, str]] = []
    points: list[tuple[float, float, str, str]] = []
    for position, name in enumerate(dict.fromkeys(row.name for row in rows)):
        colour, own = COOL[position % len(COOL)], sorted((r for r in rows if r.name == name), key=lambda r: r.eps)
        x, y = [each(row) for row in own], [row.accuracy for row in own]
        axes.plot(
            x,
            y,
            color=colour,
            linewidth=1.2,
            marker=MARKERS[position % len(MARKERS)],
            markersize=8,
            markeredgecolor=PAPER,
            clip_on=False,
            zorder=4,
        )
        points += [(at, height, f"{row.eps:g}", colour) for row, at, height in zip(own, x, y, strict=True)]
        named.append((canvas.short(name, size), colour))
    across = 2 if size[0] < canvas.WIDE[0] else 3
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": across}
    legend = axes.legend(axes.lines, [name for name, _ in named], frameon=False, fontsize=canvas.LETTERS, **place)
    for text, (_, colour) in zip(legend.get_texts(), named, strict=True):
        text.set_color(DEEPER[colour])
        text.set_parse_math(False)
    axes.grid(axis="x", color=GRID, linewidth=0.8, zorder=0)
    near = max(spans) < 8 * min(spans)  # so that there may be no power of ten between them
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if near and f"{value:e}"[0] in "235" else "")
    axes.tick_params(which="minor", labelsize=canvas.LETTERS - 0.5)
    title = f"The price of tightness: {plain(comparison.model)}" if heading else ""
    for at, height, text, colour in together(points, log(axes.get_xlim()[1] / axes.get_xlim()[0]), size):
        style = {"fontsize": canvas.LETTERS - 1.5, "color": DEEPER[colour]}
        axes.annotate(text, (at, height), (7, 5), textcoords="offset points", **style)
    canvas.caption(axes, "seconds for a sample", "certified accuracy", title)
    return figure


def together(
    points: Sequence[tuple[float, float, str, str]], decades: float, size: canvas.Size
) -> list[tuple[float, float, str, str]]:
    """Points (seconds, share, radius, colour) with those of one colour that are too close for labels of their own as
    one, at the rightmost, with its radii in a row; ``decades`` is the width of the axis in natural logarithms.

    >>> together([(0.001, 0.0, "0.05", "b"), (0.0011, 0.0, "0.1", "b"), (0.02, 0.5, "0.1", "g")], 5.0, canvas.WIDE)
    [(0.0011, 0.0, '0.05, 0.1', 'b'), (0.02, 0.5, '0.1', 'g')]
    """
    wide, high = 0.75 / size[0], 0.3 / size[1]  # about what a label takes, in inches, as shares of the axes
    found: list[tuple[float, float, str, str]] = []
    for at, height, text, colour in points:
        for position, (other, level, texts, own) in enumerate(found):
            near = abs(log(at / other)) / decades < wide * (1 + texts.count(",")) and abs(height - level) < high
            if own == colour and near:
                place = max((other, level), (at, height))
                found[position] = (*place, f"{texts}, {text}", colour)
                break
        else:
            found.append((at, height, text, colour))
    return found
