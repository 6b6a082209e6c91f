"""``assay attack``: what attacks leave standing of a model on a data set, or a counterexample of a VNN-LIB property."""

from __future__ import annotations

import io
import sys
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.checks import at_least_one, cores, seed_in_range
from assay.commands.compare import attacks_of, radii_of
from assay.commands.verify import verify
from assay.verify.core.errors import InputError
from assay.verify.core.norms import parse_norm
from assay.verify.support.plain import plain

if TYPE_CHECKING:
    from assay.benchmarks.harness.attacked import Attacked

ON_DATA = "fgsm,pgd,apgd-ce,fmn"
ON_PROPERTY = "pgd(steps=100,step_size=0.1,momentum=0.9,loss=margin,random_start=true,diversify=10)"
FOR_DATA = ("data", "data_dir", "n", "norm", "batch", "save")  # options that a property has no use for
ROUNDS, ENDLESS = 20, 10**9


def attack(
    context: typer.Context,
    net: Annotated[
        Path | None, typer.Argument(metavar="NET", help="ONNX file: with PROP, the property is attacked.")
    ] = None,
    prop: Annotated[Path | None, typer.Argument(metavar="PROP", help="VNN-LIB file.")] = None,
    model: Annotated[
        str | None, typer.Option(help="zoo:NAME, file.onnx, file.safetensors, path/file.py:factory or module:factory.")
    ] = None,
    data: Annotated[
        str, typer.Option(help="digits, fashion-mnist, mnist, cifar10 or file.npz; its test split is used.")
    ] = "digits",
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder with the data set's files; $ASSAY_DATA and others if not given.")
    ] = None,
    eps: Annotated[str | None, typer.Option(help="Radii in the units of the data, with commas: 0.05,0.1.")] = None,
    attacks: Annotated[
        str | None, typer.Option(help="Attacks, with commas; options as in 'pgd(steps=100)'; 'foolbox:LinfPGD' too.")
    ] = None,
    n: Annotated[int | None, typer.Option("--n", help="The first so many samples; all if not given.")] = None,
    norm: Annotated[str, typer.Option(help="Norm of the ball: inf, 2 or 1.")] = "inf",
    seed: Annotated[int, typer.Option(help="Seed of whatever is random.")] = 0,
    batch: Annotated[int, typer.Option(help="Samples attacked at once; changes no result.")] = 100,
    threads: Annotated[int | None, typer.Option(help="Threads of torch; its own choice if not given.")] = None,
    save: Annotated[Path | None, typer.Option(help="Folder for adversarial.npz, sheet.png and summary.json.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for a property, reading included.")] = inf,
    results: Annotated[Path | None, typer.Option(help="File for the answer to a property, besides stdout.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON document, the table on stderr.")] = False,
) -> int:
    """Attack a model on a data set: robust accuracy by attack and radius. Or search a counterexample of a property."""
    if net is not None:
        if prop is None or model is not None or eps is not None:
            raise InputError("expected NET PROP, or --model with --eps: assay attack --help shows both")
        idle = [name for name in FOR_DATA if _given(context, name)]
        if idle:
            raise InputError(f"--{idle[0].replace('_', '-')} is for data sets, and means nothing for NET PROP")
        rounds = ENDLESS if timeout < inf else ROUNDS
        named = "+".join(_texts(ON_PROPERTY if attacks is None else attacks))
        method = f"attack(attack={named},rounds={rounds},targeted=true)"
        return verify(net, prop, method, timeout, results, seed, threads or 1, json_=json_)
    if model is None or eps is None:
        raise InputError("expected --model and --eps, or NET PROP: assay attack --help shows both")
    on_data(
        context,
        model,
        data,
        data_dir,
        eps,
        ON_DATA if attacks is None else attacks,
        n,
        norm,
        seed,
        batch,
        threads,
        save,
        json_,
    )
    return 0


def on_data(
    context: typer.Context,
    model: str,
    data: str,
    data_dir: Path | None,
    eps: str,
    attacks: str,
    n: int | None,
    norm: str,
    seed: int,
    batch: int,
    threads: int | None,
    save: Path | None,
    json_: bool,
) -> None:
    """The table of a data set, and what is saved of it."""
    radii, p = radii_of(eps), parse_norm(norm)
    for name, value in (("--n", n), ("--batch", batch), ("--threads", threads)):
        at_least_one(name, value)
    seed_in_range(seed)

    import torch
    from rich.console import Console

    from assay.benchmarks.harness import attacked
    from assay.benchmarks.harness.progress import watch
    from assay.benchmarks.report import attack_table
    from assay.models import data as datasets
    from assay.models.resolve import resolve
    from assay.verify.support.documents import dump
    from assay.verify.support.files import writable_folder
    from assay.verify.support.signals import interruptible

    torch.set_num_threads(min(threads or torch.get_num_threads(), cores()))
    chosen = attacks_of(attacks)
    samples = datasets.load(data, folder=data_dir)
    samples = samples if n is None else samples.take(n)
    module = resolve(model).module
    folder = None if save is None else writable_folder(save)
    with interruptible(), watch() as progress:
        found = attacked.attack_all(
            module, samples, radii, chosen, norm=p, seed=seed, batch=batch, name=model, progress=progress
        )
    document = attacked.document(found, ["assay", *context.obj])
    attack_table.show(found, Console(stderr=json_))
    if folder is not None:
        written = _save(found, document, folder)
        print(f"wrote {', '.join(map(plain, written))}", file=sys.stderr if json_ else sys.stdout)
    if json_:
        print(dump(document))


def _save(found: Attacked, document: dict[str, Any], folder: Path) -> list[Path]:
    """Write the points, the sheet and the summary; returns what was written."""
    import numpy as np

    from assay.benchmarks.harness import attacked
    from assay.benchmarks.report import image_sheet
    from assay.verify.support.documents import dump
    from assay.verify.support.files import write_atomic

    buffer = io.BytesIO()
    named: dict[str, Any] = {name: tensor.numpy() for name, tensor in attacked.arrays(found).items()}
    np.savez_compressed(buffer, **named)
    paths = [folder / name for name in ("adversarial.npz", "summary.json", "sheet.png")]
    write_atomic(paths[0], buffer.getvalue())
    write_atomic(paths[1], f"{dump(document)}\n".encode())
    return paths if image_sheet.draw(found, paths[2]) else paths[:2]


def _given(context: typer.Context, option: str) -> bool:
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def _texts(text: str) -> list[str]:
    from assay.verify.support.options import split

    return split(text)
