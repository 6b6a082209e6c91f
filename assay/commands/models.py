"""``assay models``: the zoo, from its cards."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer


def models(
    json_: Annotated[bool, typer.Option("--json", help="Print the cards as one JSON document.")] = False,
) -> None:
    """List the trained networks that come with assay."""
    from assay.benchmarks.report.tables import dump
    from assay.models import zoo

    cards = [zoo.card(name) for name in zoo.names()]
    if json_:
        print(dump({"models": [{"model": f"zoo:{card.name}", **asdict(card)} for card in cards]}))
        return

    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("model", no_wrap=True)
    table.add_column("data", no_wrap=True)
    for column in ("clean", "eps", "certified", "PGD"):
        table.add_column(column, justify="right")
    for card in cards:
        what = Text(f"zoo:{card.name}", "bold")
        lines = [(f"{at.eps:g}", f"{max(at.ibp, at.crown):.1%}", f"{at.pgd:.1%}") for at in card.robustness]
        columns = ("\n".join(column) for column in zip(*lines, strict=True))
        table.add_row(what, Text(card.data), f"{card.clean_accuracy:.1%}", *columns, end_section=True)
    Console().print(table)
    print("`assay models --json` prints the cards: architecture, recipe, and the command that trains it again.")
