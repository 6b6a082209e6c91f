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
from assay.checks import at_least_one, positive, writable_file
from assay.comparing import Asking, Terms, limits
from assay.notes import lost, wide
from assay.told import Told, tell_radii
from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.norms import norm_name, parse_norm
from assay.verify.support.plain import plain
from assay.written import numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from assay.benchmarks.harness.compare import Comparison
    from assay.benchmarks.harness.gate import Finding
    from assay.benchmarks.harness.recorded import Recorded
    from assay.portfolio import Portfolio


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
    perturbation: Annotated[
        str | None,
        typer.Option(help=f"Instead of a norm: {options.PERTURBATIONS} --eps is a share of their ranges then, or 1."),
    ] = None,
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
    if perturbation is not None:
        eps = _share(eps, {"--radius": radius, "--evidence": evidence is not None, "--norm": norm != "inf"})
    if (eps is None) != radius:
        raise InputError("expected --eps, radii with commas between them, or --radius, and not both")
    if eps is not None:
        eps, eps_scale = options.eps_map(eps, eps_scale)
    radii, p = [] if eps is None else numbers("--eps", eps), parse_norm(norm, pixels=not radius)
    if radius and (require or baseline):
        raise InputError("--require and --baseline speak of accuracy at an eps: take --eps and not --radius")
    if radius and evidence:
        raise InputError("--evidence speaks of an eps: take --eps and not --radius")
    positive("--tolerance", tolerance, "the data's units")
    at_least_one("--workers", workers)
    hiring = partial(options.hiring, workers, cluster, device)
    hiring()  # what processes import they import from here on, while this one does
    budget = limits(n, batch, timeout, seed, threads, workers, device)

    from assay.benchmarks.harness import compare as harness
    from assay.benchmarks.harness import gate
    from assay.benchmarks.harness.participants import by_cells
    from assay.benchmarks.harness.progress import watch
    from assay.benchmarks.harness.radius_table import RadiusTable, compare_radii
    from assay.verify.support.files import writable_folder

    verifiers, attackers = options.methods(methods), options.attacks(attacks)
    if not verifiers and not attackers:
        raise InputError("expected at least one method or attack: --methods ibp,crown --attacks fgsm,pgd")
    samples = options.samples(data, data_dir, domain, n, eps_scale)
    change = None if perturbation is None else options.perturbation(perturbation, samples)
    if change is None:
        wide(radii, p, samples)
    else:
        verifiers = by_cells(verifiers)
    asking = Asking(model, weights, options.fitting(model, weights, samples), samples, verifiers, attackers)
    asked = [gate.Requirement.read(text) for text in require or ()]
    gate.foreseen(asked, verifiers, attackers, radii)
    threat = norm_name(p) if change is None else str(change)
    earlier = None if baseline is None else _baseline(baseline, f"{samples.name} ({samples.split})", threat, radii)
    writable_folder(out)
    writable_file("--report", report)
    terms = Terms(out, ["assay", *context.obj], budget, batch, hiring, resume, quiet)
    folder = None if evidence is None else _portfolio(evidence, asking, p, terms)

    judge: Callable[..., Comparison | RadiusTable] = (
        partial(compare_radii, norm=p, tolerance=tolerance)
        if radius
        else partial(harness.compare, eps=radii, norm=p, perturbation=change)
    )
    with terms.store() as store, watch(unit="bound" if radius else "verdict", quiet=quiet) as progress:
        outcome = terms.judged(judge, asking, store, progress)
        if folder is not None:
            from assay.benchmarks.harness import proving

            ground = terms.ground(asking, p)
            for line in folder.collect(
                proving.claims(ground, radii, store, batch),
                lambda claims: proving.proofs(ground, claims, hiring(), progress),
            ):
                print(f"assay: evidence: {line}", file=sys.stderr)
    to = Told(out, report, store.run, resume, json_)
    if isinstance(outcome, RadiusTable):
        return tell_radii(outcome, options.told(samples), terms.command, to)
    found = [each.check(outcome.rows) for each in asked] + (gate.against(outcome, earlier) if earlier else [])
    return _tell(outcome, found, options.told(samples), terms.command, to)


def _share(eps: str | None, others: dict[str, bool]) -> str:
    """With --perturbation: all of its parameters' ranges unless shares are given. Raises :class:`InputError` for the
    options that do not go with it."""
    if wrong := [name for name, given in others.items() if given]:
        raise InputError(f"{wrong[0]} speaks of balls about the samples, and does not go with --perturbation")
    return eps or "1"


def _portfolio(folder: Path, asking: Asking, norm: float, terms: Terms) -> Portfolio:
    """The folder of evidence, made."""
    from assay.portfolio import Portfolio, of_features

    samples = asking.samples
    data, command = f"{samples.name} ({samples.split})", shlex.join(terms.command)
    scale = of_features(1.0 if samples.eps_scale is None else samples.eps_scale, samples.shape)
    ends = [of_features(end, samples.shape) for end in samples.legal]
    portfolio = Portfolio(folder, norm, scale, ends, {"model": asking.model, "data": data, "command": command})
    portfolio.room()
    return portfolio


def _baseline(path: Path, data: str, threat: str, radii: Sequence[float]) -> Recorded:
    """The last comparison in an earlier store, if it can be one to hold this against."""
    from assay.benchmarks.harness import gate, recorded
    from assay.benchmarks.harness.store import Store

    if not path.is_file():
        raise InputError(f"--baseline: expected the results.sqlite of an earlier run, there is no file {str(path)!r}")
    with Store(path) as store:
        return gate.baseline(recorded.read(store), data, threat, radii)


def _tell(
    comparison: Comparison,
    found: Sequence[Finding],
    where: dict[str, Any],
    command: Sequence[str],
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
