"""Where work runs: in this process, in processes of this machine, or on a cluster. Who gives it out knows only this."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf
from typing import Any, Protocol

from assay.verify.core.errors import AssayError, InputError, InternalError, ResourceError
from assay.verify.support.executors.packing import dumps


class Fate(StrEnum):
    """How a task ended."""

    REPLIED = "replied"
    RAISED = "raised"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    DIED = "died"
    GONE = "gone"  # with the machine that it ran on


# At a task whose process dies, since the reason may lie outside of it, and at one whose machine is lost, where it does.
ATTEMPTS = {Fate.DIED: 2, Fate.GONE: 8}


@dataclass(frozen=True)
class Job:
    """What the tasks have in common: a ``function`` of the ``ground``, which goes once to each process, and of a task's
    own argument. The function is known by its name, all else is pickled; ``preload``: modules that processes share."""

    function: Callable[[Any, Any], Any]
    ground: Any = None
    preload: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Task:
    """The argument that the function is applied to, and the wall-clock seconds that it may take; ``tag`` is the
    caller's own, and stays here; ``spent``: seconds of the attempts before this one."""

    argument: Any
    seconds: float = inf
    tag: Any = None
    attempt: int = 1
    spent: float = 0.0


@dataclass(frozen=True, eq=False)
class Ended:
    """A task that is over, after ``seconds`` in all attempts: with the function's ``reply``, with the ``error`` that it
    raised, or with a ``detail`` why there is neither."""

    task: Task
    fate: Fate
    seconds: float
    reply: Any = None
    error: AssayError | None = None
    detail: str = ""

    @property
    def outside(self) -> bool:
        """Whether its process was ended for want of memory, by us or, most likely, by the system."""
        return self.fate is Fate.MEMORY or "SIGKILL" in self.detail

    @property
    def lost(self) -> bool:
        """Whether the process was lost with the task: it died, with its machine or alone, or was ended at a limit."""
        return self.fate in (Fate.TIMEOUT, Fate.MEMORY, Fate.DIED, Fate.GONE)

    def failure(self, what: str = "a task") -> AssayError:
        """Why there is no reply to ``what``: the error, :class:`ResourceError` where a limit or the system ended the
        task, and :class:`InternalError` where its process died by itself."""
        if self.error is not None:
            return self.error
        if self.fate is Fate.TIMEOUT:
            return ResourceError(f"{what} was ended: {self.detail}")
        if self.outside:
            return ResourceError(
                f"{what} was ended: {self.detail} (most likely memory ran out: take fewer workers or a smaller batch)"
            )
        return InternalError(f"a process ended in the midst of {what}: {self.detail}")

    def value(self, what: str = "a task") -> Any:
        """The reply to ``what``. Raises the :meth:`failure` where there is none."""
        if self.fate is Fate.REPLIED:
            return self.reply
        raise self.failure(what)


class Executor(Protocol):
    """Where the tasks of a job run."""

    @property
    def capacity(self) -> int:
        """How many run at once."""
        ...

    def ready(self, seconds: float = 0.0) -> bool:
        """Whether so many could begin at once, by the end of these ``seconds``; what that takes is begun, where it is
        not."""
        ...

    def submit(self, task: Task) -> None:
        """Have it run; it waits where all is busy."""
        ...

    def ended(self, seconds: float = inf) -> list[Ended]:
        """Those that are over, as soon as there is one, or when the ``seconds`` are over; none where none runs."""
        ...

    def cancel(self, task: Task) -> None:
        """End it, wherever it is; it is not among those that ended."""
        ...

    def close(self) -> None:
        """End whatever runs; no process is left."""
        ...


# How an executor of a job comes to be, and ends with its context.
Hiring = Callable[[Job], AbstractContextManager[Executor]]


def packed(ground: Any) -> bytes:
    """What tasks share, for other processes. Raises :class:`InputError` for what they could not open."""
    try:
        return dumps(ground)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"this cannot be sent to other processes: {error}; name classes and functions at the top of a module that "
            "they can import, or run without workers"
        ) from error


def opened(ground: bytes | memoryview) -> Any:
    """What :func:`packed` made, in another process. Raises :class:`InputError` where a part of it is not known there,
    as a class is not that is written in the script or the notebook that began the run."""
    try:
        return pickle.loads(ground)
    except (AttributeError, ImportError) as error:
        raise InputError(
            f"this cannot be opened by other processes: {error}; move classes and functions out of the script or "
            "notebook into a module that they can import, or run without workers"
        ) from error


def run(
    executor: Executor, tasks: Iterable[Task], afresh: Callable[[Task], Task] | None = None
) -> Generator[Ended, None, None]:
    """The tasks as they end; each is taken from ``tasks`` only when it can run. One whose process dies is tried
    again, and one whose machine is lost more often: ``afresh`` where it depends on when it begins, or with all of its
    own time."""
    fresh, again, running = iter(tasks), deque[Task](), 0
    while True:
        while running < executor.capacity:
            task = again.popleft() if again else next(fresh, None)
            if task is None:
                break
            executor.submit(task)
            running += 1
        if not running:
            return
        for ended in executor.ended():
            running -= 1
            task, spent = ended.task, ended.task.spent + ended.seconds
            if task.attempt < ATTEMPTS.get(ended.fate, 0):
                task = task if afresh is None else afresh(task)
                again.append(replace(task, attempt=task.attempt + 1, spent=spent))
            else:
                yield replace(ended, seconds=spent)


def run_parted(
    executor: Executor, tasks: Iterable[Task], parts: Callable[[Ended], Sequence[Task]]
) -> Generator[Ended, None, None]:
    """The tasks as they end, but of one that is lost with its process its ``parts`` instead, if it has any: what a part
    cannot survive costs the others nothing."""
    while True:
        again: list[Task] = []
        for ended in run(executor, tasks):
            of = parts(ended) if ended.lost else ()
            again += of
            if not of:
                yield ended
        if not again:
            return
        tasks = again
