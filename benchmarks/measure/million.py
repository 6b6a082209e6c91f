"""A run of very many tiny instances through the store, an executor and the progress of real runs.

    python -m assay.benchmarks.measure.scale million [--instances 1000000] [--workers 2] [--task 1000]
        [--store FILE] [--json]

Each instance is a point of the unit square before a network of two outputs, and is answered by intervals: all it costs
is being handed out, answered, and stored. Told are the seconds of the process that hands out and stores, an instance;
how its memory grew over the last nine tenths of the run; what taking all rows from the store again takes; and what the
totals and all verdicts as CSV take, with the memory that they need beside. Verdicts are known by hand and compared.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch

from assay.benchmarks.harness.progress import Lines
from assay.benchmarks.harness.records.store import AT_ONCE, Key, Record, Store, settled
from assay.benchmarks.report import verdicts
from assay.benchmarks.report.published import Format
from assay.verify.backends.ibp import IBP
from assay.verify.core.network import to_network
from assay.verify.core.region import Box
from assay.verify.core.result import Reason, Result, Verdict
from assay.verify.support.documents import dump
from assay.verify.support.executors import Hiring, Job, Task, run
from assay.verify.support.executors.processes import side_by_side
from assay.verify.support.processes import resident

T = TypeVar("T")

METHOD, EPS, BUDGET = repr(IBP()), 0.05, 10.0


@dataclass(frozen=True)
class Figures:
    """Of ``instances``: wall seconds of the run, seconds of processor time of the driver for each, bytes by which its
    memory grew from the first tenth of the run to its end, seconds in which all rows were taken from the store again
    and how many there were, and seconds and bytes of growth for the totals and for the verdicts as CSV; of what is
    told wrong."""

    instances: int
    wall: float
    driver: float
    grown: int
    resume: float
    resumed: int
    totals: float
    verdicts: float
    report_grown: int
    wrong: int


def point(number: int) -> tuple[float, float]:
    """The point of an instance; the difference of its coordinates decides."""
    return (number % 1000) / 1000, (number // 1000 % 1000) / 1000


def name(number: int) -> str:
    """Its id."""
    return hashlib.sha256(f"million {number}".encode()).hexdigest()


def answer(_: None, numbers: range) -> list[Record]:
    """The records of some instances, in a process of its own: intervals of the first output less the second."""
    layer = torch.nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(2))
        layer.bias.zero_()
    network = to_network(torch.nn.Sequential(layer).eval(), (2,))
    centre = torch.tensor([point(number) for number in numbers], dtype=torch.float64)
    box = Box(centre - EPS, centre + EPS)
    lower = IBP().bound(network, box, torch.tensor([[1.0, -1.0]], dtype=torch.float64)).lower[:, 0].tolist()
    return [_record(number, bound) for number, bound in zip(numbers, lower, strict=True)]


def _record(number: int, bound: float) -> Record:
    verdict, reason = (Verdict.VERIFIED, None) if bound > 0 else (Verdict.UNKNOWN, Reason.INCOMPLETE)
    result = Result(name(number), METHOD, verdict, reason, margin=bound, seconds=1e-5)
    return Record(Key(name(number), METHOD), result, "method", number, 0, EPS, float("inf"), BUDGET)


def expected(instances: int) -> int:
    """How many are verified, by hand: those whose coordinates differ by more than two radii; a tie is none."""
    square = torch.arange(1_000_000).reshape(1000, 1000)
    safe = (square % 1000) - (square // 1000) > round(2 * EPS * 1000)
    whole, rest = divmod(instances, 1_000_000)
    return whole * int(safe.sum()) + int(safe.flatten()[:rest].sum())


def measured(instances: int, task: int, hiring: Hiring, path: Path) -> Figures:
    """A run into a store at ``path``, and what is asked of the store afterwards."""
    tasks = (Task(range(start, min(start + task, instances))) for start in range(0, instances, task))
    progress, early = Lines(io.StringIO()), 0
    begun, spent = time.monotonic(), time.process_time()
    with Store(path) as store:
        store.begin("measure", "identity", "points")
        progress.begin(instances)
        with hiring(Job(answer)) as executor:
            for ended in run(executor, tasks):
                records = ended.value("some points")
                store.put(records)
                progress.advance(len(records))
                if not early and progress.done >= instances / 10:
                    early = resident(os.getpid())
        wall, driver = time.monotonic() - begun, (time.process_time() - spent) / instances
        grown = resident(os.getpid()) - early
    with Store(path) as store:
        resume, resumed = _timed(lambda: _resumed(store, instances))
        before = resident(os.getpid())
        totals, counted = _timed(store.totals)
        written, rows = _timed(lambda: verdicts.write(store, path.with_suffix(".csv"), Format.CSV))
        after = resident(os.getpid()) - before
    verified = sum(each.count for each in counted if each.verdict == Verdict.VERIFIED)
    wrong = abs(verified - expected(instances)) + abs(rows - instances)
    return Figures(instances, wall, driver, grown, resume, resumed, totals, written, after, wrong)


def _resumed(store: Store, instances: int) -> int:
    """How many are settled, taken a few at a time as runs take them; no more than 100,000 are asked about."""
    numbers = range(min(instances, 100_000))
    keys = ([Key(name(number), METHOD) for number in some] for some in _chunks(numbers))
    return sum(settled(record, BUDGET) for some in keys for record in store.find(some).values())


def _chunks(numbers: range) -> Iterator[range]:
    return (numbers[start : start + AT_ONCE] for start in range(0, len(numbers), AT_ONCE))


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds of processor time, and what came of it."""
    begun = time.process_time()
    done = work()
    return time.process_time() - begun, done


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m assay.benchmarks.measure.scale million", description=__doc__)
    parser.add_argument("--instances", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--task", type=int, default=1000, help="instances of a task")
    parser.add_argument("--store", type=Path, help="keep the store here; it must not be there yet")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() if asked.store is None else nullcontext(asked.store.parent) as folder:
        path = asked.store or Path(folder) / "million.sqlite"
        told = measured(asked.instances, asked.task, side_by_side(asked.workers), path)
    if asked.json:
        print(dump(asdict(told)))
        return
    print(f"{told.instances} instances in {told.wall:.0f} s; the driver takes {1e6 * told.driver:.0f} us for each, ")
    print(f"and grows by {told.grown / 2**20:.0f} MiB; {told.resumed} rows resume in {told.resume:.2f} s, totals take ")
    print(f"{told.totals:.2f} s, verdicts as CSV {told.verdicts:.1f} s and {told.report_grown / 2**20:.0f} MiB; ")
    print(f"wrong: {told.wrong}")
