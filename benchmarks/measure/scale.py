"""What handing out work costs, and with these costs what a cluster would be limited by.

    python -m assay.benchmarks.measure.scale [--tasks 500] [--nodes 1000] [--cores 32] [--instances 1e8]
        [--seconds 0.01] [--task 1,10,60] [--drivers 1,100] [--row SECONDS] [--cluster local] [--json]
    python -m assay.benchmarks.measure.scale million [--help]

Measured here: the start of an executor's first process; and the processor time of the process that gives out and
writes, for an empty task there and back, and for a row from a reply into the store, alone and in batches as long tasks
bring them. A row into a store that is large takes several times as long: ``--row`` is what ``million`` says of a whole
run. Then a simulation of a run of ``--instances`` that take ``--seconds`` each, in tasks of so many seconds
(``--task``), by all cores of all nodes: the one process that gives out tasks and writes the store does one thing at a
time, with the measured costs; or several such processes (``--drivers``), each with its share of nodes and instances and
a store of its own. It goes on until the pace is steady, and says what the whole run would take, how busy the cores and
that process would be, and what a change of the tasks' size does.
``million`` is a run of very many instances, made and not simulated: see ``million.py``.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import operator
import pickle
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

from assay.benchmarks.harness.records.store import Key, Record, Store
from assay.benchmarks.measure import million
from assay.verify.core.result import Result, Verdict
from assay.verify.support.documents import dump
from assay.verify.support.executors import Hiring, Job, Task, run
from assay.verify.support.executors.cluster import on_cluster
from assay.verify.support.executors.packing import dumps
from assay.verify.support.executors.processes import side_by_side

ROWS = 100  # rows of a batch
ROUNDS = 5  # tasks of each core that are simulated


@dataclass(frozen=True)
class Costs:
    """Seconds until the first reply; processor time of an empty task there and back, of a row that is opened and stored
    alone, and of one in a batch; and the bytes in which a result travels."""

    start: float
    task: float
    alone: float
    row: float
    bytes: float = 0.0


@dataclass(frozen=True)
class Plan:
    """A run as it was simulated: how many processes give out and write, seconds of a task, instances a second, hours of
    the whole run, shares of the time in which the cores, and these processes, are busy, and the bytes a second that
    come to each of these."""

    drivers: int
    task: float
    pace: float
    hours: float
    cores: float
    driver: float
    network: float


def measured(hiring: Hiring, tasks: int) -> Costs:
    """The costs on this machine, of ``tasks`` empty tasks one after another, and of as many rows at least: means of
    the former, whose clock is coarse, and medians of the latter."""
    begun = time.perf_counter()
    with hiring(Job(operator.getitem, range(tasks + 1))) as executor:
        for _ in run(executor, [Task(0)]):
            start = time.perf_counter() - begun
        spent = time.process_time()
        for _ in run(executor, map(Task, range(tasks))):
            pass
        there = (time.process_time() - spent) / tasks
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "s.sqlite") as store:
        alone, together = (_storing(store, rows, tasks) for rows in (1, ROWS))
    return Costs(start, there, alone, together, len(_reply("", ROWS)) / ROWS)


def _storing(store: Store, rows: int, repeats: int) -> float:
    """Median processor time of a row in replies of so many."""
    spent = []
    for turn in range(max(3, repeats // rows)):
        reply = _reply(f"{rows}-{turn}", rows)
        begun = time.process_time()
        store.put(pickle.loads(reply))
        spent.append((time.process_time() - begun) / rows)
    return median(spent)


def _reply(name: str, rows: int) -> bytes:
    """So many rows as they travel; their ids begin with ``name``."""
    return dumps([_record(hashlib.sha256(f"{name}-{number}".encode()).hexdigest()) for number in range(rows)])


def _record(problem: str) -> Record:
    return Record(Key(problem, "ibp"), Result(problem, "ibp", Verdict.VERIFIED, margin=0.5), "method", 0, 0, 0.1)


def simulated(cores: int, instances: float, seconds: float, task: float, costs: Costs, drivers: int = 1) -> Plan:
    """A run on so many cores, in equal parts of so many ``drivers``: each asks for a task when it has none, and its
    driver serves one after another."""
    cores = max(1, cores // drivers)
    count = max(1, round(task / seconds))
    service = costs.task + count * (costs.row if count > 1 else costs.alone)
    free = [(0.0, core) for core in range(cores)]
    clock = served = 0.0
    done = 0
    while done < ROUNDS * cores:
        ready, core = heapq.heappop(free)
        clock = max(clock, ready) + service
        served += service
        done += 1
        heapq.heappush(free, (clock + count * seconds, core))
    over = done - sum(until > clock for until, _ in free)
    pace = over * count / clock
    shares = min(1.0, pace * seconds / cores), served / clock
    hours = instances / (drivers * pace) / 3600
    return Plan(drivers, count * seconds, drivers * pace, hours, *shares, pace * costs.bytes)


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["million"]:
        million.main(given[1:])
        return
    parser = argparse.ArgumentParser(prog="python -m assay.benchmarks.measure.scale", description=__doc__)
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--cores", type=int, default=32, help="of each node")
    parser.add_argument("--instances", type=float, default=1e8)
    parser.add_argument("--seconds", type=float, default=0.01, help="of each instance")
    parser.add_argument("--task", default="1,10,60", help="seconds of a task, with commas")
    parser.add_argument("--drivers", default="1,100", help="processes that give out and write, with commas")
    parser.add_argument("--row", type=float, help="seconds of a row in a batch, in place of what is measured")
    parser.add_argument("--cluster", help="measure Ray here instead of processes: local, auto or an address")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(given)
    costs = measured(side_by_side(1) if asked.cluster is None else on_cluster(asked.cluster, 1), asked.tasks)
    if asked.row is not None:
        costs = replace(costs, row=asked.row)
    cores = asked.nodes * asked.cores
    plans = [
        simulated(cores, asked.instances, asked.seconds, float(task), costs, int(drivers))
        for drivers in asked.drivers.split(",")
        for task in asked.task.split(",")
    ]
    if asked.json:
        print(dump({"costs": asdict(costs), "cores": cores, "plans": [asdict(plan) for plan in plans]}))
        return
    print(f"start {costs.start:.2f} s, empty task {1e3 * costs.task:.2f} ms, ", end="")
    print(f"row {1e3 * costs.alone:.2f} ms alone, {1e6 * costs.row:.0f} us of {ROWS}")
    print(f"{asked.instances:g} instances of {asked.seconds:g} s on {cores} cores:")
    for plan in plans:
        told = f"drivers {plan.drivers}, tasks of {plan.task:g} s: {plan.pace:,.0f} instances a second, "
        print(f"{told}{plan.hours:.2f} h in all; cores busy {plan.cores:.1%}, ", end="")
        print(f"each driver {plan.driver:.1%}, with {plan.network / 2**20:.1f} MiB/s")


if __name__ == "__main__":
    main()
