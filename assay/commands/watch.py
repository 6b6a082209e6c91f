"""``assay watch``: how far a run is that writes to a store in another terminal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.checks import positive
from assay.verify.core.errors import InputError
from assay.verify.support.plain import plain

if TYPE_CHECKING:
    from rich.console import RenderableType

    from assay.benchmarks.harness.watching import Sight


def watch(
    store: Annotated[
        Path, typer.Argument(metavar="STORE", help="results.sqlite of compare, or bench.sqlite of bench.")
    ],
    once: Annotated[bool, typer.Option("--once", help="Look once, whether the run goes on or not.")] = False,
    every: Annotated[float, typer.Option(help="Seconds between two looks.")] = 2.0,
    run: Annotated[int | None, typer.Option(help="Number of the run in the store; the last if not given.")] = None,
) -> None:
    """Show how far a run is, and both jaws so far, until it ends; the store is only read."""
    positive("--every", every, "seconds")
    if not store.is_file():
        raise InputError(f"expected the store of a run, there is no file {str(store)!r}")

    from contextlib import nullcontext

    from rich.console import Console
    from rich.live import Live

    from assay.benchmarks.harness.records.store import Store
    from assay.benchmarks.harness.watching import look
    from assay.verify.support.signals import interruptible

    console = Console()
    live = None if once or not console.is_terminal else Live(console=console, auto_refresh=False)
    said = ""
    with interruptible(), Store(store, read_only=True) as opened, live or nullcontext():
        while True:
            sight = look(opened, run)
            ends = once or sight.ended
            if live is not None:
                live.update(shown(sight), refresh=True)
            elif ends:
                console.print(shown(sight))
            elif (now := state(sight)) != said:
                print(now, flush=True)
                said = now
            if ends:
                return
            time.sleep(every)


def state(sight: Sight) -> str:
    """One line: how much is done, what was said, and how long the rest will take."""
    from assay.benchmarks.harness.progress import clock

    share = f" of {sight.total} ({sight.done / sight.total:.0%})" if sight.total else ""
    counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(sight.counts.items()))
    rest = "ended" if sight.ended else f"about {clock(sight.left)} left"
    alarms = f"; SOUNDNESS ALARMS: {sight.alarms}" if sight.alarms else ""
    return f"run {sight.run}: {sight.done}{share} in {clock(sight.elapsed)}, {rest}; {counts or 'nothing yet'}{alarms}"


def shown(sight: Sight) -> RenderableType:
    """The line under the command, and the tables so far."""
    from rich.console import Group
    from rich.text import Text

    from assay.benchmarks.report import radius_tables, tables

    parts: list[RenderableType] = [Text(plain(sight.command), "dim"), Text(state(sight))]
    if sight.rows:
        parts.append(tables.table(sight))
    if sight.spreads:
        parts.append(radius_tables.spread_table(sight, sight.spreads))
    return Group(*parts)
