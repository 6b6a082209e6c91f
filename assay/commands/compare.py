"""``assay compare``: the bracket around a model's robust accuracy on a data set."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from assay import options
from assay.checks import positive, writable_file
from assay.comparing import Asking, Terms, limits
from assay.notes import lost, wide
from assay.told import Told, tell_radii
from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.norms import SPARSE, norm_name, parse_norm
from assay.verify.support.files import writable_folder
from assay.verify.support.plain import plain
from assay.written import numbers

if TYPE_CHECKING:
    from assay.attacks.common.interface import Attack
    from assay.benchmarks.harness.asking import Ground
    from assay.benchmarks.harness.compare import Comparison
    from assay.benchmarks.harness.gate import Finding, Requirement
    from assay.benchmarks.harness.progress import Progress
    from assay.benchmarks.harness.radii.radius_table import RadiusTable
    from assay.benchmarks.harness.records.recorded import Recorded
    from assay.benchmarks.harness.records.store import Store
    from assay.models.data import Dataset
    from assay.portfolio import Portfolio
    from assay.verify.core.verifier import Verifier
    from assay.verify.perturbations import Perturbation
    from assay.written import Written


def compare(
    context: typer.Context,
    model: options.Model,
    eps: options.MaybeEps = None,
    weights: options.Weights = None,
    data: options.Data = "digits",
    data_dir: options.DataDir = None,
    domain: options.Domain = None,
    eps_scale: options.EpsScale = None,
    methods: options.Methods = "ibp,crown",
    attacks: options.Attacks = "fgsm,pgd",
    n: options.First = None,
    out: options.BracketFolder = Path("out"),
    norm: options.NormOrPixels = "inf",
    perturbation: options.MaybePerturbation = None,
    within: options.Within = None,
    seed: options.Seed = 0,
    batch: options.Batch = 50,
    timeout: options.EachTimeout = inf,
    threads: options.Threads = None,
    device: options.Device = "cpu",
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    resume: options.Resume = False,
    radius: options.InsteadOfEps = False,
    tolerance: options.RadiusTolerance = 1e-3,
    report: options.Report = None,
    require: options.Require = None,
    baseline: options.Baseline = None,
    evidence: options.EvidenceFolder = None,
    quiet: options.Quiet = False,
    json_: options.Json = False,
) -> int:
    """Bound a model's robust accuracy from above by attacks and from below by certificates."""
    _agree(radius, eps, norm, perturbation, within, require, baseline, evidence)
    radii, eps_scale = _radii(eps, eps_scale, perturbation)
    p = parse_norm(norm, pixels=not radius)
    positive("--tolerance", tolerance, "the data's units")
    hiring = partial(options.hiring, workers, cluster, device)
    hiring()  # what processes import they import from here on, while this one does
    budget = limits(n, batch, timeout, seed, threads, workers, device)
    asked = _asked_by(methods, attacks)
    samples = options.samples(data, data_dir, domain, n, eps_scale)
    threat = _threat(p, perturbation, within, samples)
    if threat.change is None:
        wide(radii, p, samples)
    by = _everybody(*asked, threat, radius)
    asking = Asking(model, weights, options.fitting(model, weights, samples), samples, *by)
    gates = _gates(require, baseline, asking, threat, radii)
    writable_folder(out)
    writable_file("--report", report)
    terms = Terms(out, ["assay", *context.obj], budget, batch, hiring, resume, quiet)
    folder = None if evidence is None else _portfolio(evidence, asking, p, terms)
    with terms.store() as store, terms.watched("bound" if radius else "verdict") as progress:
        outcome = terms.judged(threat.judge(radii, tolerance if radius else None), asking, store, progress)
        if folder is not None:
            _collect(folder, terms.ground(asking, p), radii, store, terms, progress)
    return _tell(outcome, gates, options.told(samples), terms.command, Told(out, report, store.run, resume, json_))


def _agree(
    radius: bool,
    eps: str | None,
    norm: str,
    perturbation: str | None,
    within: str | None,
    require: Sequence[str] | None,
    baseline: Path | None,
    evidence: Path | None,
) -> None:
    """Raise :class:`InputError` for options that do not go with each other."""
    given = {"--radius": radius, "--evidence": evidence is not None}
    of_balls = {**given, "--norm": norm != "inf", "--within": within is not None}
    if perturbation is not None and (wrong := [name for name, there in of_balls.items() if there]):
        raise InputError(f"{wrong[0]} speaks of balls about the samples, and does not go with --perturbation")
    if within is not None and (wrong := [name for name, there in given.items() if there]):
        raise InputError(f"{wrong[0]} speaks of one ball about each sample, and does not go with --within")
    if perturbation is None and (eps is None) != radius:
        raise InputError("expected --eps, radii with commas between them, or --radius, and not both")
    if radius and (require or baseline):
        raise InputError("--require and --baseline speak of accuracy at an eps: take --eps and not --radius")
    if radius and evidence:
        raise InputError("--evidence speaks of an eps: take --eps and not --radius")


def _radii(eps: str | None, scale: str | None, perturbation: str | None) -> tuple[list[Written], str | None]:
    """The radii, none with --radius, and the scale of eps."""
    if eps is None and perturbation is not None:
        eps = "1"
    if eps is None:
        return [], scale
    eps, scale = options.eps_map(eps, scale)
    return numbers("--eps", eps), scale


