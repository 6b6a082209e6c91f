"""What the commands say of the store that they work on, on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from assay.verify.support.plain import plain

if TYPE_CHECKING:
    from assay.benchmarks.harness.store import Store


@contextmanager
def hint(store: Store) -> Iterator[None]:
    """Says, on an interrupt, how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"assay: what was finished is in {plain(store.path)}; --resume goes on from there", file=sys.stderr)
        raise


def survey(store: Store, resume: bool) -> None:
    """Moves unreadable rows out of the way, and says so; says what cannot be resumed."""
    for fault in store.quarantine():
        print(f"assay: {plain(store.path)}: moved to its table quarantine: {plain(fault)}", file=sys.stderr)
    if resume and (strangers := store.strangers()):
        what = f"{strangers} rows were decided by another version of assay: they are kept, but not used"
        print(f"assay: {plain(store.path)}: {what}", file=sys.stderr)
