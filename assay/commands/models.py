"""``assay models``: the zoo, from its cards."""

from __future__ import annotations

from dataclasses import asdict

from assay import options


def models(json_: options.Json = False) -> None:
    """List the trained networks that come with assay."""
    from assay.benchmarks.report.tables import dump
    from assay.models import zoo

    cards = [zoo.card(name) for name in zoo.names()]
    if json_:
        print(dump({"models": [{"model": f"zoo:{card.name}", **asdict(card)} for card in cards]}))
        return

    from rich.console import Console
    from rich.text import Text

    from assay.benchmarks.report import layout

    figures = map(layout.figure, ("clean", "eps", "certified", "PGD"))
    table = layout.grid(layout.word("model"), layout.word("data"), *figures)
    for card in cards:
        what = Text(f"zoo:{card.name}", "bold")
        lines = [(f"{at.eps:g}", f"{max(at.ibp, at.crown):.1%}", f"{at.pgd:.1%}") for at in card.robustness]
        columns = ("\n".join(column) for column in zip(*lines, strict=True))
        table.add_row(what, Text(card.data), f"{card.clean_accuracy:.1%}", *columns, end_section=True)
    layout.show(table, Console(), ("data",))
    print("`assay models --json` prints the cards: architecture, recipe, and the command that trains it again.")
