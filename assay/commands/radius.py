"""``assay radius``: how far a sample may move before the model errs, between a proof and a counterexample."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.checks import at_least_one, cores, positive, seed_in_range
from assay.verify.core.errors import InputError
from assay.verify.core.norms import norm_name, parse_norm

if TYPE_CHECKING:
    from rich.console import Console

    from assay.benchmarks.harness.radius import Bracket, Radii

DIGITS = 4  # of a radius, in print


def radius(
    model: Annotated[
        str, typer.Option(help="zoo:NAME, file.onnx, file.safetensors, path/file.py:factory or module:factory.")
    ],
    data: Annotated[
        str, typer.Option(help="digits, fashion-mnist, mnist, cifar10 or file.npz; its test split is used.")
    ] = "digits",
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder with the data set's files; $ASSAY_DATA and others if not given.")
    ] = None,
    index: Annotated[
        int | None, typer.Option(help="Position of the sample; 0 if neither this nor --n is given.")
    ] = None,
    n: Annotated[int | None, typer.Option("--n", help="The first so many samples instead of one.")] = None,
    method: Annotated[
        str, typer.Option(help="Method that certifies, with options as in 'milp(solver=scip)'.")
    ] = "crown",
    attack: Annotated[str, typer.Option(help="Attack, likewise: 'pgd(steps=100)'.")] = "pgd",
    norm: Annotated[str, typer.Option(help="Norm of the ball: inf, 2 or 1.")] = "inf",
    tolerance: Annotated[float, typer.Option(help="How exactly each end is found, in the units of the data.")] = 1e-3,
    timeout: Annotated[float, typer.Option(help="Seconds for each sample.")] = inf,
    seed: Annotated[int, typer.Option(help="Seed of whatever is random.")] = 0,
    threads: Annotated[int, typer.Option(help="Threads of torch and of solvers.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder for the cases of soundness alarms, if there are any.")] = Path(
        "out"
    ),
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")] = False,
) -> None:
    """Find the largest eps that is certified and the smallest that is attacked, by bisection."""
    order = parse_norm(norm)
    if index is not None and n is not None:
        raise InputError("expected --index or --n, not both")
    if index is not None and index < 0:
        raise InputError(f"--index must be at least 0, got {index}")
    at_least_one("--n", n)
    at_least_one("--threads", threads)
    positive("--tolerance", tolerance, "the data's units")
    positive("--timeout", timeout, "seconds")
    seed_in_range(seed)

    import torch
    from rich.console import Console

    from assay.attacks import get_attack
    from assay.benchmarks.harness.progress import watch
    from assay.benchmarks.harness.radius import radii
    from assay.models import data as datasets
    from assay.models.resolve import resolve
    from assay.verify.core.budget import Budget
    from assay.verify.registry import get_verifier
    from assay.verify.support.documents import dump
    from assay.verify.support.signals import interruptible

    threads = min(threads, cores())
    torch.set_num_threads(threads)
    verifier, attacker = get_verifier(method), get_attack(attack)
    samples = datasets.load(data, folder=data_dir)
    if n is not None:
        samples = samples.take(n)
    with interruptible(), watch(unit="samples") as progress:
        found = radii(
            resolve(model).module,
            samples,
            [index or 0] if n is None else range(n),
            verifier,
            attacker,
            norm=order,
            tolerance=tolerance,
            budget=Budget(timeout, seed=seed, threads=threads),
            name=model,
            alarm_folder=out / "alarms",
            progress=progress,
        )
    if json_:
        print(dump(found.to_json()))
    else:
        show(found, Console())
    found.raise_alarm()


def show(found: Radii, console: Console) -> None:
    """Print the brackets, what is certified rounded down and what is attacked rounded up."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from assay.verify.support.plain import plain

    head = f"{plain(found.model)} on {plain(found.data)}, {norm_name(found.norm)}, within {found.tolerance:g}"
    grid = Table(title=Text(head, "bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("sample", "label"):
        grid.add_column(column, justify="right")
    for column in (f"certified by {plain(found.method)}", f"attacked by {plain(found.attack)}"):
        grid.add_column(column, justify="right", overflow="fold")
    grid.add_column("seconds", justify="right")
    grid.add_column("")
    for one in found.brackets:
        ends = (
            ("", "") if one.certified is None or one.attacked is None else (below(one.certified), above(one.attacked))
        )
        grid.add_row(str(one.sample), str(one.label), *ends, f"{one.seconds:.1f}", remark(one))
    console.print(grid)
    for alarm in found.alarms:
        console.print(Text(f"SOUNDNESS ALARM: {plain(alarm.explanation)}", "bold red"))


def remark(one: Bracket) -> str:
    """What the figures alone do not say."""
    if one.certified is None:
        return "SOUNDNESS ALARM"
    if not one.right:
        return f"misclassified as {one.predicted}: radius 0"
    expected = one.reason is None or one.reason == "incomplete"
    return "" if expected else f"no further: {one.reason}"


def below(value: float) -> str:
    """A few digits, rounded down.

    >>> below(0.123456), above(0.123456), above(float("inf"))
    ('0.1234', '0.1235', 'inf')
    """
    return _rounded(value, ROUND_FLOOR)


def above(value: float) -> str:
    """A few digits, rounded up."""
    return _rounded(value, ROUND_CEILING)


def _rounded(value: float, rounding: str) -> str:
    if value == inf:
        return "inf"
    short = Context(prec=DIGITS, rounding=rounding).create_decimal(Decimal(value))
    return f"{short.normalize():f}"
