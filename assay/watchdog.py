"""The last resort: a thread that ends the process when its time is over or its memory outgrown."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from math import inf
from types import TracebackType

from assay.verify.support.processes import POLL, leave, resident

TIMEOUT, MEMORY = 30, 60


class Watchdog:
    """While the block runs: past ``deadline`` (monotonic clock) or ``memory`` (bytes, looked at on Linux only), calls
    ``last_words`` with an exit code and the reason, and leaves at once with the code that these return.

    Once the block is left it never fires. It needs the interpreter's lock for a moment: work that keeps it for long
    belongs into a process of its own.
    """

    def __init__(self, deadline: float, memory: float, last_words: Callable[[int, str], int]) -> None:
        self.deadline = deadline
        self.memory = memory
        self.last_words = last_words
        self._over = threading.Event()
        self._turn = threading.Lock()  # who holds it speaks: the thread to the end of the process, or the block's owner

    def __enter__(self) -> None:
        if min(self.deadline, self.memory) < inf:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._turn:
            self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(self._patience()):
            held = resident(os.getpid()) if self.memory < inf else 0
            if time.monotonic() >= self.deadline:
                self._leave(TIMEOUT, "it did not come back in time")
            elif held > self.memory:
                self._leave(MEMORY, f"it held {held / 2**30:.2f} GiB, {self.memory / 2**30:g} GiB are allowed")

    def _patience(self) -> float:
        left = max(0.0, self.deadline - time.monotonic())
        return min(left, POLL if self.memory < inf else threading.TIMEOUT_MAX)

    def _leave(self, code: int, why: str) -> None:
        with self._turn:
            if not self._over.is_set():
                try:
                    code = self.last_words(code, why)
                finally:
                    leave(code)
