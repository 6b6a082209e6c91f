"""``assay smooth``: certified radii of a smoothed classifier over a data set, and the audit of a log of them."""

from __future__ import annotations

import shlex
import sys
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from assay import options
from assay.checks import at_least_one, seed_in_range, use_threads
from assay.notes import lost
from assay.verify.core.errors import InputError
from assay.verify.core.norms import parse_norm
from assay.verify.support.plain import counted, plain
from assay.written import numbers

if TYPE_CHECKING:
    from rich.table import Table

    from assay.benchmarks.harness.audit import Fit, Setting
    from assay.benchmarks.harness.smoothed import Row
    from assay.verify.backends.smoothing.method import Smoothing
    from assay.verify.support.executors import Hiring

FOUND = 10  # the log has rows that cannot be
SHOWN = 20


def smooth(
    model: options.MaybeModel = None,
    weights: options.Weights = None,
    data: options.Data = "digits",
    data_dir: options.DataDir = None,
    domain: options.Domain = None,
    noise: options.Noise = "gaussian",
    sigma: options.Sigma = None,
    keep: options.Keep = 0.1,
    draws: options.Draws = None,
    pilot: options.Pilot = 100,
    alpha: options.Alpha = None,
    certificate: options.Theorem = "cohen",
    norm: options.RadiusNorm = None,
    radii: options.TableRadii = None,
    n: options.Samples = None,
    skip: options.Skip = 1,
    seed: options.Seed = 0,
    threads: options.Threads = 1,
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    out: options.SmoothFolder = Path("out"),
    audit: options.Audit = None,
    quiet: options.Quiet = False,
    json_: options.Json = False,
) -> int:
    """Certify a smoothed classifier sample by sample, or audit a log of its radii."""
    if audit is not None:
        law = None if noise == "gaussian" and norm in (None, "2", "l2") else Noised(noise, keep, norm, data, data_dir)
        raise typer.Exit(_audit(audit, draws, alpha, sigma, law, json_))
    if model is None:
        raise InputError("expected --model, or --audit with a log")
    for name, value in (("--n", n), ("--skip", skip), ("--threads", threads)):
        at_least_one(name, value)
    seed_in_range(seed)
    hiring = options.hiring(workers, cluster)

    from assay.benchmarks.harness.smoothed import raise_alarm
    from assay.verify.backends.smoothing.kinds import ERASING
    from assay.verify.backends.smoothing.method import Smoothing

    erases = noise in ERASING
    norm, radii = norm or ("l0" if erases else "2"), radii or ("0,1,2,3,5" if erases else "0,0.25,0.5,0.75,1")
    asked, at = Asked(model, weights, data, data_dir, domain, norm.lower(), n, skip, seed), numbers("--radii", radii)
    if (parse_norm(norm, pixels=True) == 0) != erases:
        raise InputError("--norm l0 is for the noises masking and ablation, and they are for nothing else")
    use_threads(threads)
    sigma, alpha = 0.25 if sigma is None else sigma, 0.001 if alpha is None else alpha
    draws = 100_000 if draws is None else draws
    method = Smoothing(noise, sigma, draws, pilot, alpha, "fixed", certificate, keep)  # type: ignore[arg-type]
    rows, facts = _certify(asked, method, out, quiet, hiring)
    try:
        _report(rows, _write(rows, at, facts, asked, out), out, json_)
    finally:  # an alarm does not hide behind a disk that is full
        raise_alarm(rows, alpha)
    return lost([row.lost for row in rows if row.lost is not None])


@dataclass(frozen=True)
class Asked:
    """Which samples of what data set, through which model, in which norm."""

    model: str
    weights: Path | None
    data: str
    folder: Path | None
    domain: str | None
    norm: str
    n: int | None
    skip: int
    seed: int

    def __post_init__(self) -> None:
        parse_norm(self.norm, pixels=True)

    @property
    def p(self) -> float:
        """The norm as a number."""
        return parse_norm(self.norm, pixels=True)


