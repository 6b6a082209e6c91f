"""Work in this process, one task after another, when it is asked what ended."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf

from assay.verify.support.executors import Ended, Executor, Fate, Job, Task
from assay.verify.support.failures import explained


@dataclass(eq=False)
class Inline:
    """See :class:`assay.verify.support.executors.Executor`. Nothing here can be ended: functions keep time
    themselves."""

    job: Job
    capacity: int = 1
    waiting: deque[Task] = field(default_factory=deque)

    def ready(self, seconds: float = 0.0) -> bool:
        """Always."""
        return True

    def submit(self, task: Task) -> None:
        """Let it wait."""
        self.waiting.append(task)

    def ended(self, seconds: float = inf) -> list[Ended]:
        """The next one, done now."""
        if not self.waiting:
            return []
        task, begun = self.waiting.popleft(), time.monotonic()
        try:
            reply = self.job.function(self.job.ground, task.argument)
        except Exception as error:
            return [Ended(task, Fate.RAISED, time.monotonic() - begun, error=explained(error))]
        return [Ended(task, Fate.REPLIED, time.monotonic() - begun, reply)]

    def cancel(self, task: Task) -> None:
        """Forget it."""
        self.waiting.remove(task)

    def close(self) -> None:
        """Forget whatever waits."""
        self.waiting.clear()


@contextmanager
def here(job: Job) -> Iterator[Executor]:
    """An executor in this process."""
    yield Inline(job)
