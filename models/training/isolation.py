"""A context in which torch computes reproducibly: one thread and a given seed, both restored after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Run the body on one thread with torch's global generator at ``seed``; the caller's state comes back after.

    The order of floating-point sums depends on the number of threads, hence one: the result then does not depend
    on the machine's load or settings.
    """
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
