"""What processes that may be killed have in common: one group each, an end with their parent, a death that is told."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import NoReturn

from assay.verify.core.errors import UnsupportedError

POLL = 0.1  # seconds between two looks at the memory that a process holds


def check_system() -> None:
    """Refuse a system without groups of processes. Raises :class:`UnsupportedError`."""
    if not hasattr(os, "killpg"):
        raise UnsupportedError(
            f"work that is killed at its deadline runs in a group of processes, which {sys.platform} does not have: "
            "use Linux or macOS, or a method that runs no other process"
        )


def kill_group(leader: int) -> None:
    """End a process that leads a group at once, with every process that it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def die_with_other_end(pipe: int, leader: bool = True) -> None:
    """Have the system kill this process once the pipe's other end is closed: whoever held it is gone, however that came
    about. ``leader``: the process leads its group, which dies with it.

    On Linux the pipe itself sends the signal, whatever this process is doing then; elsewhere a thread waits for it,
    which takes the interpreter's lock.
    """
    who = -os.getpgrp() if leader else os.getpid()
    if sys.platform != "linux":
        threading.Thread(target=_kill_at_end_of, args=(pipe, who), daemon=True).start()
        return
    import fcntl

    fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(pipe, fcntl.F_SETOWN, who)
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    if wait([pipe], 0):  # it was gone already
        os.kill(who, signal.SIGKILL)


def _kill_at_end_of(pipe: int, who: int) -> None:
    wait([pipe])
    os.kill(who, signal.SIGKILL)


def leave(code: int) -> NoReturn:
    """End this process without taking the interpreter apart, which takes longer than easy answers; but the folder in
    which multiprocessing keeps the socket of its server goes, as it would."""
    if (util := sys.modules.get("multiprocessing.util")) is not None:
        util._run_finalizers()
    os._exit(code)


def death(code: int) -> str:
    """How a process ended, from its exit code."""
    if code >= 0:
        return f"the process ended with exit code {code}"
    names = {number.value: number.name for number in signal.Signals}
    return f"the process was killed by {names.get(-code, f'signal {-code}')}"


def resident(pid: int) -> int:
    """Bytes of memory that process ``pid`` holds; 0 where that cannot be told (it can on Linux)."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def limit_growth(memory: int | None) -> None:
    """Let this process's address space grow by so many bytes from here, by any number if None (on Linux only)."""
    if sys.platform != "linux":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = hard
    if memory is not None:
        soft = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + memory
        soft = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
