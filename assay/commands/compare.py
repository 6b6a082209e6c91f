"""``assay compare``: the bracket around a model's robust accuracy on a data set."""

from __future__ import annotations

import os
import shlex
import sys
from math import inf, isfinite, isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from verify.core.errors import InputError, unknown_name

if TYPE_CHECKING:
    from attacks.base import Attack
    from verify.core.verifier import Verifier

NORMS = {"inf": inf, "linf": inf, "2": 2.0, "l2": 2.0, "1": 1.0, "l1": 1.0}


def compare(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="zoo:NAME, file.safetensors, path/file.py:factory or module:factory.")],
    eps: Annotated[str, typer.Option(help="Radii in the units of the data, with commas: 0.02,0.05,0.1.")],
    data: Annotated[str, typer.Option(help="Data set; its test split is used.")] = "digits",
    methods: Annotated[
        str, typer.Option(help="Methods that certify, with commas; options as in 'crown(option=value)'.")
    ] = "ibp,crown",
    attacks: Annotated[str, typer.Option(help="Attacks, likewise: 'fgsm,pgd(steps=100)'.")] = "fgsm,pgd",
    n: Annotated[int | None, typer.Option("--n", help="The first so many samples; all if not given.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for results.sqlite, summary.json and bracket.png.")] = Path("out"),
    norm: Annotated[str, typer.Option(help="Norm of the ball: inf, 2 or 1.")] = "inf",
    seed: Annotated[int, typer.Option(help="Seed of whatever is random.")] = 0,
    batch: Annotated[int, typer.Option(help="Samples treated at once.")] = 50,
    timeout: Annotated[float, typer.Option(help="Seconds for each sample and method.")] = inf,
    threads: Annotated[int | None, typer.Option(help="Threads of torch; its own choice if not given.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print summary.json on stdout, the table on stderr.")] = False,
) -> None:
    """Bound a model's robust accuracy from above by attacks and from below by certificates."""
    radii = _radii(eps)
    p = _norm(norm)
    for value, name in ((n, "--n"), (batch, "--batch"), (threads, "--threads")):
        if value is not None and value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    if isnan(timeout) or timeout <= 0:
        raise InputError(f"--timeout must be a number of seconds > 0, got {timeout}")
    if not 0 <= seed < 2**63:
        raise InputError(f"--seed must be a whole number from 0 to 2^63 - 1, got {seed}")

    import torch
    from rich.console import Console

    from benchmarks import figure, harness, report
    from benchmarks.files import writable_folder
    from benchmarks.progress import watch
    from benchmarks.store import Store
    from models import data as datasets
    from models.resolve import resolve
    from verify.core.budget import Budget

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(min(threads or torch.get_num_threads(), cores))
    verifiers, attackers = _methods(methods), _attacks(attacks)
    if not verifiers and not attackers:
        raise InputError("expected at least one method or attack: --methods ibp,crown --attacks fgsm,pgd")
    samples = datasets.load(data)
    if n is not None:
        samples = samples.take(n)
    module = resolve(model).module
    writable_folder(out)

    command = ["assay", *context.obj]
    with Store(out / "results.sqlite") as store, watch() as progress:
        store.begin(shlex.join(command), model, data)
        comparison = harness.compare(
            module,
            samples,
            radii,
            verifiers,
            attackers,
            norm=p,
            budget=Budget(timeout, seed=seed, threads=torch.get_num_threads()),
            batch=batch,
            name=model,
            store=store,
            alarm_folder=out / "alarms",
            progress=progress,
        )
    document = report.summary(comparison, command)
    report.write_summary(document, out / "summary.json")
    figure.draw(comparison, out / "bracket.png")
    report.show(comparison, Console(stderr=json_))
    if json_:
        print(report.dump(document))
    written = ", ".join(str(out / name) for name in ("results.sqlite", "summary.json", "bracket.png"))
    print(f"{comparison.seconds:.1f} s; wrote {written}", file=sys.stderr if json_ else sys.stdout)
    comparison.raise_alarm()


def _radii(text: str) -> list[float]:
    """The radii of ``0.02,0.05,0.1``, sorted, each once."""
    radii = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            radius = float(part)
        except ValueError:
            raise InputError(f"--eps: expected numbers with commas between them, got {part!r}") from None
        if not isfinite(radius) or radius < 0:
            raise InputError(f"--eps: expected finite numbers >= 0, got {part}")
        radii.append(radius)
    if not radii:
        raise InputError("--eps: expected at least one radius, such as 0.02,0.05,0.1")
    return sorted(set(radii))


def _norm(text: str) -> float:
    if text.lower() not in NORMS:
        raise unknown_name("norm", text, NORMS)
    return NORMS[text.lower()]


def _methods(text: str) -> list[Verifier]:
    from verify.core.options import split
    from verify.registry import get_verifier

    return [get_verifier(part) for part in split(text)]


def _attacks(text: str) -> list[Attack]:
    from attacks import get_attack
    from verify.core.options import split

    return [get_attack(part) for part in split(text)]