def _certify(
    asked: Asked, method: Smoothing, out: Path, quiet: bool, hiring: Hiring
) -> tuple[list[Row], dict[str, Any]]:
    """The rows, of which smooth.csv has each as soon as it is decided, and what they are rows of."""
    from assay.benchmarks.harness import smoothed
    from assay.benchmarks.harness.progress import watch
    from assay.benchmarks.harness.sources import Named
    from assay.verify.support.files import writable_folder, write_atomic
    from assay.verify.support.signals import interruptible

    samples = options.samples(asked.data, asked.folder, asked.domain)
    indices = samples.indices(asked.n, asked.skip)
    module = options.fitting(asked.model, asked.weights, samples, whole=True)
    writable_folder(out)
    rows: list[Row] = []
    with interruptible(), watch(unit="sample", quiet=quiet) as progress:
        how = (
            asked.p,
            asked.seed,
            indices,
            progress,
            hiring,
            Named(asked.model, asked.weights, whole=True),
        )
        try:
            for row in smoothed.certify(module, samples, method, *how):
                insort(rows, row, key=attrgetter("index"))
                write_atomic(out / "smooth.csv", smoothed.table_text(rows).encode())
        except BaseException:  # an alarm does not hide behind what ends the run before its time
            smoothed.raise_alarm(rows, method.alpha)
            raise
    return rows, {
        "model": asked.model,
        "data": f"{samples.name} ({samples.split})",
        "subject": method.subject,
        "certificate": method.certificate,
        "norm": asked.norm,
        "n": method.n,
        "n0": method.n0,
        "seed": asked.seed,
        "command": shlex.join(["assay", *sys.argv[1:]]),
        "sigma": method.sigma,
        "keep": method.keep,
        "alpha": method.alpha,
    }


def _write(rows: list[Row], radii: Sequence[float], facts: dict[str, Any], asked: Asked, out: Path) -> dict[str, Any]:
    """smooth.json and smooth.png; returns the document."""
    from assay.benchmarks.harness import smoothed
    from assay.benchmarks.report import smoothed_figure
    from assay.verify.support.documents import dump
    from assay.verify.support.files import write_atomic

    document = smoothed.summary(rows, smoothed.curve(rows, radii, asked.p), facts)
    write_atomic(out / "smooth.json", f"{dump(document)}\n".encode())
    smoothed_figure.draw(rows, asked.p, _heading(rows, facts), out / "smooth.png")
    return document


def _report(rows: list[Row], document: dict[str, Any], out: Path, as_json: bool) -> None:
    """The table and what it does not say by itself: on stdout, or on stderr where stdout is the document."""
    from rich.console import Console

    from assay.benchmarks.report import layout
    from assay.verify.support.documents import dump

    console = Console(stderr=as_json)
    console.print(plain(", ".join(_heading(rows, document))), style="bold", markup=False, highlight=False)
    layout.show(_table(document["curve"]), console)
    for line in document["caveats"]:
        console.print(line, style="dim", markup=False)
    console.print(f"wrote {out / 'smooth.csv'}, {out / 'smooth.json'}, {out / 'smooth.png'}", markup=False)
    if as_json:
        print(dump(document))


def _heading(rows: list[Row], facts: dict[str, Any]) -> list[str]:
    theorem = "" if facts["certificate"] == "cohen" else f" by {facts['certificate']}"
    return [f"{facts['model']}, {facts['subject']}{theorem}", f"{counted(len(rows), 'sample')} of {facts['data']}"]


def _table(points: list[dict[str, Any]]) -> Table:
    from assay.benchmarks.report import layout

    grid = layout.grid(*map(layout.figure, ("radius", "certified", "95% CI", "samples")))
    for point in points:
        interval = f"{100 * point['low']:.1f}\u2013{100 * point['high']:.1f}"
        grid.add_row(f"{point['radius']:g}", f"{point['accuracy']:.1%}", interval, str(point["count"]))
    return grid


