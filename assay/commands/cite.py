"""``assay cite``: whom to cite for what was used, in BibTeX."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from assay.verify.core.errors import InputError
from assay.verify.support.plain import plain


def cite(
    names: Annotated[
        str | None, typer.Argument(metavar="[NAMES]", help="Methods and attacks, with commas: crown,autoattack.")
    ] = None,
    store: Annotated[Path | None, typer.Option(help="Or those that a store of compare has records of.")] = None,
) -> None:
    """Print the sources of methods and attacks in BibTeX, each once."""
    if (names is None) == (store is None):
        raise InputError("expected names, such as crown,autoattack, or --store FILE")
    if store is not None and not store.is_file():
        raise InputError(f"expected the store of a run, there is no file {str(store)!r}")

    from assay.benchmarks.harness.records import recorded
    from assay.benchmarks.harness.records.store import Store
    from assay.benchmarks.report import references
    from assay.verify.support.options import split

    if store is not None:
        with Store(store) as opened:
            used = [seat.name for seat in recorded.read(opened).about.seats]
    else:
        used = split(names or "")
    cited, own = references.of(used)
    print("\n\n".join(cited))
    if own:
        print(f"assay: no publication is known of {', '.join(map(plain, own))}", file=sys.stderr)
