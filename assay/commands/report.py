"""``assay report``: what a store holds, as one page to look at, from a comparison or from a run over instances."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.checks import writable_file
from assay.verify.core.errors import InputError
from assay.verify.support.plain import plain

if TYPE_CHECKING:
    from assay.benchmarks.harness.store import Store


def report(
    store: Annotated[
        Path, typer.Argument(metavar="STORE", help="results.sqlite of compare, or bench.sqlite of bench.")
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The page; beside the store, as NAME.html, if not given.")
    ] = None,
    run: Annotated[int | None, typer.Option(help="Number of the run in the store; the last if not given.")] = None,
) -> None:
    """Write one self-contained HTML page about a run: nothing is asked again, and nothing is loaded from elsewhere."""
    if not store.is_file():
        raise InputError(f"expected the store of a run, there is no file {str(store)!r}")
    page = out or store.with_suffix(".html")
    writable_file("--out", page)

    from assay.benchmarks.harness.store import Store

    with Store(store) as opened:
        write(opened, page, run)
    print(f"wrote {plain(page)}")


def write(store: Store, page: Path, run: int | None = None) -> None:
    """The page of a run of the store, the last if no number is given."""
    from assay.benchmarks.harness import recorded
    from assay.verify.support.files import replace_file

    if recorded.compared(store, run):
        from assay.benchmarks.report import comparison_page

        text = comparison_page.render(recorded.read(store, run))
    else:
        from assay.benchmarks.report import instances_page, instances_run

        text = instances_page.render(instances_run.read(store, run))
    replace_file(page, text.encode("utf-8", "replace"))