@dataclass(frozen=True)
class Noised:
    """What a log of other radii than those of Gaussian noise in l2 is about, as it was asked for."""

    noise: str
    keep: float
    norm: str | None
    data: str
    folder: Path | None

    def setting(self, n: int | None, alpha: float | None, sigma: float | None) -> Setting:
        """With all that is stated. Raises :class:`InputError` where something is missing that cannot be recovered."""
        from assay.benchmarks.harness.audit import Law, Setting
        from assay.verify.backends.smoothing.kinds import Kind
        from assay.verify.backends.smoothing.method import check_options

        kind = Kind(self.noise, 0.25 if sigma is None else sigma, self.keep)  # type: ignore[arg-type]
        if n is None or alpha is None or (sigma is None and not kind.erases):
            raise InputError(
                "--audit recovers what it is not told for gaussian noise in l2 alone: state --draws, --alpha and "
                + ("--keep" if kind.erases else "--sigma")
            )
        check_options(kind, n, 1, alpha)
        norm = parse_norm(self.norm or ("l0" if kind.erases else "2"), pixels=True)
        shape = options.samples(self.data, self.folder, None).shape
        return Setting(n, alpha, kind.sigma, Law(kind, norm, shape))


def _audit(
    path: Path, n: int | None, alpha: float | None, sigma: float | None, law: Noised | None, as_json: bool
) -> int:
    """Print what the log may have been made with and the rows that cannot be; 10 if there are any."""
    from assay.benchmarks.harness import audit
    from assay.verify.support.documents import dump

    entries = audit.read(path)
    at_least_one("--draws", n)
    stated = law is not None or None not in (n, alpha, sigma)
    if law is not None:
        fits = [audit.check(entries, law.setting(n, alpha, sigma))]
    elif n is not None and alpha is not None and sigma is not None:
        from assay.verify.backends.smoothing.kinds import Kind
        from assay.verify.backends.smoothing.method import check_options

        check_options(Kind("gaussian", sigma), n, 1, alpha)
        fits = [audit.check(entries, audit.Setting(n, alpha, sigma))]
    else:
        fits = [fit for fit in audit.recover(entries) if _agrees(fit, n, alpha, sigma)]
    if as_json:
        print(dump({"rows": len(entries), "stated": stated, "fits": [_plain(fit) for fit in fits]}))
    else:
        _tell(path, len(entries), fits, stated)
    return FOUND if not fits or fits[0].faults else 0


def _agrees(fit: Fit, n: int | None, alpha: float | None, sigma: float | None) -> bool:
    setting = fit.setting
    return all(want in (None, have) for want, have in ((n, setting.n), (alpha, setting.alpha), (sigma, setting.sigma)))


def _plain(fit: Fit) -> dict[str, object]:
    faults = [{"line": fault.entry.line, "radius": fault.entry.radius, "why": fault.why} for fault in fit.faults]
    setting, law = fit.setting, fit.setting.law
    named = {} if law is None else {"noise": str(law.kind), "norm": law.norm}
    facts = {"n": setting.n, "alpha": setting.alpha, "sigma": setting.sigma}
    return {**facts, **named, "chance": fit.chance, "faults": faults}


def _tell(path: Path, rows: int, fits: list[Fit], stated: bool) -> None:

    if not fits:
        print(f"{plain(path)}: {counted(rows, 'row')}, and no customary setting that they could come from")
        return
    first, *others = fits
    verb = "stated" if stated else "recovered"
    print(f"{plain(path)}: {counted(rows, 'row')}; {verb}: {first.setting}")
    if others:
        print("as good: " + "; ".join(str(fit.setting) for fit in others))
    if not first.faults:
        print("every row can come from it")
    for fault in first.faults[:SHOWN]:
        print(f"line {fault.entry.line} cannot: {fault.why}")
    if len(first.faults) > SHOWN:
        print(f"and {len(first.faults) - SHOWN} more")