@dataclass(frozen=True)
class Threat:
    """What happens to the samples: anything in balls of a ``norm`` ``within`` others, or else the ``change``."""

    norm: float
    change: Perturbation | None
    within: Mapping[float, float]

    def __str__(self) -> str:
        from assay.verify.core.norms import balls_name, threat_name

        return threat_name(self.norm, "" if self.change is None else str(self.change), balls_name(self.within))

    def judge(self, radii: Sequence[float], tolerance: float | None) -> Callable[..., Comparison | RadiusTable]:
        """The comparison of the harness at these radii; with a ``tolerance`` the one that looks for radii."""
        from assay.benchmarks.harness import compare as harness
        from assay.benchmarks.harness.radii.radius_table import compare_radii

        if tolerance is not None:
            return partial(compare_radii, norm=self.norm, tolerance=tolerance)
        return partial(harness.compare, eps=radii, norm=self.norm, perturbation=self.change, within=self.within)


def _threat(norm: float, perturbation: str | None, within: str | None, samples: Dataset) -> Threat:
    """What the options ask about."""
    from assay.verify.core.norms import parse_balls

    balls = {} if within is None else parse_balls(within)
    if balls and norm in SPARSE:
        raise InputError(f"--within: changes of {norm_name(norm)} have no ball that others could meet")
    if norm in balls:
        raise InputError(f"--within: the ball in {norm_name(norm)} is that of --eps: name other norms")
    return Threat(norm, None if perturbation is None else options.perturbation(perturbation, samples), balls)


def _asked_by(methods: str, attacks: str) -> tuple[list[Verifier], list[Attack]]:
    """Who is named. Raises :class:`InputError` where nobody is."""
    verifiers, attackers = options.methods(methods), options.attacks(attacks)
    if not verifiers and not attackers:
        raise InputError("expected at least one method or attack: --methods ibp,crown --attacks fgsm,pgd")
    return verifiers, attackers


def _everybody(
    methods: list[Verifier], attacks: list[Attack], threat: Threat, radius: bool
) -> tuple[list[Verifier], list[Attack]]:
    """Who is named, asked about cells of a perturbation's parameters if there is one, and who attacks smoothed
    classifiers that nobody named would."""
    if threat.change is not None:
        from assay.benchmarks.harness.participants import by_cells

        methods = by_cells(methods)
    if not radius and any(method.name == "smoothing" for method in methods):
        from assay.benchmarks.harness.beside import attacked

        methods = attacked(methods)
    return methods, attacks


@dataclass(frozen=True)
class Gates:
    """What must hold of a comparison: accuracies that are ``required``, and none worse than ``earlier``."""

    required: Sequence[Requirement]
    earlier: Recorded | None

    def found(self, comparison: Comparison) -> list[Finding]:
        """What came of each."""
        from assay.benchmarks.harness import gate

        beside = [] if self.earlier is None else gate.against(comparison, self.earlier)
        return [each.check(comparison.rows) for each in self.required] + beside


def _gates(
    require: Sequence[str] | None, baseline: Path | None, asking: Asking, threat: Threat, radii: Sequence[float]
) -> Gates:
    """What is asked for, refused before any work where the comparison would not say it."""
    from assay.benchmarks.harness import gate

    required = [gate.Requirement.read(text) for text in require or ()]
    gate.foreseen(required, asking.methods, asking.attacks, radii)
    data = f"{asking.samples.name} ({asking.samples.split})"
    return Gates(required, None if baseline is None else _baseline(baseline, data, str(threat), radii))


def _collect(
    folder: Portfolio, ground: Ground, radii: Sequence[float], store: Store, terms: Terms, progress: Progress
) -> None:
    """The folder of evidence, filled with what decides each sample."""
    from assay.benchmarks.harness import proving

    for line in folder.collect(
        proving.claims(ground, radii, store, terms.batch),
        lambda claims: proving.proofs(ground, claims, terms.hiring(), progress),
    ):
        print(f"assay: evidence: {line}", file=sys.stderr)


def _portfolio(folder: Path, asking: Asking, norm: float, terms: Terms) -> Portfolio:
    """The folder of evidence, made."""
    from assay.inputs import digests
    from assay.portfolio import Portfolio, of_features

    samples = asking.samples
    data, command = f"{samples.name} ({samples.split})", shlex.join(terms.command)
    scale = of_features(1.0 if samples.eps_scale is None else samples.eps_scale, samples.shape)
    ends = [of_features(end, samples.shape) for end in samples.legal]
    known = {"model": asking.model, "data": data, "command": command}
    portfolio = Portfolio(folder, norm, scale, ends, digests(samples.x), known)
    portfolio.room()
    return portfolio


def _baseline(path: Path, data: str, threat: str, radii: Sequence[float]) -> Recorded:
    """The last comparison in an earlier store, if it can be one to hold this against."""
    from assay.benchmarks.harness import gate
    from assay.benchmarks.harness.records import recorded
    from assay.benchmarks.harness.records.store import Store

    if not path.is_file():
        raise InputError(f"--baseline: expected the results.sqlite of an earlier run, there is no file {str(path)!r}")
    with Store(path) as store:
        return gate.baseline(recorded.read(store), data, threat, radii)


def _tell(
    outcome: Comparison | RadiusTable, gates: Gates, where: dict[str, Any], command: Sequence[str], to: Told
) -> int:
    """Summary, picture and page, written; the table, or the summary as JSON with the table on stderr; the exit code."""
    from rich.console import Console

    from assay.benchmarks.harness import gate
    from assay.benchmarks.harness.radii.radius_table import RadiusTable
    from assay.benchmarks.report import bracket_figure, tables

    if isinstance(outcome, RadiusTable):
        return tell_radii(outcome, where, command, to)
    comparison, found = outcome, gates.found(outcome)
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
