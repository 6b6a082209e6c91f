"""The one look of all plots: an empty figure, axes without boxes, labels beside the ends of lines, and files."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.benchmarks.report.colours import DEEPER, GRID, INK, SOFT
from assay.verify.support.files import write_atomic
from assay.verify.support.plain import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Size = tuple[float, float]  # inches
WIDE: Size = (8.0, 4.8)
NARROW: Size = (4.5, 4.4)
LETTERS = 10.5  # points
LABEL_GAP = 0.052  # of the height of the axes, between labels


def blank(size: Size = WIDE) -> tuple[Figure, Any]:
    """A figure on matplotlib's Agg canvas, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(SOFT)
    axes.tick_params(which="both", length=0, labelsize=LETTERS - 0.5, colors=SOFT)
    axes.set_axisbelow(True)
    return figure, axes


def caption(axes: Any, across: str, up: str, heading: str = "") -> None:
    """What the axes show, and a heading unless it stands elsewhere; ``across`` is our own and may hold mathtext."""
    axes.set_xlabel(across, fontsize=LETTERS, color=SOFT)
    axes.set_ylabel(up, fontsize=LETTERS, color=SOFT, parse_math=False)
    if heading:
        style = {"fontsize": 12.5, "fontweight": "bold", "color": INK, "pad": 12}
        axes.set_title(plain_lines(heading), loc="left", parse_math=False, **style)


def shares(axes: Any) -> None:
    """An upward axis from 0 to 100%."""
    axes.set_ylim(0, 1.02)
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(axis="y", color=GRID, linewidth=0.8, zorder=0)


def label(axes: Any, right: float, ends: Sequence[tuple[float, str, str]], bold: Sequence[bool] = ()) -> None:
    """Names, safe for print, beside the ends (height, text, colour) of lines at ``right``, moved apart where they would
    touch, each with a thin line to its own. ``bold``: which of them stand out."""
    low, high = axes.get_ylim()
    places = spread([(height - low) / (high - low) for height, _, _ in ends], LABEL_GAP)
    for position, ((height, text, colour), place) in enumerate(zip(ends, places, strict=True)):
        axes.annotate(
            text,
            (right, height),
            (1.03, place),
            textcoords="axes fraction",
            color=DEEPER.get(colour, colour),
            parse_math=False,
            va="center",
            fontsize=LETTERS,
            fontweight="bold" if position < len(bold) and bold[position] else "normal",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.7,
                "alpha": 0.6,
                "shrinkA": 2,
                "shrinkB": 4,
                "relpos": (0, 0.5),
            },
        )


def short(name: str, size: Size) -> str:
    """A name, safe for print, that leaves a drawing of that size its room: the tables have it in full.

    >>> short("alpha-crown(steps=50,output=3)", NARROW), short("ibp", NARROW)
    ('alpha-crown(s…', 'ibp')
    """
    most = round(4 * size[0]) if size[0] >= WIDE[0] else 14
    clean = plain(name)
    return clean if len(clean) <= most else f"{clean[: most - 1]}…"


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


def plain_lines(text: str) -> str:
    """Safe for print, line by line."""
    return "\n".join(map(plain, text.split("\n")))


def save(figure: Figure, path: Path) -> None:
    """Write the picture to ``path``, whole or not at all: PNG, SVG or PDF by its ending."""
    kind = path.suffix.removeprefix(".")
    # Nothing in the file says when it was made: equal pictures are equal files.
    facts = {"png": {"Software": "assay"}, "svg": {"Date": None, "Creator": "assay"}, "pdf": {"CreationDate": None}}
    style = {"svg.hashsalt": "assay", "pdf.fonttype": 42}
    write_atomic(path, drawn(figure, style, {"format": kind, "facecolor": "white", "metadata": facts[kind]}))


def drawn(figure: Figure, style: Any, how: Mapping[str, Any]) -> bytes:
    """What ``savefig(..., **how)`` writes under some of matplotlib's settings. Letters that its font lacks are drawn
    as boxes, which is no reason to complain of a name."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from")
        figure.savefig(buffer, **how)
    return buffer.getvalue()
