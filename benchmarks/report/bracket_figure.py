"""bracket.png: both jaws against eps, attacks from above, certificates from below, robust accuracy in the gap."""

from __future__ import annotations

import io
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from assay.benchmarks.harness.bracket import ALL_ATTACKS, ALL_METHODS, Role, Row
from assay.benchmarks.harness.compare import Comparison
from assay.verify.core.norms import norm_name
from assay.verify.support.files import write_atomic
from assay.verify.support.plain import counted, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours: told apart with any colour vision. Warm from above, cool from below.
WARM = ("#D55E00", "#E69F00", "#CC79A7", "#A6761D")
COOL = ("#0072B2", "#009E73", "#56B4E9", "#4B4E9E")
INK, FAINT, GAP = "#222222", "#8A8A8A", "#F0E7C8"
JAWS = (ALL_ATTACKS, ALL_METHODS)
MARKERS = ("o", "s", "^", "D", "v", "P")
LABEL_GAP = 0.052


def draw(comparison: Comparison, path: Path) -> None:
    """Write the picture to ``path`` as PNG, whole or not at all."""
    buffer = io.BytesIO()
    plot(comparison).savefig(buffer, format="png", facecolor="white", metadata={"Software": "assay"})
    write_atomic(path, buffer.getvalue())


def plot(comparison: Comparison) -> Figure:
    """The picture, on matplotlib's Agg canvas, of those who could run; what speaks of other subjects is left out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure

    rows = [row for row in comparison.rows if row.subject == "network" and (row.name in JAWS or not row.refusal)]
    clean, others = rows[0], rows[1:]
    names = {role: list(dict.fromkeys(row.name for row in others if row.role is role)) for role in Role}
    upper, lower = (_line(others, name, clean) for name in (ALL_ATTACKS, ALL_METHODS))

    figure = Figure(figsize=(8.0, 4.8), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.fill_between(upper[0], lower[1], upper[1], color=GAP, linewidth=0, zorder=1)
    axes.axhline(clean.accuracy, color=FAINT, linewidth=1.4, linestyle=(0, (5, 3)), zorder=2)
    ends = [(clean.accuracy, "clean", FAINT)]
    for role, palette, jaw in ((Role.ATTACK, WARM, ALL_ATTACKS), (Role.METHOD, COOL, ALL_METHODS)):
        shown = [name for name in names[role] if name != jaw]
        for position, name in enumerate(shown):
            colour = palette[position % len(palette)]
            x, y = _line(others, name, clean)
            axes.plot(
                x,
                y,
                color=colour,
                linewidth=2.0,
                marker=MARKERS[position % len(MARKERS)],
                markersize=6.5,
                markeredgecolor="white",
                markeredgewidth=1.0,
                markevery=slice(1, None) if x[0] == 0 and len(x) > 1 else None,
                clip_on=False,
                zorder=4,
            )
            ends.append((y[-1], plain(name), colour))
    for x, y in (upper, lower):
        axes.plot(x, y, color=INK, linewidth=0.9, alpha=0.55, zorder=3)

    right = max(upper[0]) or 1.0
    for (height, text, colour), place in zip(ends, spread([end[0] for end in ends], LABEL_GAP), strict=True):
        axes.annotate(
            f"{text}  {height:.1%}",
            (right, height),
            (right * 1.035, place),
            color=[0.8 * part for part in to_rgb(colour)],  # thin letters need more contrast than lines
            parse_math=False,
            va="center",
            fontsize=10.5,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.7, "alpha": 0.6, "shrinkA": 0, "shrinkB": 4},
        )
    axes.set_xlim(0, right * 1.01)
    axes.set_ylim(0, 1.02)
    axes.set_xticks(sorted({0.0, *upper[0]}))
    axes.set_xticklabels([f"{tick:g}" for tick in sorted({0.0, *upper[0]})])
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, labelsize=10, colors="#444444")
    norm = {1.0: r"$\ell_1$", 2.0: r"$\ell_2$", inf: r"$\ell_\infty$"}.get(comparison.norm, norm_name(comparison.norm))
    shaded = "shaded: where robust accuracy lies, between what is certified and what attacks leave"
    axes.set_xlabel(f"radius \u03b5 of the {norm} ball\n{shaded}", fontsize=11, color="#444444")
    axes.set_ylabel("accuracy", fontsize=11, color="#444444")
    heading = f"{plain(comparison.model)} on {plain(comparison.data)}, {counted(comparison.n, 'sample')}"
    axes.set_title(heading, loc="left", fontsize=12.5, fontweight="bold", color=INK, pad=12, parse_math=False)
    return figure


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Places for labels near their heights, at least ``gap`` apart, in the same order.

    >>> [round(place, 3) for place in spread([0.5, 0.5, 0.9], 0.1)]
    [0.45, 0.55, 0.9]
    """
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    # Clusters of labels that would touch are centred on the mean of their heights; clusters that touch then merge.
    clusters: list[list[int]] = []
    for i in order:
        clusters.append([i])
        while len(clusters) > 1:
            below, above = clusters[-2], clusters[-1]
            top = _middle(heights, below) + gap * len(below) / 2
            bottom = _middle(heights, above) - gap * len(above) / 2
            if top <= bottom + 1e-12:
                break
            clusters[-2:] = [below + above]
    places = list(heights)
    for cluster in clusters:
        start = _middle(heights, cluster) - gap * (len(cluster) - 1) / 2
        for position, i in enumerate(cluster):
            places[i] = start + gap * position
    return places


def _middle(heights: Sequence[float], cluster: Sequence[int]) -> float:
    return sum(heights[i] for i in cluster) / len(cluster)


def _line(rows: Sequence[Row], name: str, clean: Row) -> tuple[list[float], list[float]]:
    """Accuracy against eps; at radius 0 both jaws meet at the clean accuracy."""
    points = {0.0: clean.accuracy} | {row.eps: row.accuracy for row in rows if row.name == name}
    return sorted(points), [points[eps] for eps in sorted(points)]
