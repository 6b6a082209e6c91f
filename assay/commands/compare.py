"""``assay compare``: the bracket around a model's robust accuracy on a data set."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay import options
from assay.checks import at_least_one, positive, seed_in_range, use_threads, writable_file
from assay.notes import hint, lost, survey, wide
from assay.told import Told, tell_radii
from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.norms import parse_norm
from assay.verify.support.plain import plain
from assay.written import numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assay.benchmarks.harness.compare import Comparison
    from assay.benchmarks.harness.gate import Finding
    from assay.benchmarks.harness.recorded import Recorded


def compare(
    context: typer.Context,
    model: options.Model,
    eps: options.MaybeEps = None,
    weights: options.Weights = None,
    data: options.Data = "digits",
    data_dir: options.DataDir = None,
    domain: options.Domain = None,
    eps_scale: options.EpsScale = None,
    methods: Annotated[
        str, typer.Option(help="Methods that certify, with commas; options as in 'crown(dtype=float32)'.")
    ] = "ibp,crown",
    attacks: Annotated[str, typer.Option(help="Attacks, likewise: 'fgsm,pgd(steps=100)'.")] = "fgsm,pgd",
    n: options.First = None,
    out: Annotated[Path, typer.Option(help="Folder for results.sqlite, summary.json and bracket.png.")] = Path("out"),
    norm: options.NormOrPixels = "inf",
    seed: options.Seed = 0,
    batch: options.Batch = 50,
    timeout: Annotated[float, typer.Option(help="Seconds for each sample and method.")] = inf,
    threads: options.Threads = None,
    device: options.Device = "cpu",
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Take finished verdicts from results.sqlite; undecided ones need more time."),
    ] = False,
    radius: Annotated[
        bool, typer.Option("--radius", help="Instead of --eps: how far each sample holds, by everybody, in one table.")
    ] = False,
    tolerance: Annotated[
        float, typer.Option(help="With --radius: how exactly radii are found, in the units of the data, or 2% of them.")
    ] = 1e-3,
    report: options.Report = None,
    require: Annotated[
        list[str] | None,
        typer.Option(help="End with 80 unless it holds: 'certified@0.1 >= 0.75', 'empirical@0.1 <= 0.9'. Repeatable."),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(help="End with 80 if an accuracy fell below the 95% interval of this earlier results.sqlite."),
    ] = None,
    evidence: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write a certificate or counterexample of each sample, for 'assay check'."),
    ] = None,
    quiet: options.Quiet = False,
    json_: options.Json = False,
) -> int:
    """Bound a model's robust accuracy from above by attacks and from below by certificates."""
    if (eps is None) != radius:
        raise InputError("expected --eps, radii with commas between them, or --radius, and not both")
    if eps is not None:
        eps, eps_scale = options.eps_map(eps, eps_scale)
    radii, p = [] if eps is None else numbers("--eps", eps), parse_norm(norm, pixels=not radius)
    if radius and (require or baseline):
        raise InputError("--require and --baseline speak of accuracy at an eps: take --eps and not --radius")
    if radius and evidence:
        raise InputError("--evidence speaks of an eps: take --eps and not --radius")
    for name, value in (("--n", n), ("--batch", batch), ("--threads", threads), ("--workers", workers)):
        at_least_one(name, value)
    positive("--timeout", timeout, "seconds")
    positive("--tolerance", tolerance, "the data's units")
    seed_in_range(seed)
    hiring = options.hiring(workers, cluster, device)

    from assay.benchmarks.harness import compare as harness
    from assay.benchmarks.harness import gate
    from assay.benchmarks.harness.progress import watch
    from assay.benchmarks.harness.radius_table import RadiusTable, compare_radii
    from assay.benchmarks.harness.sources import Named
    from assay.benchmarks.harness.store import Store
    from assay.verify.core.budget import Budget
    from assay.verify.support.files import writable_folder
    from assay.verify.support.signals import interruptible

    budget = Budget(timeout, seed=seed, threads=use_threads(threads), device=device)
    verifiers, attackers = options.methods(methods), options.attacks(attacks)
    if not verifiers and not attackers:
        raise InputError("expected at least one method or attack: --methods ibp,crown --attacks fgsm,pgd")
    samples = options.samples(data, data_dir, domain, n, eps_scale)
    wide(radii, p, samples)
    module = options.fitting(model, weights, samples)
    asked = [gate.Requirement.read(text) for text in require or ()]
    gate.foreseen(asked, verifiers, attackers, radii)
    earlier = None if baseline is None else _baseline(baseline, f"{samples.name} ({samples.split})", p, radii)
    writable_folder(out)
    writable_file("--report", report)
    command = ["assay", *context.obj]
    folder = None
    if evidence is not None:
        from assay.portfolio import Portfolio, of_features

        known = {"model": model, "data": f"{samples.name} ({samples.split})", "command": shlex.join(command)}
        scale = of_features(1.0 if samples.eps_scale is None else samples.eps_scale, samples.shape)
        ends = [of_features(end, samples.shape) for end in samples.legal]
        folder = Portfolio(evidence, p, scale, ends, known)
        folder.room()

    judge = partial(compare_radii, tolerance=tolerance) if radius else partial(harness.compare, eps=radii)
    with (
        interruptible(),
        Store(out / "results.sqlite") as store,
        hint(store),
        watch(unit="bound" if radius else "verdict", quiet=quiet) as progress,
    ):
        survey(store, resume)
        store.begin(shlex.join(command), model, data)
        outcome = judge(
            module,
            samples,
            methods=verifiers,
            attacks=attackers,
            norm=p,
            budget=budget,
            batch=batch,
            name=model,
            store=store,
            resume=resume,
            alarm_folder=out / "alarms",
            progress=progress,
            hiring=hiring,
            source=Named(model, weights),
        )
        if folder is not None:
            from assay.benchmarks.harness import proving

            ground = harness.ground(module, samples, verifiers, attackers, p, budget, Named(model, weights))
            for line in folder.collect(
                proving.claims(ground, radii, store, batch),
                lambda asked: proving.proofs(ground, asked, options.hiring(workers, cluster, device), progress),
            ):
                print(f"assay: evidence: {line}", file=sys.stderr)
    to = Told(out, report, store.run, resume, json_)
    if isinstance(outcome, RadiusTable):
        return tell_radii(outcome, options.told(samples), command, to)
    found = [each.check(outcome.rows) for each in asked] + (gate.against(outcome, earlier) if earlier else [])
    return _tell(outcome, found, options.told(samples), command, to)


