"""Work in processes of their own, under limits of time and memory that hold whatever the work does.

Each process does one task after another; one that overruns its time, outgrows its memory or dies is killed with all
that it started, and replaced. No process outlives the run: each dies with its parent, even if that is killed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import inf
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from assay.verify.support.processes import POLL, check_system, death, die_with_other_end, kill_group, resident

GRACE = 1.5  # seconds that a task may take beyond its own
STARTING = 120.0  # seconds that a process may take to start
ATTEMPTS = 2  # at a task whose process dies: the reason may lie outside of the task
READY = "ready"


class Fate(StrEnum):
    """How a task ended."""

    REPLIED = "replied"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    DIED = "died"


@dataclass(frozen=True)
class Task:
    """What the function is applied to, and the wall-clock seconds that it may take; ``tag`` is the caller's own."""

    argument: Any
    seconds: float
    tag: Any = None
    attempt: int = 1


@dataclass(frozen=True)
class Ended:
    """A task that is over, after ``seconds``: with the function's ``reply``, or with a ``detail`` why there is none."""

    task: Task
    fate: Fate
    seconds: float
    reply: Any = None
    detail: str = ""


@dataclass(eq=False)
class Worker:
    """A process, and the task that it was given at ``begun``, or will begin once it is ready."""

    process: BaseProcess
    connection: Connection
    begun: float
    ready: bool = False
    task: Task | None = None

    @property
    def deadline(self) -> float:
        """When it is to be killed, on the monotonic clock."""
        if self.task is None:
            return inf
        return self.begun + (self.task.seconds + GRACE if self.ready else STARTING)

    def give(self, task: Task) -> None:
        """Let it begin ``task``."""
        self.task, self.begun = task, time.monotonic()
        with suppress(OSError):  # it has died: that is noticed soon
            self.connection.send(task.argument)

    def kill(self) -> None:
        """End it at once, with every process that it started."""
        if self.process.pid is not None:
            kill_group(self.process.pid)
        self.process.kill()  # one that has just begun does not lead its group yet
        self.process.join()
        self.connection.close()


@dataclass
class Pool:
    """Up to ``count`` processes that apply ``function``, known by its name, to arguments that can be pickled.

    ``memory``: bytes that one process may hold (looked at on Linux only); ``preload``: modules that all of them share.
    """

    function: Callable[[Any], Any]
    count: int
    memory: float = inf
    preload: Sequence[str] = ()
    workers: list[Worker] = field(default_factory=list, repr=False)

    def run(self, tasks: Iterable[Task]) -> Generator[Ended, None, None]:
        """The tasks as they end; each is taken from ``tasks`` only when there is a process for it.

        To be closed (``contextlib.closing``): whatever happened, no process is left then.
        """
        fresh, again = iter(tasks), deque[Task]()
        try:
            while True:
                while len(self._busy()) < self.count:
                    task = again.popleft() if again else next(fresh, None)
                    if task is None:
                        break
                    self._free().give(task)
                if not self._busy():
                    return
                for ended in self._wait():
                    if ended.fate is Fate.DIED and ended.task.attempt < ATTEMPTS:
                        again.append(replace(ended.task, attempt=ended.task.attempt + 1))
                    else:
                        yield ended
        finally:
            for worker in self.workers:
                worker.kill()
            self.workers.clear()

    def _busy(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.task is not None]

    def _free(self) -> Worker:
        """A process without a task; a new one where there is none."""
        idle = next((worker for worker in self.workers if worker.task is None), None)
        if idle is None:
            idle = start(self.function, self.preload)
            self.workers.append(idle)
        return idle

    def _wait(self) -> list[Ended]:
        """What ended by the next event: a message, a death, a deadline, or too large a memory."""
        busy = self._busy()
        patience = min(worker.deadline for worker in busy) - time.monotonic()
        if self.memory < inf:
            patience = min(patience, POLL)
        wait([end for w in busy for end in (w.connection, w.process.sentinel)], max(0.0, min(patience, STARTING)))
        return [ended for worker in busy if (ended := self._look(worker)) is not None]

    def _look(self, worker: Worker) -> Ended | None:
        """The end of the worker's task, if it is over; what cannot go on is killed."""
        held = resident(worker.process.pid or 0) if self.memory < inf else 0
        if (message := _message(worker)) is not None:
            if not worker.ready:
                worker.ready, worker.begun = True, time.monotonic()
                return None
            (reply,) = message
            return self._end(worker, Fate.REPLIED, reply=reply, keep=held <= self.memory / 2)
        if not worker.process.is_alive():
            return self._end(worker, Fate.DIED, detail=death(worker.process.exitcode or 0))
        if time.monotonic() > worker.deadline:
            return self._end(worker, Fate.TIMEOUT if worker.ready else Fate.DIED, detail="killed at its deadline")
        if held > self.memory:
            return self._end(worker, Fate.MEMORY, detail=f"killed at {held / 2**30:.2f} GiB")
        return None

    def _end(self, worker: Worker, fate: Fate, reply: Any = None, detail: str = "", keep: bool = False) -> Ended:
        assert worker.task is not None
        ended = Ended(worker.task, fate, time.monotonic() - worker.begun, reply, detail)
        worker.task = None
        if not keep:
            worker.kill()
            self.workers.remove(worker)
        return ended


def start(function: Callable[[Any], Any], preload: Sequence[str]) -> Worker:
    """A new process: forked from a server that has imported ``preload`` once for all of them."""
    check_system()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, function))
    process.start()
    theirs.close()
    return Worker(process, ours, time.monotonic())


def _serve(connection: Connection, function: Callable[[Any], Any]) -> None:
    """The life of a worker: a session of its own, in which the terminal's signals do not reach it."""
    os.setsid()
    parent = multiprocessing.parent_process()
    if parent is not None:  # not the server that this one was forked from: that lives on
        die_with_other_end(parent.sentinel)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(2, 1)  # what solvers print is no part of our output
    connection.send(READY)
    with suppress(EOFError, BrokenPipeError):
        while True:
            connection.send((function(connection.recv()),))


def _message(worker: Worker) -> Any:
    """What it has sent, READY or a reply in a tuple; None where there is nothing, or no more."""
    try:
        return worker.connection.recv() if worker.connection.poll() else None
    except (EOFError, ConnectionResetError):
        return None
