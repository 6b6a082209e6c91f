"""The plot of a smoothed classifier: certified accuracy against the radius."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from assay.benchmarks.harness.smoothed import Row, curve
from assay.benchmarks.report import canvas
from assay.benchmarks.report.colours import COOL, FAINT
from assay.verify.core.norms import norm_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(rows: Sequence[Row], norm: float, heading: Sequence[str], path: Path) -> None:
    """Write the picture to ``path`` as PNG, whole or not at all."""
    canvas.save(plot(rows, norm, heading), path)


def plot(rows: Sequence[Row], norm: float, heading: Sequence[str]) -> Figure:
    """Certified accuracy against the radius, a staircase, with its interval."""
    largest = max([row.radius for row in rows if row.right], default=0.0) or 1.0
    points = curve(rows, [largest * 1.02 * k / 150 for k in range(151)])
    x = [point.radius for point in points]
    figure, axes = canvas.blank()
    canvas.shares(axes)
    axes.fill_between(
        x, [p.low for p in points], [p.high for p in points], color=COOL[0], alpha=0.15, step="pre", linewidth=0
    )
    axes.plot(x, [p.accuracy for p in points], color=COOL[0], linewidth=2.2, drawstyle="steps-pre")
    axes.axhline(points[0].accuracy, color=FAINT, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
    axes.set_xlim(0, largest * 1.02)
    across = f"certified {norm_name(norm)} radius (95% interval over samples)"
    canvas.caption(axes, across, "certified accuracy", "\n".join(heading))
    return figure
