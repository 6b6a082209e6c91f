"""``assay compare``: the bracket around a model's robust accuracy on a data set."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf, isfinite, isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.plain import plain
from verify.core.errors import InputError, unknown_name

if TYPE_CHECKING:
    from attacks.base import Attack
    from benchmarks.store import Store
    from verify.core.verifier import Verifier

NORMS = {"inf": inf, "linf": inf, "2": 2.0, "l2": 2.0, "1": 1.0, "l1": 1.0}


def compare(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="zoo:NAME, file.safetensors, path/file.py:factory or module:factory.")],
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
    from benchmarks.signals import interruptible
    from benchmarks.store import Store
    from models import data as datasets
    from models.resolve import resolve
    from verify.core.budget import Budget

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(min(threads or torch.get_num_threads(), cores))
    verifiers, attackers = _methods(methods), _attacks(attacks)
    if not verifiers and not attackers:
        raise InputError("expected at least one method or attack: --methods ibp,crown --attacks fgsm,pgd")
    samples = datasets.load(data, folder=data_dir)
    if n is not None:
        samples = samples.take(n)
    module = resolve(model).module
    writable_folder(out)

    command = ["assay", *context.obj]
    with interruptible(), Store(out / "results.sqlite") as store, _hint(store), watch() as progress:
        _survey(store, resume)
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
    document = report.summary(comparison, command)
    report.write_summary(document, out / "summary.json")
    figure.draw(comparison, out / "bracket.png")
    report.show(comparison, Console(stderr=json_))
    if json_:
        print(report.dump(document))
    if resume:
        print(f"assay: {comparison.resumed} verdicts taken from {out / 'results.sqlite'}", file=sys.stderr)
    written = ", ".join(str(out / name) for name in ("results.sqlite", "summary.json", "bracket.png"))
    print(f"{comparison.seconds:.1f} s; wrote {written}", file=sys.stderr if json_ else sys.stdout)
    comparison.raise_alarm()


@contextmanager
def _hint(store: Store) -> Iterator[None]:
    """Says, on an interrupt, how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"assay: what was finished is in {plain(store.path)}; --resume goes on from there", file=sys.stderr)
        raise


def _survey(store: Store, resume: bool) -> None:
    """Moves unreadable rows out of the way, and says so; says what cannot be resumed."""
    for fault in store.quarantine():
        print(f"assay: {plain(store.path)}: moved to its table quarantine: {plain(fault)}", file=sys.stderr)
    if resume and (strangers := store.strangers()):
        what = f"{strangers} rows were decided by another version of assay: they are kept, but not used"
        print(f"assay: {plain(store.path)}: {what}", file=sys.stderr)


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
