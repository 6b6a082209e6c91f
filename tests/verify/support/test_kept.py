"""Tests of verify.support.kept: a thread sees its own, and nothing outlives what it is kept of."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor

from assay.verify.support.kept import Kept


class Thing:
    """Something that can be referred to weakly."""


def test_each_thread_has_its_own_for_as_long_as_the_object_lives() -> None:
    kept, thing = Kept[Thing, int](), Thing()
    kept.of[thing] = 1

    def elsewhere(there: Thing) -> int | None:
        before = kept.of.get(there)
        kept.of[there] = 2
        return before

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(elsewhere, thing).result() is None
    assert kept.of[thing] == 1
    del thing
    gc.collect()
    assert len(kept.of) == 0
