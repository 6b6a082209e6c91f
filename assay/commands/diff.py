"""``assay diff``: sample by sample, or instance by instance, what changed from one run to another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay import options
from assay.verify.core.errors import AlarmError, InputError

if TYPE_CHECKING:
    from rich.console import Console

    from assay.benchmarks.harness.changes import Changes
    from assay.benchmarks.report.instance_changes import Turns


def diff(
    before: Annotated[
        Path, typer.Argument(metavar="BEFORE", help="results.sqlite of the earlier comparison, or bench.sqlite.")
    ],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="results.sqlite of the later one.")],
    json_: options.Json = False,
) -> None:
    """Tell which samples, or instances of bench, are answered otherwise in one run than in the other."""
    for path in (before, after):
        if not path.is_file():
            raise InputError(f"expected the store of a run, there is no file {str(path)!r}")

    from rich.console import Console

    from assay.benchmarks.harness import changes
    from assay.benchmarks.harness.records import recorded
    from assay.benchmarks.harness.records.store import Store
    from assay.benchmarks.report import instance_changes, instances_run
    from assay.verify.support.documents import dump

    found: Changes | Turns
    with Store(before) as one, Store(after) as other:
        kinds = [recorded.compared(store) for store in (one, other)]
        if kinds[0] != kinds[1]:
            raise InputError("one store is of compare and the other of bench: expected two of a kind")
        if kinds[0]:
            found = changes.between(recorded.read(one), recorded.read(other))
        else:
            found = instance_changes.between(instances_run.read(one), instances_run.read(other))
    if json_:
        print(dump(found.to_json()))
    elif isinstance(found, instance_changes.Turns):
        show_turns(found, Console())
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
    label = dict(zip(found.radii, found.written, strict=True))
    for change in found.changes:
        style = "green" if change.better else "red"
        said = (change.before, Text(change.after, style), Text(", ".join(map(plain, change.by))))
        grid.add_row(label[change.eps], str(change.sample), *said)
    if found.changes:
        layout.show(grid, console, ("by",))
    for eps in found.radii:
        here = [change for change in found.changes if change.eps == eps]
        better = sum(change.better for change in here)
        line = f"eps {label[eps]}: {better} better, {len(here) - better} worse, of {counted(found.n, 'sample')}"
        console.print(line, markup=False, highlight=False)
    for line in found.contradictions:
        console.print(Text(f"SOUNDNESS ALARM: {plain(line)}", "bold red"))


def show_turns(found: Turns, console: Console) -> None:
    """Print the instances that are answered otherwise, and how many there are."""
    from rich.text import Text

    from assay.benchmarks.report import layout
    from assay.verify.support.plain import counted, plain

    columns = (layout.name("instance"), *map(layout.word, ("before", "after")), layout.figure("seconds"))
    grid = layout.grid(*columns)
    for turn in found.changes:
        style = "green" if turn.better else "red"
        spent = "{:.2f}, {:.2f}".format(*turn.seconds)
        grid.add_row(Text(plain(" ".join(turn.name))), turn.before, Text(turn.after, style), spent)
    if found.changes:
        layout.show(grid, console, ("seconds",))
    better = sum(turn.better for turn in found.changes)
    worse = sum(turn.before in ("sat", "unsat") for turn in found.changes)
    line = f"{better} decided now that were open, {worse} no longer as they were decided"
    line = f"{line}, of {counted(found.n, 'instance')}"
    console.print(line, markup=False, highlight=False)
    for said in found.contradictions:
        console.print(Text(f"CONTRADICTION: {plain(said)}", "bold red"))
