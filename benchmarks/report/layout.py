"""Tables that survive a narrow terminal: names fold, figures stay whole, and the least needed columns go first."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

NAME = 11  # characters of a name, at the least, before it is folded
TEXT = 32  # of a sentence, before it is broken


def grid(*columns: Column | str, title: str = "") -> Table:
    """An empty table in the one style of all of them."""
    heading = Text(title, "bold") if title else None
    return Table(
        *columns, title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )


def figure(header: str) -> Column:
    """A column of figures, which are never cut nor broken."""
    return Column(header, justify="right", no_wrap=True)


def name(header: str = "", least: int = NAME) -> Column:
    """A column of names, which fold where they must, after ``least`` characters."""
    return Column(header, overflow="fold", min_width=least)


def word(header: str) -> Column:
    """A column of single words."""
    return Column(header, no_wrap=True)


def text(header: str) -> Column:
    """A column of sentences, which takes what room there is."""
    return Column(header, min_width=TEXT)


def show(table: Table, console: Console, spare: Sequence[str] = ()) -> None:
    """Print the table. Where it is too wide, it goes without the columns headed ``spare``, one after the other, as far
    as needed; what is too wide even so is printed whole, for the terminal to break: nothing is cut off.

    Columns that are not to be wrapped keep the width of their content, others at least their ``min_width``.
    """
    for header in spare:
        if _needed(table) > console.width:
            table = _without(header, table)
    for column in table.columns:
        column.min_width = _least(column)
    if _needed(table) > console.width:
        table.width = _needed(table)
    console.print(table, crop=False)


def _without(header: str, table: Table) -> Table:
    """The table but for one column."""
    kept = [column for column in table.columns if column.header != header]
    rest = grid(*(column.copy() for column in kept))
    rest.title = table.title
    for row, cells in zip(table.rows, zip(*(column.cells for column in kept), strict=True), strict=True):
        rest.add_row(*cells, style=row.style, end_section=row.end_section)
    return rest


def _needed(table: Table) -> int:
    """The least width at which every column has what it asks for, apart by two."""
    return sum(map(_least, table.columns)) + 2 * len(table.columns)


def _least(column: Column) -> int:
    """Characters that a column needs: those of its longest line, or of its longest word where it is wrapped."""
    if column.no_wrap:
        return max(_longest(str(cell), "\n") for cell in (column.header, *column.cells))
    words = (column.header, *column.cells) if column.overflow != "fold" else (column.header,)
    return max(column.min_width or 0, *(_longest(str(cell)) for cell in words))


def _longest(text: str, between: str | None = None) -> int:
    return max((cell_len(part) for part in text.split(between)), default=0)