def _baseline(path: Path, data: str, norm: float, radii: Sequence[float]) -> Recorded:
    """The last comparison in an earlier store, if it can be one to hold this against."""
    from assay.benchmarks.harness import gate, recorded
    from assay.benchmarks.harness.store import Store

    if not path.is_file():
        raise InputError(f"--baseline: expected the results.sqlite of an earlier run, there is no file {str(path)!r}")
    with Store(path) as store:
        return gate.baseline(recorded.read(store), data, norm, radii)


def _tell(
    comparison: Comparison,
    found: Sequence[Finding],
    where: dict[str, Any],
    command: list[str],
    to: Told,
) -> int:
    """Summary, picture and page, written; the table, or the summary as JSON with the table on stderr; the exit code."""
    from rich.console import Console

    from assay.benchmarks.harness import gate
    from assay.benchmarks.report import bracket_figure, tables

    stream = sys.stderr if to.as_json else sys.stdout
    try:
        document = tables.summary(comparison, command) | where
        if found:
            document["requirements"] = [vars(each) for each in found]
        tables.write_summary(document, to.out / "summary.json")
        bracket_figure.draw(comparison, to.out / "bracket.png")
        tables.show(comparison, Console(stderr=to.as_json))
        to.write_page()
        for each in found:
            print(plain(each), file=stream)
        if to.as_json:
            print(tables.dump(document))
        to.end(comparison.seconds, comparison.resumed, "bracket.png")
    finally:  # an alarm does not hide behind a disk that is full
        comparison.raise_alarm()
    gate.raise_unmet(found)
    return UnsupportedError.exit_code if comparison.refused else lost(comparison.lost)
