"""``assay perturb``: how a model stands against turns, shifts, brightness and the like: ``assay compare`` under a
perturbation, with attacks and time limits that suit it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay import options
from assay.commands.compare import compare


def perturb(
    context: typer.Context,
    model: options.Model,
    perturbation: Annotated[str, typer.Option(help=f"What happens to the images: {options.PERTURBATIONS}")],
    eps: Annotated[str, typer.Option(help="Shares of the parameters' ranges, with commas.")] = "1",
    weights: options.Weights = None,
    data: options.Data = "digits",
    data_dir: options.DataDir = None,
    n: options.First = None,
    methods: Annotated[
        str, typer.Option(help="Methods that certify each cell of the parameters, with commas.")
    ] = "crown",
    attacks: Annotated[str, typer.Option(help="Attacks on the parameters, likewise.")] = "grid(points=256),pgd",
    timeout: Annotated[float, typer.Option(help="Seconds for each sample and method.")] = 60.0,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder for results.sqlite, summary.json and bracket.png.")
    ] = Path("out"),
    seed: options.Seed = 0,
    threads: options.Threads = None,
    workers: options.Workers = None,
    resume: Annotated[bool, typer.Option("--resume", help="Take finished verdicts from results.sqlite.")] = False,
    report: options.Report = None,
    quiet: options.Quiet = False,
    json_: options.Json = False,
) -> int:
    """Certify images against every value of a perturbation's parameters, and look for values that break them."""
    return compare(
        context,
        model,
        eps,
        perturbation=perturbation,
        weights=weights,
        data=data,
        data_dir=data_dir,
        n=n,
        methods=methods,
        attacks=attacks,
        timeout=timeout,
        out=out,
        seed=seed,
        threads=threads,
        workers=workers,
        resume=resume,
        report=report,
        quiet=quiet,
        json_=json_,
    )
