"""Where work is to run, from what a command or a method is told."""

from __future__ import annotations

from math import inf

from assay.verify.support.executors import Hiring
from assay.verify.support.executors.inline import here
from assay.verify.support.executors.processes import side_by_side


def chosen(workers: int | None, cluster: str | None = None, device: str = "cpu", memory: float = inf) -> Hiring:
    """On a ``cluster``, if one is named; in so many processes of this machine, or in this one where ``workers`` is
    None. ``memory``: bytes that one process may hold. On ``cuda`` each process has one accelerator to itself, and
    there are no more of them than accelerators.

    Raises what :func:`assay.verify.support.executors.cluster.on_cluster` does.
    """
    if cluster is not None:
        from assay.verify.support.executors.cluster import on_cluster

        return on_cluster(cluster, workers, memory, 0 if device == "cpu" else 1)
    if workers is None:
        return here
    if device != "cuda":
        return side_by_side(workers, memory)
    from assay.verify.support.devices import accelerators

    return side_by_side(workers, memory, accelerators())
