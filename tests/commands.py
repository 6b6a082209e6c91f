"""Commands and functions in processes of their own, for a tenth of what a new interpreter takes: they are forked from
the server of the executors' processes, which has imported what they need."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

from assay import __main__
from assay.benchmarks.harness.preloaded import INSTANCES
from assay.verify import registry
from assay.verify.support.executors import processes


@dataclass(eq=False)
class Started:
    """What runs, with what it prints in files; the names are those of :class:`subprocess.Popen`."""

    process: BaseProcess
    folder: Path

    @property
    def returncode(self) -> int | None:
        """Its exit code, once it has ended."""
        return self.process.exitcode

    def poll(self) -> int | None:
        """See :attr:`returncode`."""
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        """To the process alone."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """At once."""
        self.process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it has printed on both streams, once it has ended."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, "it has not ended in time"
        return self.said("stdout"), self.said("stderr")

    def said(self, stream: str) -> str:
        """What it has printed so far."""
        path = self.folder / f"{stream}.txt"
        return path.read_text() if path.is_file() else ""


def start(
    folder: Path,
    arguments: Sequence[str],
    out: str = "",
    encoding: str = "utf-8",
    methods: Mapping[str, str] = MappingProxyType({}),
) -> Started:
    """``assay ARGUMENTS`` by :func:`forked`; ``methods``: further ones, by name."""
    return forked(folder, _command, (list(arguments), dict(methods)), out, encoding)


def forked(
    folder: Path,
    function: Callable[..., object],
    arguments: Sequence[object] = (),
    out: str = "",
    encoding: str = "utf-8",
) -> Started:
    """``function(*arguments)`` in the current folder, with the environment and the path of modules of this process.
    What it prints goes to stdout.txt and stderr.txt in ``folder``, or to ``out``."""
    ends = out or str(folder / "stdout.txt"), str(folder / "stderr.txt")
    here = os.getcwd(), dict(os.environ), list(sys.path)
    context = processes._context(INSTANCES)
    process = context.Process(target=_run, args=(function, arguments, *here, ends, encoding), daemon=True)
    with processes._without_main(), processes._uninterrupted():
        process.start()
    return Started(process, folder)


def _run(
    function: Callable[..., object],
    arguments: Sequence[object],
    folder: str,
    environment: dict[str, str],
    path: list[str],
    ends: Sequence[str],
    encoding: str,
) -> None:
    """What an interpreter does at its start, and then the function."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = path
    for descriptor, end in enumerate(ends, 1):
        opened = os.open(end, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdout = os.fdopen(1, "w", encoding=encoding, closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding=encoding, errors="backslashreplace", buffering=1, closefd=False)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    multiprocessing.current_process()._config["daemon"] = False  # or it could not start processes of its own
    forkserver._forkserver.ensure_running = lambda: None  # the server of this one serves its processes, too
    forkserver.ensure_running = forkserver._forkserver.ensure_running
    function(*arguments)


def _command(arguments: list[str], methods: dict[str, str]) -> NoReturn:
    registry.VERIFIERS.update(methods)
    sys.argv = ["assay", *arguments]
    __main__.run()
