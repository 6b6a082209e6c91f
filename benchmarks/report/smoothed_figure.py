"""The plot of a smoothed classifier: certified accuracy against the radius."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from assay.benchmarks.harness.smoothed import Row, curve
from assay.benchmarks.report.bracket_figure import COOL, FAINT, INK
from assay.verify.core.norms import norm_name
from assay.verify.support.files import write_atomic
from assay.verify.support.plain import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    name = norm_name(norm)
    axes.set_xlabel(f"certified {name} radius (95% interval over samples)", fontsize=11, color="#444444")
    axes.set_ylabel("certified accuracy", fontsize=11, color="#444444")
    axes.set_title(
        "\n".join(map(plain, heading)), loc="left", fontsize=11, fontweight="bold", color=INK, pad=12, parse_math=False
    )
    return figure
