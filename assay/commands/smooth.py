"""``assay smooth``: certified radii of a smoothed classifier over a data set, and the audit of a log of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.checks import at_least_one, cores, seed_in_range
from assay.commands.compare import NORMS
from verify.core.errors import InputError, unknown_name

if TYPE_CHECKING:
    from rich.table import Table

    from benchmarks.audit import Fit
    from benchmarks.smoothed import Point, Row

FOUND = 10  # the log has rows that cannot be
SHOWN = 20


def smooth(
    model: Annotated[
        str, typer.Option(help="zoo:NAME, file.onnx, file.safetensors, path/file.py:factory or module:factory.")
    ] = "",
    data: Annotated[
        str, typer.Option(help="digits, fashion-mnist, mnist, cifar10 or file.npz; its test split is used.")
    ] = "digits",
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder with the data set's files; $ASSAY_DATA and others if not given.")
    ] = None,
    noise: Annotated[str, typer.Option(help="Kind of noise; see assay methods, smoothing.")] = "gaussian",
    sigma: Annotated[
        float | None, typer.Option(help="Root mean square of the noise in each value; 0.25 if not given.")
    ] = None,
    draws: Annotated[int | None, typer.Option(help="Draws for each sample; 100000 if not given.")] = None,
    pilot: Annotated[int, typer.Option(help="Draws that choose the class, beforehand.")] = 100,
    alpha: Annotated[
        float | None, typer.Option(help="Chance that a sample's radius may be wrong; 0.001 if not given.")
    ] = None,
    norm: Annotated[str, typer.Option(help="Norm of the radii: 2, 1 or inf.")] = "2",
    radii: Annotated[str, typer.Option(help="Radii of the table, with commas.")] = "0,0.25,0.5,0.75,1",
    n: Annotated[int | None, typer.Option("--n", help="So many samples; all if not given.")] = None,
    skip: Annotated[int, typer.Option(help="Take every so many-th sample.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    threads: Annotated[int, typer.Option(help="Threads of torch.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder for smooth.csv, smooth.json and smooth.png.")] = Path("out"),
    audit: Annotated[
        Path | None,
        typer.Option(help="Instead: audit this log of radii against the options that are given, or recover them."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Certify a smoothed classifier sample by sample, or audit a log of its radii."""
    if audit is not None:
        raise typer.Exit(_audit(audit, draws, alpha, sigma, json_))
    if not model:
        raise InputError("expected --model, or --audit with a log")
    if norm.lower() not in NORMS:
        raise unknown_name("norm", norm, NORMS)
    for name, value in (("--n", n), ("--skip", skip), ("--threads", threads)):
        at_least_one(name, value)
    seed_in_range(seed)
    at = _numbers(radii)

    import shlex
    import sys

    import torch
    from rich.console import Console

    from benchmarks import smoothed
    from benchmarks.documents import dump
    from benchmarks.files import writable_folder, write_atomic
    from benchmarks.progress import watch
    from benchmarks.signals import interruptible
    from models import data as datasets
    from models.resolve import resolve
    from verify.backends.smoothing.method import Smoothing

    torch.set_num_threads(min(threads, cores()))
    chosen = {"sigma": 0.25 if sigma is None else sigma, "alpha": 0.001 if alpha is None else alpha}
    method = Smoothing(noise, chosen["sigma"], 100_000 if draws is None else draws, pilot, chosen["alpha"])  # type: ignore[arg-type]
    samples = datasets.load(data, folder=data_dir)
    indices = range(0, len(samples), skip)[:n]
    module = resolve(model).module
    writable_folder(out)
    rows: list[Row] = []
    with interruptible(), watch(unit="samples") as progress:
        for row in smoothed.certify(module, samples, method, NORMS[norm.lower()], seed, indices, progress):
            rows.append(row)
            write_atomic(out / "smooth.csv", smoothed.table_text(rows).encode())
    points = smoothed.curve(rows, at)
    facts = {
        "model": model,
        "data": f"{samples.name} ({samples.split})",
        "subject": method.subject,
        "norm": norm,
        "n": method.n,
        "n0": method.n0,
        "seed": seed,
        "command": shlex.join(["assay", *sys.argv[1:]]),
        **chosen,
    }
    document = smoothed.summary(rows, points, facts)
    write_atomic(out / "smooth.json", f"{dump(document)}\n".encode())
    heading = [f"{model}, {method.subject}", f"{len(rows)} samples of {data}"]
    smoothed.draw(rows, NORMS[norm.lower()], heading, out / "smooth.png")
    console = Console(stderr=json_)
    console.print(_table(points, ", ".join(heading)))
    for line in document["caveats"]:
        console.print(line, style="dim", markup=False)
    console.print(f"wrote {out / 'smooth.csv'}, {out / 'smooth.json'}, {out / 'smooth.png'}", markup=False)
    if json_:
        print(dump(document))


