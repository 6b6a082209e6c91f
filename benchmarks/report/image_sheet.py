"""A sheet of adversarial images: the image, what became of it, and the difference, side by side."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from assay.benchmarks.harness.attacked import Attacked, Found
from assay.verify.support.files import write_atomic
from assay.verify.support.plain import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACROSS, DOWN = 2, 5
INK = "#222222"


def draw(attacked: Attacked, path: Path) -> bool:
    """Write the sheet to ``path`` as PNG, whole or not at all; False where the samples are no images."""
    if picture(attacked.data.x[0]) is None:
        return False
    buffer = io.BytesIO()
    plot(attacked).savefig(buffer, format="png", facecolor="white", metadata={"Software": "assay"})
    write_atomic(path, buffer.getvalue())
    return True


def plot(attacked: Attacked) -> Figure:
    """The first samples that were broken, each at the smallest radius, by the attack that came nearest."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    chosen = examples(attacked)
    rows = max(1, -(-len(chosen) // ACROSS))
    figure = Figure(figsize=(3.3 * ACROSS + 0.4, 1.35 * rows + 0.6), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, 3 * ACROSS, squeeze=False)
    for panel in axes.flat:
        panel.set_axis_off()
    for place, (i, level, outcome) in enumerate(chosen):
        clean, point = attacked.data.x[i], outcome.adversarial[level, i]
        step = point - clean
        reach = float(step.abs().max()) or 1.0
        titles = (
            f"label {int(attacked.data.y[i])}",
            f"{plain(outcome.name)}, eps {attacked.radii[level]:g}",
            f"\u00b1{reach:.2g}",
        )
        for part, (image, title) in enumerate(zip((clean, point, 0.5 + step / (2 * reach)), titles, strict=True)):
            shown, panel = picture(image), axes[place // ACROSS][3 * (place % ACROSS) + part]
            assert shown is not None
            low, high = (0.0, 1.0) if part == 2 else attacked.data.domain
            colours = "RdBu_r" if part == 2 else "gray"
            panel.imshow(shown.numpy(), cmap=colours, vmin=low, vmax=high, interpolation="nearest")
            panel.set_title(title, fontsize=7, color=INK, pad=3, parse_math=False)
    heading = f"{plain(attacked.model)} on {plain(attacked.data.name)}: image, adversarial image, difference"
    figure.suptitle(heading, fontsize=9, color=INK, parse_math=False)
    return figure


def examples(attacked: Attacked) -> list[tuple[int, int, Found]]:
    """Sample, position of the radius and attack of what the sheet shows: rightly classified samples first broken."""
    chosen = []
    for i in attacked.right.nonzero()[:, 0].tolist():
        breaking = [one for one in attacked.found if bool(one.success[:, i].any())]
        if breaking:
            nearest = min(breaking, key=lambda each: float(each.distance[i]))
            chosen.append((i, int(nearest.success[:, i].to(torch.uint8).argmax()), nearest))
    return chosen[: ACROSS * DOWN]


def picture(x: Tensor) -> Tensor | None:
    """One sample as matplotlib takes it, (height x width) or (height x width x 3); None where it is no image."""
    if x.dim() == 2:
        return x
    if x.dim() == 3 and x.shape[0] == 1:
        return x[0]
    return x.permute(1, 2, 0) if x.dim() == 3 and x.shape[0] == 3 else None
