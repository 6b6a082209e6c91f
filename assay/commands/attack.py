"""``assay attack``: what attacks leave standing of a model on a data set, or a counterexample of a VNN-LIB property."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from assay import options
from assay.commands.verify import verify
from assay.comparing import limits
from assay.notes import lost, wide
from assay.verify.core.errors import InputError
from assay.verify.core.norms import parse_norm
from assay.verify.support.files import writable_folder
from assay.verify.support.plain import plain
from assay.verify.support.signals import interruptible
from assay.written import numbers

if TYPE_CHECKING:
    from assay.benchmarks.harness.attacked import Attacked

ON_DATA = "fgsm,pgd,apgd-ce,fmn"
ON_PROPERTY = "pgd(steps=100,step_size=0.1,momentum=0.9,loss=margin,random_start=true,diversify=10)"
FOR_DATA = (
    "weights",
    "data",
    "data_dir",
    "domain",
    "eps_scale",
    "n",
    "norm",
    "batch",
    "save",
    "workers",
    "cluster",
)  # options that a property has no use for
FOR_PROPERTY = ("timeout", "results")  # and those that data sets have no use for
ROUNDS, ENDLESS = 20, 10**9


def attack(
    context: typer.Context,
    net: options.MaybeNet = None,
    prop: options.MaybeProperty = None,
    model: options.MaybeModel = None,
    weights: options.Weights = None,
    data: options.Data = "digits",
    data_dir: options.DataDir = None,
    domain: options.Domain = None,
    eps_scale: options.EpsScale = None,
    eps: options.MaybeEps = None,
    attacks: options.MaybeAttacks = None,
    n: options.First = None,
    norm: options.NormOrPixels = "inf",
    seed: options.Seed = 0,
    batch: options.Batch = 100,
    threads: options.Threads = None,
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    save: options.AttackFolder = None,
    timeout: options.PropertyTimeout = inf,
    results: options.AnswerFile = None,
    quiet: options.Quiet = False,
    json_: options.Json = False,
) -> int:
    """Attack a model on a data set: robust accuracy by attack and radius; or look for a property's counterexample."""
    if net is not None:
        if prop is None or model is not None or eps is not None:
            raise InputError("expected NET PROP, or --model with --eps: assay attack --help shows both")
        _refuse(context, FOR_DATA, "is for data sets, and means nothing for NET PROP")
        return verify(net, prop, _method(attacks, timeout), timeout, results, seed, threads or 1, json_=json_)
    if model is None or eps is None:
        raise InputError("expected --model and --eps, or NET PROP: assay attack --help shows both")
    _refuse(context, FOR_PROPERTY, "is for NET PROP, and means nothing for data sets")
    asked, eps_scale = options.eps_map(eps, eps_scale)
    radii, p = numbers("--eps", asked), parse_norm(norm, pixels=True)
    hiring = options.hiring(workers, cluster)
    limits(n, batch, inf, seed, threads, workers, "cpu")

    from assay.benchmarks.harness import attacked
    from assay.benchmarks.harness.progress import watch
    from assay.benchmarks.harness.sources import Named

    chosen = options.attacks(ON_DATA if attacks is None else attacks)
    samples = options.samples(data, data_dir, domain, n, eps_scale)
    wide(radii, p, samples)
    module = options.fitting(model, weights, samples, whole=True)
    folder = None if save is None else writable_folder(save)
    by = partial(attacked.attack_all, norm=p, seed=seed, batch=batch, name=model, hiring=hiring)
    with interruptible(), watch(quiet=quiet) as progress:
        source = Named(model, weights, whole=True)
        outcome = by(module, samples, radii, chosen, progress=progress, source=source)
    _tell(outcome, ["assay", *context.obj], folder, json_)
    return lost(outcome.lost)


def _method(attacks: str | None, timeout: float) -> str:
    """The method that looks for a property's counterexample by these attacks."""
    rounds = ENDLESS if timeout < inf else ROUNDS
    named = "+".join(_texts(ON_PROPERTY if attacks is None else attacks))
    return f"attack(attack={named},rounds={rounds},targeted=true)"


def _tell(outcome: Attacked, command: list[str], folder: Path | None, as_json: bool) -> None:
    """The table, or the document with the table on stderr; the files, written."""
    from rich.console import Console

    from assay.benchmarks.harness import attacked
    from assay.benchmarks.report import attack_table
    from assay.verify.support.documents import dump

    document = attacked.document(outcome, command) | options.told(outcome.data)
    attack_table.show(outcome, Console(stderr=as_json))
    if folder is not None:
        written = _save(outcome, document, folder)
        print(f"wrote {', '.join(map(plain, written))}", file=sys.stderr if as_json else sys.stdout)
    if as_json:
        print(dump(document))


def _save(outcome: Attacked, document: dict[str, Any], folder: Path) -> list[Path]:
    """Write the points, the sheet and the summary; returns what was written."""
    import numpy as np

    from assay.benchmarks.harness import attacked
    from assay.benchmarks.report import image_sheet
    from assay.verify.support.documents import dump
    from assay.verify.support.files import write_atomic

    buffer = io.BytesIO()
    named: dict[str, Any] = {name: tensor.numpy() for name, tensor in attacked.arrays(outcome).items()}
    np.savez_compressed(buffer, **named)
    paths = [folder / name for name in ("adversarial.npz", "summary.json", "sheet.png")]
    write_atomic(paths[0], buffer.getvalue())
    write_atomic(paths[1], f"{dump(document)}\n".encode())
    return paths if image_sheet.draw(outcome, paths[2]) else paths[:2]


def _refuse(context: typer.Context, idle: Sequence[str], why: str) -> None:
    """Refuse options that are given and would be ignored."""
    for name in idle:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise InputError(f"--{name.replace('_', '-')} {why}")


def _texts(text: str) -> list[str]:
    from assay.verify.support.options import split

    return split(text)
