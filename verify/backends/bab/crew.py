"""Processes that take shares of a search. What all shares have in common lies in a file, and is read by each once."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from assay.verify.backends.bab.nodes import Nodes
from assay.verify.backends.bab.shared import Done
from assay.verify.core.budget import Budget
from assay.verify.support.child import Call, begin, first


@dataclass(frozen=True, eq=False)
class Processes:
    """So many ``workers``, each of which calls a ``function`` of the ``path``, its share, and the seconds that are
    left."""

    workers: int
    function: Callable[[str, list[Nodes], float], Done]
    path: str
    budget: Budget

    def begin(self, share: list[Nodes]) -> Call[Done]:
        """See :class:`assay.verify.backends.bab.shared.Crew`."""
        left = self.budget.remaining
        return begin(self.function, (self.path, share, left), left)

    def ended(self, works: Sequence[Call[Done]]) -> list[Call[Done]]:
        """See :class:`assay.verify.backends.bab.shared.Crew`."""
        return first(works, max(0.0, self.budget.remaining))


@contextmanager
def hired(
    function: Callable[[str, list[Nodes], float], Done], ground: Any, workers: int, budget: Budget
) -> Iterator[Processes]:
    """A crew for as long as the context lasts, the ``ground`` of which :func:`opened` gives back."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "ground")
        with open(path, "wb") as file:
            pickle.dump(ground, file)
        yield Processes(workers, function, path, budget)


@lru_cache(maxsize=1)
def opened(path: str) -> Any:
    """What is in a file that :func:`hired` has written."""
    with open(path, "rb") as file:
        return pickle.load(file)