def _table(points: list[Point], heading: str) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from benchmarks.plain import plain

    table = Table(title=Text(plain(heading), "bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("radius", "certified", "95% CI", "samples"):
        table.add_column(column, justify="right", no_wrap=True)
    for point in points:
        interval = f"{100 * point.low:.1f}\u2013{100 * point.high:.1f}"
        table.add_row(f"{point.radius:g}", f"{point.accuracy:.1%}", interval, str(point.count))
    return table


def _audit(path: Path, n: int | None, alpha: float | None, sigma: float | None, as_json: bool) -> int:
    """Print what the log may have been made with and the rows that cannot be; 10 if there are any."""
    from benchmarks import audit
    from benchmarks.documents import dump

    entries = audit.read(path)
    at_least_one("--draws", n)
    stated = None not in (n, alpha, sigma)
    if n is not None and alpha is not None and sigma is not None:
        from verify.backends.smoothing.method import check_options

        check_options("gaussian", sigma, n, 1, alpha)
        fits = [audit.check(entries, audit.Setting(n, alpha, sigma))]
    else:
        fits = [fit for fit in audit.recover(entries) if _agrees(fit, n, alpha, sigma)]
    if as_json:
        print(dump({"rows": len(entries), "stated": stated, "fits": [_plain(fit) for fit in fits]}))
    else:
        _tell(path, len(entries), fits, stated)
    return FOUND if not fits or fits[0].faults else 0


def _agrees(fit: Fit, n: int | None, alpha: float | None, sigma: float | None) -> bool:
    found = fit.setting
    return all(want in (None, have) for want, have in ((n, found.n), (alpha, found.alpha), (sigma, found.sigma)))


def _plain(fit: Fit) -> dict[str, object]:
    faults = [{"line": fault.entry.line, "radius": fault.entry.radius, "why": fault.why} for fault in fit.faults]
    return {**vars(fit.setting), "chance": fit.chance, "faults": faults}


def _tell(path: Path, rows: int, fits: list[Fit], stated: bool) -> None:
    from benchmarks.plain import plain

    if not fits:
        print(f"{plain(path)}: {rows} rows, and no customary setting that they could come from")
        return
    first, *others = fits
    verb = "stated" if stated else "recovered"
    print(f"{plain(path)}: {rows} rows; {verb}: {first.setting}")
    if others:
        print("as good: " + "; ".join(str(fit.setting) for fit in others))
    if not first.faults:
        print("every row can come from it")
    for fault in first.faults[:SHOWN]:
        print(f"line {fault.entry.line} cannot: {fault.why}")
    if len(first.faults) > SHOWN:
        print(f"and {len(first.faults) - SHOWN} more")


def _numbers(text: str) -> list[float]:
    numbers = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            numbers.append(float(part))
        except ValueError:
            raise InputError(f"--radii: expected numbers with commas between them, got {part!r}") from None
    if not numbers or not all(0 <= number < float("inf") for number in numbers):
        raise InputError(f"--radii: expected finite numbers >= 0, got {text!r}")
    return numbers
