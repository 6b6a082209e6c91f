"""The command in a process of its own, as ``python -m assay`` begins one, for a tenth of what that takes: it is forked
from the server of the executors' processes, which has imported what it needs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import MappingProxyType

from assay import __main__
from assay.benchmarks.harness.preloaded import INSTANCES
from assay.verify import registry
from assay.verify.support.executors import processes


@dataclass(eq=False)
class Started:
    """A command that runs, with what it prints in files; the names are those of :class:`subprocess.Popen`."""

    process: BaseProcess
    folder: tempfile.TemporaryDirectory[str] = field(repr=False)

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
        return self.said("out"), self.said("err")

    def said(self, stream: str) -> str:
        """What it has printed so far."""
        path = Path(self.folder.name, stream)
        return path.read_text() if path.is_file() else ""


def start(
    arguments: Sequence[str],
    out: str | None = None,
    encoding: str = "utf-8",
    methods: Mapping[str, str] = MappingProxyType({}),
) -> Started:
    """``assay ARGUMENTS`` in the current folder, with the environment and the path of modules of this process; ``out``:
    what its standard output is instead of a file; ``methods``: further ones, by name."""
    folder = tempfile.TemporaryDirectory()
    ends = out or str(Path(folder.name, "out")), str(Path(folder.name, "err"))
    context = processes._context(INSTANCES)
    told = (list(arguments), os.getcwd(), dict(os.environ), list(sys.path), ends, encoding, dict(methods))
    process = context.Process(target=_run, args=told, daemon=True)
    with processes._without_main(), processes._uninterrupted():
        process.start()
    return Started(process, folder)


def _run(
    arguments: list[str],
    folder: str,
    environment: dict[str, str],
    path: list[str],
    ends: Sequence[str],
    encoding: str,
    methods: dict[str, str],
) -> None:
    """What the process does: what an interpreter does at its start, and then the command."""
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
    sys.argv = ["assay", *arguments]
    registry.VERIFIERS.update(methods)
    __main__.run()
