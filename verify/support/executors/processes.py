"""Work in processes of their own, under limits of time and memory that hold whatever the work does.

Each process does one task after another; one that overruns its time, outgrows its memory or dies is killed with all
that it started, and replaced. No process outlives the run: each dies with its parent, even if that is killed.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from math import inf
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

from assay.verify.core.errors import AssayError
from assay.verify.support.executors import Ended, Executor, Fate, Hiring, Job, Task, opened, packed
from assay.verify.support.executors.packing import dumps
from assay.verify.support.failures import explained
from assay.verify.support.processes import POLL, check_system, death, die_with_other_end, kill_group, resident

GRACE = 1.5  # seconds that a task may take beyond its own
STARTING = 120.0  # seconds that a process may take to start
READY = "ready"
SERVER = "assay.verify.support.executors.server"  # what the server imports first


@dataclass(eq=False)
class Worker:
    """A process, and the task that it was given at ``begun``, or will begin once it is ready; ``device``: the one
    accelerator that it sees, if it was given one."""

    process: BaseProcess
    connection: Connection
    begun: float
    ready: bool = False
    task: Task | None = None
    device: str | None = None

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
            self.connection.send_bytes(dumps(task.argument))  # send() would share tensors' memory

    def kill(self) -> None:
        """End it at once, with every process that it started."""
        if self.process.pid is not None:
            kill_group(self.process.pid)
        self.process.kill()  # one that has just begun does not lead its group yet
        self.process.join()
        self.connection.close()


@dataclass(eq=False)
class Processes:
    """Up to ``capacity`` processes: see :class:`assay.verify.support.executors.Executor`.

    ``ground``: the file in which what the tasks share is pickled; ``memory``: bytes that one process may hold (looked
    at on Linux only); ``devices``: accelerators, of which each process sees one that no other has. To be closed,
    whatever happened.
    """

    function: Callable[[Any, Any], Any]
    capacity: int
    ground: str | None = None
    memory: float = inf
    preload: Sequence[str] = ()
    devices: Sequence[str] = ()
    workers: list[Worker] = field(default_factory=list, repr=False)
    waiting: deque[Task] = field(default_factory=deque, repr=False)

    def ready(self, seconds: float = 0.0) -> bool:
        """Whether all processes have started, by the end of these ``seconds``; those that are not there yet are
        started."""
        while len(self.workers) < self.capacity:
            self._hire()
        until = time.monotonic() + seconds
        # What a process has sent is read once it has a task.
        return all(w.ready or w.connection.poll(max(0.0, until - time.monotonic())) for w in self.workers)

    def submit(self, task: Task) -> None:
        """Give it to a process without a task, a new one if need be, or let it wait."""
        self.waiting.append(task)
        self._give()

    def ended(self, seconds: float = inf) -> list[Ended]:
        """What ended by the next event, which is a message, a death, a deadline, or too large a memory."""
        until = time.monotonic() + seconds
        while busy := self._busy():
            now = time.monotonic()
            patience = min(until, *(worker.deadline for worker in busy)) - now
            if self.memory < inf:
                patience = min(patience, POLL)
            wait([end for w in busy for end in (w.connection, w.process.sentinel)], max(0.0, min(patience, STARTING)))
            over = [ended for worker in busy if (ended := self._look(worker)) is not None]
            self._give()
            if over or time.monotonic() >= until:
                return over
        return []

    def cancel(self, task: Task) -> None:
        """Kill its process, or forget it."""
        if task in self.waiting:
            self.waiting.remove(task)
        for worker in [each for each in self._busy() if each.task is task]:
            worker.kill()
            self.workers.remove(worker)
        self._give()

    def close(self) -> None:
        """Kill every process."""
        self.waiting.clear()
        for worker in self.workers:
            worker.kill()
        self.workers.clear()

    def _busy(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.task is not None]

    def _give(self) -> None:
        while self.waiting and len(self._busy()) < self.capacity:
            idle = next((worker for worker in self.workers if worker.task is None), None)
            (idle or self._hire()).give(self.waiting.popleft())

    def _hire(self) -> Worker:
        taken = {worker.device for worker in self.workers}
        device = next((each for each in self.devices if each not in taken), None)
        self.workers.append(start(self.function, self.ground, self.preload, device))
        return self.workers[-1]

    def _look(self, worker: Worker) -> Ended | None:
        """The end of the worker's task, if it is over; what cannot go on is killed."""
        held = resident(worker.process.pid or 0) if self.memory < inf else 0
        if (message := _message(worker)) is not None:
            if not worker.ready and message == READY:
                worker.ready, worker.begun = True, time.monotonic()
                return None
            if isinstance(message, AssayError):
                return self._end(worker, Fate.RAISED, error=message, keep=worker.ready)
            (reply,) = message
            return self._end(worker, Fate.REPLIED, reply=reply, keep=held <= self.memory / 2)
        if not worker.process.is_alive():
            return self._end(worker, Fate.DIED, detail=death(worker.process.exitcode or 0))
        if time.monotonic() > worker.deadline:
            return self._end(worker, Fate.TIMEOUT if worker.ready else Fate.DIED, detail="killed at its deadline")
        if held > self.memory:
            return self._end(worker, Fate.MEMORY, detail=f"killed at {held / 2**30:.2f} GiB")
        return None

    def _end(
        self,
        worker: Worker,
        fate: Fate,
        reply: Any = None,
        error: AssayError | None = None,
        detail: str = "",
        keep: bool = False,
    ) -> Ended:
        assert worker.task is not None
        ended = Ended(worker.task, fate, time.monotonic() - worker.begun, reply, error, detail)
        worker.task = None
        if not keep:
            worker.kill()
            self.workers.remove(worker)
        return ended


