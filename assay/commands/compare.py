"""``assay compare``: the bracket around a model's robust accuracy on a data set."""

from __future__ import annotations

import shlex
import sys
from math import inf, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.checks import at_least_one, cores, positive, seed_in_range
from assay.notes import hint, survey
from assay.verify.core.errors import InputError
from assay.verify.core.norms import parse_norm

if TYPE_CHECKING:
    from assay.attacks.common.interface import Attack
    from assay.benchmarks.harness.compare import Comparison
    from assay.verify.core.verifier import Verifier


def compare(
    context: typer.Context,
    model: Annotated[
        str, typer.Option(help="zoo:NAME, file.onnx, file.safetensors, path/file.py:factory or module:factory.")
    ],
    eps: Annotated[str, typer.Option(help="Radii in the units of the data, with commas: 0.02,0.05,0.1.")],
    data: Annotated[
        str, typer.Option(help="digits, fashion-mnist, mnist, cifar10 or file.npz; its test split is used.")
    ] = "digits",
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder with the data set's files; $ASSAY_DATA and others if not given.")
    ] = None,
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
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Take finished verdicts from results.sqlite; undecided ones need more time."),
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print summary.json on stdout, the table on stderr.")] = False,
) -> None:
    """Bound a model's robust accuracy from above by attacks and from below by certificates."""
    radii, p = radii_of(eps), parse_norm(norm)
    for name, value in (("--n", n), ("--batch", batch), ("--threads", threads)):
        at_least_one(name, value)
    positive("--timeout", timeout, "seconds")
    seed_in_range(seed)

    import torch

    from assay.benchmarks.harness import compare as harness
    from assay.benchmarks.harness.progress import watch
    from assay.benchmarks.harness.store import Store
    from assay.models import data as datasets
    from assay.models.resolve import resolve
    from assay.verify.core.budget import Budget
    from assay.verify.support.files import writable_folder
    from assay.verify.support.signals import interruptible

    torch.set_num_threads(min(threads or torch.get_num_threads(), cores()))
    verifiers, attackers = _methods(methods), attacks_of(attacks)
    if not verifiers and not attackers:
        raise InputError("expected at least one method or attack: --methods ibp,crown --attacks fgsm,pgd")
    samples = datasets.load(data, folder=data_dir)
    samples = samples if n is None else samples.take(n)
    module = resolve(model).module
    writable_folder(out)

    command = ["assay", *context.obj]
    with interruptible(), Store(out / "results.sqlite") as store, hint(store), watch() as progress:
        survey(store, resume)
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
            resume=resume,
            alarm_folder=out / "alarms",
            progress=progress,
        )
    _tell(comparison, command, out, resume, json_)
    comparison.raise_alarm()


def _tell(comparison: Comparison, command: list[str], out: Path, resumed: bool, as_json: bool) -> None:
    """Summary and picture, written; the table, or the summary as JSON with the table on stderr."""
    from rich.console import Console

    from assay.benchmarks.report import bracket_figure, tables

    document = tables.summary(comparison, command)
    tables.write_summary(document, out / "summary.json")
    bracket_figure.draw(comparison, out / "bracket.png")
    tables.show(comparison, Console(stderr=as_json))
    if as_json:
        print(tables.dump(document))
    if resumed:
        print(f"assay: {comparison.resumed} verdicts taken from {out / 'results.sqlite'}", file=sys.stderr)
    written = ", ".join(str(out / name) for name in ("results.sqlite", "summary.json", "bracket.png"))
    print(f"{comparison.seconds:.1f} s; wrote {written}", file=sys.stderr if as_json else sys.stdout)


def radii_of(text: str) -> list[float]:
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


def _methods(text: str) -> list[Verifier]:
    from assay.verify.registry import get_verifier
    from assay.verify.support.options import split

    return [get_verifier(part) for part in split(text)]


def attacks_of(text: str) -> list[Attack]:
    """The attacks of ``fgsm,pgd(steps=100)``."""
    from assay.attacks import get_attack
    from assay.verify.support.options import split

    return [get_attack(part) for part in split(text)]
