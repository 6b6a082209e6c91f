"""``assay diff``: sample by sample what changed from one comparison to another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay import options
from assay.verify.core.errors import AlarmError, InputError

if TYPE_CHECKING:
    from rich.console import Console

    from assay.benchmarks.harness.changes import Changes


def diff(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="results.sqlite of the earlier comparison.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="results.sqlite of the later one.")],
    json_: options.Json = False,
) -> None:
    """Tell which samples were broken, certified or left open in one run and not in the other."""
    for path in (before, after):
        if not path.is_file():
            raise InputError(f"expected the store of a run, there is no file {str(path)!r}")

    from rich.console import Console

    from assay.benchmarks.harness import changes, recorded
    from assay.benchmarks.harness.store import Store
    from assay.verify.support.documents import dump

    with Store(before) as one, Store(after) as other:
        found = changes.between(recorded.read(one), recorded.read(other))
    if json_:
        print(dump(found.to_json()))
    else:
        show(found, Console())
    if found.contradictions:
        raise AlarmError(f"soundness alarm: {found.contradictions[0]}")


def show(found: Changes, console: Console) -> None:
    """Print the changes as a table, worse ones in red, and how many there are at each radius."""
    from rich.text import Text

    from assay.benchmarks.report import layout
    from assay.verify.support.plain import counted, plain

    grid = layout.grid(
        *map(layout.figure, ("eps", "sample")), *map(layout.word, ("before", "after")), layout.name("by")
    )
    for change in found.changes:
        style = "green" if change.better else "red"
        said = (change.before, Text(change.after, style), Text(", ".join(map(plain, change.by))))
        grid.add_row(f"{change.eps:g}", str(change.sample), *said)
    if found.changes:
        layout.show(grid, console, ("by",))
    for eps in found.radii:
        here = [change for change in found.changes if change.eps == eps]
        better = sum(change.better for change in here)
        line = f"eps {eps:g}: {better} better, {len(here) - better} worse, of {counted(found.n, 'sample')}"
        console.print(line, markup=False, highlight=False)
    for line in found.contradictions:
        console.print(Text(f"SOUNDNESS ALARM: {plain(line)}", "bold red"))
