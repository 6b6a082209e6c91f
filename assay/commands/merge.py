"""``assay merge``: the stores of several runs, on several machines, as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.verify.core.errors import AlarmError, InputError
from assay.verify.support.plain import counted, plain


def merge(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The store that takes the rows, made if need be.")],
    others: Annotated[list[Path], typer.Argument(metavar="OTHER...", help="Stores, which stay as they are.")],
) -> None:
    """Take the runs and the rows of other stores into one: reports tell of all, and --resume goes on from all."""
    for other in others:
        if not other.is_file():
            raise InputError(f"expected the store of a run, there is no file {str(other)!r}")
        if store.exists() and other.samefile(store):
            raise InputError(f"{str(other)!r} cannot be merged into itself")

    from assay.benchmarks.harness.records import merged
    from assay.benchmarks.harness.records.store import Store

    contradicted = []
    with Store(store) as opened:
        for other in others:
            with Store(other, read_only=True) as read:
                contradicted += merged.merge(opened, read)
        rows, runs = opened.size, opened.runs()
    print(f"{plain(store)} holds {counted(len(runs), 'run')} and {counted(rows, 'row')}")
    if runs and not rows:
        print("Nobody was asked anything: every sample was misclassified without an attack, or a run was ended before.")
    if contradicted:
        told = ", ".join(sorted({f"{record.key.problem[:16]} by {record.key.method}" for record in contradicted})[:5])
        raise AlarmError(f"stores contradict each other in {counted(len(contradicted), 'row')}: {told}")
