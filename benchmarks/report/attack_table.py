"""What attacks left standing, as a table for people."""

from __future__ import annotations

from math import isfinite

from rich.console import Console
from rich.table import Table
from rich.text import Text

from assay.benchmarks.harness.attacked import Attacked
from assay.benchmarks.harness.bracket import UNSUPPORTED
from assay.benchmarks.report import layout
from assay.verify.core.norms import norm_name
from assay.verify.support.plain import counted, plain

SPARE = ("seconds", "queries", "distance")  # columns that a narrow terminal does without
NONE = "\u2013"


def show(attacked: Attacked, console: Console) -> None:
    """Print the table, and what it does not say by itself."""
    layout.show(table(attacked), console, SPARE)
    said = "distance: the median over all samples of the nearest breaking point found; queries: the mean"
    console.print(Text(said, "dim"))
    for one in attacked.refused:
        console.print(Text(f"{plain(one.name)}: {UNSUPPORTED}: {plain(one.why)}", "dim"))
    for line in attacked.warnings:
        console.print(Text(f"warning: {plain(line)}", "yellow"))


def table(attacked: Attacked) -> Table:
    """One line for each attack: robust accuracy at every radius, median distance, queries, seconds."""
    data, radii = attacked.data, attacked.radii
    title = f"{plain(attacked.model)} on {plain(data.name)} ({data.split}), {norm_name(attacked.norm)}"
    figures = (*(f"eps {eps:g}" for eps in radii), "distance", "queries", "seconds")
    heading = f"{title}, {counted(len(data), 'sample')}"
    grid = layout.grid(layout.name("robust accuracy"), *map(layout.figure, figures), title=heading)
    clean = f"{float(attacked.right.double().mean()):.1%}"
    grid.add_row("clean", *[clean] * len(radii), "", "", "", end_section=True)
    rows, by_name = attacked.rows(), {each.name: each for each in attacked.found}
    for name in dict.fromkeys(row.name for row in rows):
        mine = [row for row in rows if row.name == name]
        if mine[0].refusal:
            grid.add_row(Text(f"{plain(name)}: {UNSUPPORTED}"), *[NONE] * len(radii), "", "", "")
            continue
        cells = [f"\u2264 {row.accuracy:.1%}" for row in mine]
        own = by_name.get(name)
        median = f"{own.median:.4g}" if own and isfinite(own.median) else "" if own is None else NONE
        queries = f"{float(own.queries.double().mean()):.0f}" if own else ""
        grid.add_row(Text(plain(name)), *cells, median, queries, f"{mine[0].seconds:.2f}", style="" if own else "bold")
    return grid
