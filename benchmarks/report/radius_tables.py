"""Radii in one table, for people: the spread of every participant, and sample by sample where there are few."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf

from rich.console import Console
from rich.table import Table
from rich.text import Text

from assay.benchmarks.harness.bracket import ALL_ATTACKS, ALL_METHODS, Role, Searched
from assay.benchmarks.harness.radii.radius_table import RadiusTable, Spread
from assay.benchmarks.report import layout
from assay.benchmarks.report.digits import above, below
from assay.verify.core.norms import norm_name
from assay.verify.support.plain import counted, plain

FEW = 20  # samples that a terminal shows one by one
SPARE = ("q90", "q10", "questions", "seconds")


def show(table: RadiusTable, console: Console) -> None:
    """Print the spreads, the samples if they are few, and what the figures alone do not say."""
    layout.show(spread_table(table, table.spreads, table.refused), console, SPARE)
    if table.n <= FEW:
        layout.show(sample_table(table), console, ("label",))
    for line in _notes(table):
        console.print(Text(line, "dim"))
    for alarm in table.alarms:
        console.print(Text(f"SOUNDNESS ALARM: {plain(alarm.explanation)}", "bold red"))


def spread_table(about: Searched, rows: Sequence[Spread], refused: Iterable[str] = ()) -> Table:
    """A row for each participant and jaw: mean, quantiles and tightness."""
    title = f"Radii of {plain(about.model)} on {plain(about.data)}, {norm_name(about.norm)}, "
    headers = ("mean", "q10", "median", "q90", "tightness", "questions", "seconds")
    grid = layout.grid(layout.name(), *map(layout.figure, headers), title=title + counted(about.n, "sample"))
    for row in rows:
        jaw = row.name in (ALL_ATTACKS, ALL_METHODS)
        side, digits = ("\u2264 ", above) if row.role is Role.ATTACK else ("\u2265 ", below)
        figures = [f"{side}{digits(value)}" for value in (row.mean, *row.tenths)]
        tight = "" if row.tightness is None else f"{row.tightness:.1%}"
        spent = ("", "") if jaw else (str(row.asked), f"{row.seconds:.2f}")
        grid.add_row(Text(plain(row.name)), *figures, tight, *spent, style="bold" if jaw else "")
    for name in refused:
        grid.add_row(Text(f"{plain(name)}: unsupported"), *[""] * len(headers))
    return grid


def sample_table(table: RadiusTable) -> Table:
    """A row for each sample, a column for each participant."""
    seats = [seat for seat in table.seats if seat.name not in table.refused]
    named = [layout.name(plain(seat.name)) for seat in seats]
    grid = layout.grid(*map(layout.figure, ("sample", "label")), *named, "")
    for line in table.lines:
        cells = []
        for seat in seats:
            reach = line.reaches.get(seat.name)
            digits, side = (above, "\u2264 ") if seat.role is Role.ATTACK else (below, "\u2265 ")
            found = reach is not None and reach.radius < inf
            cells.append("" if reach is None else f"{side}{digits(reach.radius)}" if found else "none found")
        wrong = f"misclassified as {line.predicted}" if line.predicted != line.label else ""
        grid.add_row(str(line.sample), str(line.label), *cells, "SOUNDNESS ALARM" if line.disputed else wrong)
    return grid


def _notes(table: RadiusTable) -> list[str]:
    notes = []
    if wrong := sum(line.predicted != line.label for line in table.lines):
        notes.append(f"{wrong} of {counted(table.n, 'sample')} misclassified without any attack: radius 0 in all rows.")
    notes += [
        f"{plain(row.name)} found nothing on {counted(row.infinite, 'sample')}: the mean is of the others."
        for row in table.spreads
        if row.infinite and row.name != ALL_ATTACKS
    ]
    notes.append(
        "tightness: of a method, its radius as a share of the least distance of any attack; of an attack, the largest "
        "certified radius as a share of its distance."
    )
    return notes + [f"{plain(name)}: {plain(why)}." for name, why in table.refused.items()]
