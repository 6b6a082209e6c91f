"""What the commands say of the store that they work on, on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING

from assay.verify.support.plain import counted, plain

if TYPE_CHECKING:
    from assay.benchmarks.harness.lost import Lost
    from assay.benchmarks.harness.records.store import Store
    from assay.models.data import Dataset
    from assay.written import Written


@contextmanager
def hint(store: Store) -> Iterator[None]:
    """Says how to go on after an interrupt, a want of memory or a fault of ours."""
    from assay.verify.core.errors import InternalError, ResourceError

    try:
        yield
    except (KeyboardInterrupt, InternalError, ResourceError):
        print(f"assay: what was finished is in {plain(store.path)}; --resume goes on from there", file=sys.stderr)
        raise


def survey(store: Store, resume: bool) -> None:
    """Moves unreadable rows out of the way, and says so; says what cannot be resumed."""
    for fault in store.quarantine():
        print(f"assay: {plain(store.path)}: moved to its table quarantine: {plain(fault)}", file=sys.stderr)
    if resume and (strangers := store.strangers()):
        what = f"{counted(strangers, 'row')} by another version of assay: kept, but not used"
        print(f"assay: {plain(store.path)}: {what}", file=sys.stderr)


def lost(questions: Sequence[Lost]) -> int:
    """Says which questions no process survived; the exit code of the worst of them, 0 where there is none."""
    for each in questions:
        print(f"assay: {plain(each.why)}", file=sys.stderr)
    return max((each.exit_code for each in questions), default=0)


def wide(radii: Sequence[Written], norm: float, samples: Dataset) -> None:
    """Says which linf ball holds every legal input: most likely its radius is in other units than the data."""
    low, high = samples.domain
    for eps in (eps for eps in radii if norm == inf and _covers(samples, eps)):
        meant = f"{eps:g}/255" if f"{eps:g}".isdecimal() else "8/255"
        what = f"eps {eps:g} is at least the width of the domain, {low:g} to {high:g}: every legal input is within it"
        print(f"assay: warning: {what} (may {meant} be meant?)", file=sys.stderr)


def _covers(samples: Dataset, eps: float) -> bool:
    """Whether a ball of this radius holds every legal input."""
    import torch

    low, high = (torch.as_tensor(end, dtype=torch.float64) for end in samples.legal)
    return bool((torch.as_tensor(samples.radius(eps), dtype=torch.float64) >= high - low).all())
