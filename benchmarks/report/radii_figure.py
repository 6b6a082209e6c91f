"""The radii of all samples, sorted: how far each is certified, and how near it is broken."""

from __future__ import annotations

from math import inf, isfinite
from typing import TYPE_CHECKING

from assay.benchmarks.harness.records.recorded import Recorded
from assay.benchmarks.report import canvas
from assay.benchmarks.report.colours import COOL, GAP, GRID, WARM
from assay.verify.core.norms import norm_name
from assay.verify.support.plain import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot(recorded: Recorded, size: canvas.Size = canvas.WIDE, heading: bool = True) -> Figure:
    """Each sample is a place on the axis across, by what is certified and then by what breaks it; shaded between the
    two. Where nothing breaks a sample the shade reaches the top."""
    ends = sorted((sample.certified, sample.broken) for sample in recorded.samples)
    places = range(len(ends))
    largest = max([*recorded.about.radii, *(high for _, high in ends if isfinite(high))], default=1.0) or 1.0
    top = 1.12 * largest
    lower, upper = [low for low, _ in ends], [min(high, top) for _, high in ends]
    figure, axes = canvas.blank(size)
    axes.fill_between(places, lower, upper, step="mid", color=GAP, linewidth=0, zorder=1)
    axes.plot(places, lower, color=COOL[0], linewidth=2.2, drawstyle="steps-mid", zorder=3)
    broken = [(place, high) for place, (_, high) in enumerate(ends) if high < inf]
    axes.plot(*zip(*broken, strict=True) if broken else ((), ()), "o", color=WARM[0], markersize=3, zorder=4)
    axes.set_xlim(-0.5, max(len(ends) - 0.5, 0.5))
    axes.set_ylim(0, top)
    axes.locator_params(axis="x", integer=True)
    axes.grid(axis="y", color=GRID, linewidth=0.8, zorder=0)
    title = f"Radii of {plain(recorded.model)} on {plain(recorded.data)}" if heading else ""
    canvas.caption(axes, "samples, sorted", f"radius ({norm_name(recorded.norm)})", title)
    return figure
