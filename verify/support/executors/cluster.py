"""Work on a cluster, by Ray (https://docs.ray.io): one task a core, what tasks share once a node in its object store.

Nodes may come and go: a task whose node or process is lost is tried again by whoever runs the executor. Ports stay on
the loopback interface unless an address of a cluster is given, which then is secured as Ray's documentation says.
"""

from __future__ import annotations

import os
import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from math import inf, isfinite
from typing import Any

import torch

from assay.verify.core.errors import AssayError, InputError, ResourceError, UnsupportedError
from assay.verify.support.executors import Ended, Executor, Fate, Hiring, Job, Task, opened, packed
from assay.verify.support.executors.packing import dumps
from assay.verify.support.failures import explained, line
from assay.verify.support.processes import limit_growth
from assay.verify.support.sources import hashed

GRACE = 1.5  # seconds that a task may take beyond its own
STARTING = 120.0  # seconds more that a process on another node may take to start
LOCAL, AUTO = "local", "auto"


@dataclass(frozen=True)
class Order:
    """What one process is to do: the function, the key of the ground, and what is installed where the run began."""

    function: Callable[[Any, Any], Any]
    key: str
    seconds: float
    memory: float
    version: str


@dataclass(eq=False)
class Cluster:
    """See :class:`assay.verify.support.executors.Executor`. ``most``: tasks at once, as many as there are cores if
    None; ``ground``: the reference of what they share; ``accelerators``: how many each takes."""

    function: Callable[[Any, Any], Any]
    ground: Any
    most: int | None = None
    memory: float = inf
    accelerators: int = 0
    running: dict[Any, tuple[Task, float]] = field(default_factory=dict)

    @property
    def capacity(self) -> int:
        """What the nodes that are there now can do at once."""
        import ray

        there = ray.cluster_resources()
        slots = int(there.get("GPU", 0) // self.accelerators if self.accelerators else there.get("CPU", 0))
        return max(1, slots if self.most is None else min(slots, self.most))

    def ready(self, seconds: float = 0.0) -> bool:
        """As far as Ray tells: it has processes of its own."""
        return True

    def submit(self, task: Task) -> None:
        """Have it run on some node."""
        import ray

        work = ray.remote(max_retries=0, num_cpus=1, num_gpus=self.accelerators)(_perform)
        order = Order(self.function, self.ground.hex(), task.seconds, self.memory, _version())
        self.running[work.remote(order, self.ground, dumps(task.argument))] = task, time.monotonic()

    def ended(self, seconds: float = inf) -> list[Ended]:
        """See :class:`assay.verify.support.executors.Executor`."""
        import ray

        until = time.monotonic() + seconds
        while self.running:
            late = {work: begun + task.seconds + GRACE + STARTING for work, (task, begun) in self.running.items()}
            patience = min(until, *late.values()) - time.monotonic()
            wait = max(0.0, patience) if isfinite(patience) else None
            ready, _ = ray.wait(list(self.running), num_returns=1, timeout=wait)
            over = [self._end(work) for work in ready]
            over += [self._lapse(work) for work, end in late.items() if work in self.running and end < time.monotonic()]
            if over or time.monotonic() >= until:
                return over
        return []

    def cancel(self, task: Task) -> None:
        """End its process."""
        for work in [work for work, (mine, _) in self.running.items() if mine is task]:
            del self.running[work]
            self._kill(work)

    def close(self) -> None:
        """End whatever runs."""
        for work in self.running:
            self._kill(work)
        self.running.clear()

    def _kill(self, work: Any) -> None:
        import ray

        with suppress(ray.exceptions.RayError):  # it has ended meanwhile
            ray.cancel(work, force=True)

    def _lapse(self, work: Any) -> Ended:
        task, begun = self.running.pop(work)
        self._kill(work)
        return Ended(task, Fate.TIMEOUT, time.monotonic() - begun, detail="ended at its deadline")

    def _end(self, work: Any) -> Ended:
        import ray

        task, begun = self.running.pop(work)
        spent = time.monotonic() - begun
        try:
            fate, reply = ray.get(work)
        except ray.exceptions.RayTaskError as error:  # before anything of ours ran: most likely it is not there
            why = (
                f"a node cannot do the work: {line(error.cause if error.cause else error)} (is assay installed there?)"
            )
            return Ended(task, Fate.RAISED, spent, error=InputError(why))
        except ray.exceptions.RayError as error:
            fate = Fate.TIMEOUT if spent > task.seconds else _fate(error)
            return Ended(task, fate, spent, detail=f"{type(error).__name__}: {line(error)}")
        if fate is Fate.REPLIED:
            return Ended(task, fate, spent, pickle.loads(reply))
        return Ended(task, fate, spent, error=reply)


def on_cluster(address: str, count: int | None = None, memory: float = inf, accelerators: int = 0) -> Hiring:
    """Executors on a cluster that is there already (its address, or ``auto``), or on one of ``count`` processes that is
    started on this machine for the while (``local``). Raises :class:`UnsupportedError` where Ray is not installed and
    :class:`InputError` where nothing answers."""
    if find_spec("ray") is None:
        raise UnsupportedError("--cluster needs the package ray: pip install 'assay[ray]'")

    @contextmanager
    def hired(job: Job) -> Iterator[Executor]:
        import numpy as np
        import ray

        shared = np.frombuffer(packed(job.ground), dtype=np.uint8)  # an array: nodes' processes read it in place
        with _connected(address, count):
            try:
                ground = ray.put(shared)
            except ray.exceptions.ObjectStoreFullError as error:
                raise ResourceError(f"the cluster's object store has no room for {shared.nbytes} bytes") from error
            executor = Cluster(job.function, ground, count, memory, accelerators)
            try:
                yield executor
            finally:
                executor.close()

    return hired


def _fate(error: Exception) -> Fate:
    """What Ray says of a task without a reply."""
    from ray import exceptions

    if isinstance(error, exceptions.OutOfMemoryError):
        return Fate.MEMORY
    gone = (exceptions.NodeDiedError, exceptions.ObjectLostError)
    return Fate.GONE if isinstance(error, gone) else Fate.DIED


@contextmanager
def _connected(address: str, count: int | None) -> Iterator[None]:
    import ray

    if ray.is_initialized():  # work on the cluster hands out work of its own
        yield
        return
    how: dict[str, Any] = {"num_cpus": count} if address == LOCAL else {"address": address}
    try:
        ray.init(
            **how, include_dashboard=False if address == LOCAL else None, log_to_driver=False, logging_level="error"
        )
    except Exception as error:
        raise InputError(f"no cluster answers at {address!r}: {line(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


@cache
def _version() -> str:
    """What is installed here: nodes that have the same number may have other sources, as a checkout has."""
    try:
        number = version("assay")
    except PackageNotFoundError:
        number = "none"
    return f"{number} (sources {hashed()})"


@lru_cache(maxsize=1)
def _opened(key: str) -> list[Any]:
    """A place for the ground with this key; the last one is kept."""
    return []


def _perform(order: Order, shared: Any, argument: bytes) -> tuple[Fate, Any]:
    """What one process does: the reply, pickled, or what the function raised."""
    if order.version != _version():
        here = socket.gethostname()
        return Fate.RAISED, InputError(f"node {here} has assay {_version()}, and the run began with {order.version}")
    torch.set_num_threads(1)
    clock = None
    if isfinite(order.seconds):
        clock = threading.Timer(order.seconds + GRACE, os._exit, (1,))
        clock.daemon = True
        clock.start()
    try:
        limit_growth(int(order.memory) if isfinite(order.memory) else None)
        place = _opened(order.key)
        if not place:
            place.append(opened(memoryview(shared)))
        return Fate.REPLIED, dumps(order.function(place[0], pickle.loads(argument)))
    except MemoryError as error:
        return Fate.MEMORY, ResourceError(f"out of memory: {error}")
    except Exception as error:
        failure: AssayError = explained(error)
        failure.__cause__ = None  # it may hold what cannot be pickled
        return Fate.RAISED, failure
    finally:
        if clock is not None:
            clock.cancel()
