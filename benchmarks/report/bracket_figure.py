"""Both jaws against eps: attacks from above, certificates from below, robust accuracy in the gap between them."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from assay.benchmarks.harness.bracket import ALL_ATTACKS, ALL_METHODS, Bracketed, Role, Row
from assay.benchmarks.report import canvas
from assay.benchmarks.report.colours import COOL, FAINT, GAP, INK, PAPER, WARM
from assay.verify.core.norms import PERTURBATION
from assay.verify.support.plain import counted, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

JAWS = (ALL_ATTACKS, ALL_METHODS)
MARKERS = ("o", "s", "^", "D", "v", "P")
SHADED = "shaded: where robust accuracy lies, between what is certified and what attacks leave"


def draw(comparison: Bracketed, path: Path) -> None:
    """Write the picture to ``path`` as PNG, whole or not at all."""
    canvas.save(plot(comparison), path)


def plot(comparison: Bracketed, size: canvas.Size = canvas.WIDE, heading: bool = True) -> Figure:
    """The picture, of those who could run; what speaks of other subjects is left out. Thin bands are the exact 95%
    intervals of the jaws. Without a ``heading`` the names of model and data, and what is shaded, stand elsewhere."""
    rows = [row for row in comparison.rows if row.subject == "network" and (row.name in JAWS or not row.refusal)]
    clean, others = rows[0], rows[1:]
    names = {role: list(dict.fromkeys(row.name for row in others if row.role is role)) for role in Role}
    upper, lower = (_line(others, name, clean) for name in JAWS)

    figure, axes = canvas.blank(size)
    canvas.shares(axes)
    axes.fill_between(upper[0], lower[1], upper[1], color=GAP, linewidth=0, zorder=1)
    for name, colour in zip(JAWS, (WARM[0], COOL[0]), strict=True):
        x, low, high = _band(others, name, clean)
        axes.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0, zorder=1.5)
    axes.axhline(clean.accuracy, color=FAINT, linewidth=1.4, linestyle=(0, (5, 3)), zorder=2)
    ends = [(clean.accuracy, f"clean  {clean.accuracy:.1%}", FAINT)]
    for role, palette, jaw in ((Role.ATTACK, WARM, ALL_ATTACKS), (Role.METHOD, COOL, ALL_METHODS)):
        for position, name in enumerate(name for name in names[role] if name != jaw):
            colour = palette[position % len(palette)]
            x, y = _line(others, name, clean)
            axes.plot(
                x,
                y,
                color=colour,
                linewidth=2.0,
                marker=MARKERS[position % len(MARKERS)],
                markersize=6.5,
                markeredgecolor=PAPER,
                markeredgewidth=1.0,
                markevery=slice(1, None) if x[0] == 0 and len(x) > 1 else None,
                clip_on=False,
                zorder=4,
            )
            ends.append((y[-1], f"{canvas.short(name, size)}  {y[-1]:.1%}", colour))
    for x, y in (upper, lower):
        axes.plot(x, y, color=INK, linewidth=0.9, alpha=0.55, zorder=3)

    right = max(upper[0]) or 1.0
    axes.set_xlim(0, right * 1.01)
    axes.set_xticks(sorted({0.0, *upper[0]}))
    axes.set_xticklabels([f"{tick:g}" for tick in sorted({0.0, *upper[0]})])
    canvas.label(axes, right, ends)
    norm = {1.0: r"$\ell_1$", 2.0: r"$\ell_2$", inf: r"$\ell_\infty$"}.get(comparison.norm, comparison.threat)
    across = f"radius \u03b5 of the {norm} ball" if heading else f"radius \u03b5 ({comparison.threat})"
    if comparison.norm == PERTURBATION:
        across = f"share of {plain(comparison.threat)}"
    title = f"{plain(comparison.model)} on {plain(comparison.data)}, {counted(comparison.n, 'sample')}"
    canvas.caption(axes, f"{across}\n{SHADED}" if heading else across, "accuracy", title if heading else "")
    return figure


def _line(rows: Sequence[Row], name: str, clean: Row) -> tuple[list[float], list[float]]:
    """Accuracy against eps; at radius 0 both jaws meet at the clean accuracy."""
    points = {0.0: clean.accuracy} | {row.eps: row.accuracy for row in rows if row.name == name}
    return sorted(points), [points[eps] for eps in sorted(points)]


def _band(rows: Sequence[Row], name: str, clean: Row) -> tuple[list[float], list[float], list[float]]:
    """The exact interval of the accuracy against eps."""
    points = {0.0: clean.interval} | {row.eps: row.interval for row in rows if row.name == name}
    radii = sorted(points)
    return radii, [points[eps][0] for eps in radii], [points[eps][1] for eps in radii]
