"""What native code prints on standard output, kept out of ours."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()


@contextmanager
def silence() -> Iterator[None]:
    """Inside of the block file descriptor 1 leads nowhere, for the whole process: meant for short native calls."""
    with _lock:
        try:
            kept = os.dup(1)
        except OSError:  # it is closed: there is nothing to keep clean
            yield
            return
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.close(nowhere)
            yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)
