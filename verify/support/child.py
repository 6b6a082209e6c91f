"""A function run in a process of its own, for work that cannot stop in time by itself: it is killed instead.

The process is started afresh, not forked: it runs nothing of the caller's main module, shares no locks, and loads only
what the function needs. It stays for the next call, dies with its parent, and is replaced after a failure.
"""

from __future__ import annotations

import atexit
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf, isfinite
from multiprocessing.connection import Connection, Pipe
from typing import Any, TypeVar

from assay.verify.core.budget import Expired
from assay.verify.support.processes import check_system, death, die_with_other_end, kill_group, limit_growth

GRACE = 0.8  # seconds beyond its own that a call may take before its process is killed

T = TypeVar("T")


class ChildError(Exception):
    """The function raised an exception, or its process died; the message says which."""


class ChildDied(ChildError):
    """The process ended before the function did: it crashed, was killed by someone else, or left by itself."""


def in_child(
    function: Callable[..., T], arguments: tuple[Any, ...] = (), seconds: float = inf, memory: int | None = None
) -> T:
    """``function(*arguments)`` in another process. What goes there and back is pickled, the function by its name.

    ``seconds``: wall-clock time after which the process is killed, with a grace of one second; ``memory``: bytes of
    address space that the call may add (Linux only).

    Raises :class:`Expired` where it was killed, :class:`MemoryError`, :class:`ChildError`, and of
    these :class:`ChildDied` where another attempt may fare better; :class:`UnsupportedError` on a system that cannot.
    """
    deadline = time.monotonic() + seconds + GRACE
    task = pickle.dumps((function, arguments, memory))
    child = _take()
    try:
        reply, value = child.ask(task, deadline)
    except BaseException:
        child.kill()
        raise
    if reply is MemoryError:
        child.kill()
        raise MemoryError(value)
    _keep(child)
    if reply is ChildError:
        raise ChildError(value)
    result: T = value
    return result


@dataclass(eq=False)
class Child:
    """A process that waits for tasks at the other end of ``connection``, and for its end at its standard input."""

    connection: Connection
    process: subprocess.Popen[bytes]
    owner: int = field(default_factory=os.getpid)

    def ask(self, task: bytes, deadline: float) -> Any:
        """What it answers to ``task`` until the deadline, on the monotonic clock."""
        try:
            self.connection.send_bytes(task)
            if not self.connection.poll(deadline - time.monotonic() if isfinite(deadline) else None):
                raise Expired
            return pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError) as error:  # an OSError too where it died in the midst of its answer
            raise ChildDied(death(self.process.wait())) from error

    def kill(self) -> None:
        """End it at once, and what it has started."""
        kill_group(self.process.pid)
        self.process.wait()
        self.close()

    def close(self) -> None:
        """Close this side's ends of what leads to it."""
        self.connection.close()
        if self.process.stdin is not None:
            self.process.stdin.close()


# Processes without a task. One that a fork has inherited belongs to the parent, and is not touched here.
_idle: list[Child] = []
_lock = threading.Lock()


def _take() -> Child:
    with _lock:
        while _idle:
            child = _idle.pop()
            if child.owner == os.getpid() and child.process.poll() is None:
                return child
            child.close()
    return _start()


def _keep(child: Child) -> None:
    with _lock:
        _idle.append(child)


@atexit.register
def _dismiss() -> None:
    while _idle:
        child = _idle.pop()
        if child.owner == os.getpid():
            child.kill()


def _start() -> Child:
    check_system()
    ours, theirs = Pipe()
    with theirs:
        # -P: the current folder is searched only if it is on the caller's own path.
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", f"from assay.verify.support import child; child.serve({theirs.fileno()})"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,  # solvers print; that is no part of our output
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,  # the terminal's signals are for the parent
        )
    return Child(ours, process)


def serve(descriptor: int) -> None:
    """The life of a child: one task after another from the connection with this file descriptor."""
    die_with_other_end(0)  # the parent never writes to the standard input
    with Connection(descriptor) as connection:
        while True:
            try:
                task = connection.recv_bytes()
            except EOFError:
                return
            connection.send_bytes(pickle.dumps(_answer(task)))  # plainly: send() shares tensors' memory


def _answer(task: bytes) -> tuple[type[Exception] | None, Any]:
    try:
        function, arguments, memory = pickle.loads(task)
        limit_growth(memory)
        return None, function(*arguments)
    except MemoryError as error:
        return MemoryError, str(error)
    except Exception as error:
        return ChildError, f"{type(error).__name__}: {error}"
