"""``assay bench``: a method on folders of VNN-COMP instances, with the competition's table beside it."""

from __future__ import annotations

import shlex
import sys
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from assay import options
from assay.benchmarks.harness.preloaded import INSTANCES
from assay.checks import at_least_one, cores, positive, seed_in_range, writable_file
from assay.commands.report import write
from assay.notes import hint, survey
from assay.verify.support.executors.processes import warm
from assay.verify.support.files import writable_folder
from assay.verify.support.imports import swift_imports
from assay.verify.support.plain import counted, plain
from assay.verify.support.signals import interruptible

if TYPE_CHECKING:
    from assay.benchmarks.harness.suite import Outcome
    from assay.benchmarks.report.competition import Peers


def bench(
    context: typer.Context,
    folder: options.Benchmarks,
    benchmarks: options.OnlyBenchmarks = None,
    timeout: options.CappedTimeout = inf,
    workers: options.WorkersOrCores = None,
    cluster: options.Cluster = None,
    method: options.Solver = "auto",
    store: options.StoreFile = Path("bench.sqlite"),
    resume: options.ResumeRows = False,
    expected: options.Expected = None,
    peers: options.Peers = None,
    memory: options.Memory = inf,
    report: options.Report = None,
    seed: options.Seed = 0,
    check: options.Check = True,
    quiet: options.Quiet = False,
    json_: options.Json = False,
) -> int:
    """Solve the instances of VNN-COMP benchmarks, each under its own limits, and hold the verdicts against others'."""
    positive("--timeout", timeout, "seconds")
    positive("--memory", memory, "GiB")
    at_least_one("--workers", workers)
    seed_in_range(seed)
    if cluster is None:
        warm(INSTANCES)  # while this process imports the same

    with swift_imports():
        from assay.benchmarks.harness import instances, suite
        from assay.benchmarks.harness.progress import watch
        from assay.benchmarks.harness.records.store import Store
        from assay.benchmarks.report import competition, instances_run

    options.method(method)  # one that is none is refused before anything is read
    chosen = None if benchmarks is None else [name.strip() for name in benchmarks.split(",") if name.strip()]
    listed = instances.find(folder, chosen, timeout)
    verdicts = competition.read_expected(expected) if expected is not None else {}
    published = competition.read_peers(peers, listed, verdicts) if peers is not None else competition.Peers()
    writable_folder(store.parent)
    writable_file("--report", report)
    limits = suite.Limits(workers or cores(), memory * 2**30, seed, check)
    hiring = None if cluster is None else options.hiring(workers, cluster, memory=limits.memory)
    with interruptible(), Store(store) as opened, hint(opened), watch(quiet=quiet) as progress:
        survey(opened, resume)
        opened.begin(shlex.join(["assay", *context.obj]), method, str(folder))
        outcome = suite.run(
            listed, method, opened, limits, resume=resume, expected=verdicts, progress=progress, hiring=hiring
        )
        instances_run.keep(opened, method, limits, outcome, published)
    taken = outcome.resumed if resume else None
    return _tell(outcome, published, store, report, opened.run, taken, json_)


def _tell(
    outcome: Outcome,
    published: Peers,
    store: Path,
    page: Path | None,
    run: int | None,
    taken: int | None,
    as_json: bool,
) -> int:
    """Picture and page, written; the table, or the rows as JSON with the table on stderr; how many rows were ``taken``
    from the store, if that was asked for; the exit code."""
    from rich.console import Console

    from assay.benchmarks.harness.records.store import Store
    from assay.benchmarks.report import cactus_figure, competition
    from assay.verify.support.documents import dump

    picture = store.with_suffix(".png")
    cactus_figure.draw(outcome, published, picture)
    competition.show(outcome, published, Console(stderr=as_json))
    if as_json:
        print(dump([row.to_json() for row in outcome.rows]))
    if taken is not None:
        print(f"assay: {counted(taken, 'row')} taken from {plain(store)}", file=sys.stderr)
    if page is not None:
        with Store(store) as opened:
            write(opened, page, run)
    written = ", ".join(plain(path) for path in (store, picture, page) if path is not None)
    print(f"{outcome.seconds:.1f} s; wrote {written}", file=sys.stderr if as_json else sys.stdout)
    return outcome.exit_code