def side_by_side(count: int, memory: float = inf, devices: Sequence[str] = ()) -> Hiring:
    """Executors of ``count`` processes that may hold so many bytes each; of no more than there are ``devices``, if any
    are named, each with one to itself."""
    count = min(count, len(devices) or count)

    @contextmanager
    def hired(job: Job) -> Iterator[Executor]:
        with tempfile.TemporaryDirectory() as folder:
            path = None
            if job.ground is not None:
                path = os.path.join(folder, "ground")
                Path(path).write_bytes(packed(job.ground))
            executor = Processes(job.function, count, path, memory, job.preload, devices)
            try:
                yield executor
            finally:
                executor.close()

    return hired


def start(
    function: Callable[[Any, Any], Any], ground: str | None, preload: Sequence[str], device: str | None = None
) -> Worker:
    """A new process: forked from a server that has imported ``preload`` once for all of them."""
    context = _context(preload)
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, function, ground, device))
    with _without_main():
        with _uninterrupted():
            forkserver.ensure_running()
        process.start()  # which waits until the server has imported what it will need: this may be interrupted
    theirs.close()
    return Worker(process, ours, time.monotonic(), device=device)


def warm(preload: Sequence[str]) -> None:
    """Have the server of the processes import what they will need, while something else is done here."""
    _context(preload)
    with _uninterrupted():
        forkserver.ensure_running()


def _context(preload: Sequence[str]) -> multiprocessing.context.ForkServerContext:
    check_system()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([SERVER, *preload])
    return context


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide the caller's main module, which a new process would run once more: a script may start its work in there."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold an interrupt back, also from the server that is started here: the terminal sends it to that one too, which
    would die of it while it imports, and say so at length."""
    resource_tracker.ensure_running()  # as the server would: it lets interrupts through once it has started
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(
    connection: Connection, function: Callable[[Any, Any], Any], path: str | None, device: str | None = None
) -> None:
    """The life of a worker: a session of its own, in which the terminal's signals do not reach it."""
    os.setsid()
    gc.freeze()
    gc.enable()
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device  # read when CUDA is first used, which the server does not
    parent = multiprocessing.parent_process()
    if parent is not None:  # not the server that this one was forked from: that lives on
        die_with_other_end(parent.sentinel)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(2, 1)  # what solvers print is no part of our output
    import torch

    torch.set_num_threads(1)
    with suppress(EOFError, OSError):  # nobody is there any more
        ground: Any = None
        if path is not None:
            try:
                with open(path, "rb") as file:
                    ground = opened(file.read())
            except Exception as error:
                connection.send_bytes(dumps(explained(error)))
                return
        connection.send_bytes(dumps(READY))
        while True:
            message = connection.recv_bytes()
            try:
                reply = dumps((function(ground, pickle.loads(message)),))
            except Exception as error:
                reply = dumps(explained(error))
            connection.send_bytes(reply)


def _message(worker: Worker) -> Any:
    """What it has sent: READY, a reply in a tuple or an error; None where there is nothing, or no more, or only a part
    since it was killed meanwhile."""
    try:
        return pickle.loads(worker.connection.recv_bytes()) if worker.connection.poll() else None
    except (EOFError, OSError):
        return None
