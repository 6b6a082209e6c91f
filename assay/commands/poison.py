"""``assay poison``: a backdoor planted in a data set, detected, removed, and certified against by a vote over parts."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay import options
from assay.checks import at_least_one, seed_in_range, use_threads
from assay.verify.core.errors import InputError
from assay.written import numbers

if TYPE_CHECKING:
    from rich.console import Console

    from assay.benchmarks.harness.poisoned import Poisoned, Quality


def poison(
    data: Annotated[str, typer.Option(help="digits, fashion-mnist, mnist or cifar10.")] = "digits",
    data_dir: options.DataDir = None,
    source: Annotated[int, typer.Option(help="Class whose samples are poisoned.")] = 1,
    target: Annotated[int, typer.Option(help="Class that they are labelled as.")] = 7,
    count: Annotated[int, typer.Option(help="Samples that are poisoned.")] = 20,
    side: Annotated[int, typer.Option(help="Side of the trigger, a bright square in the last corner.")] = 2,
    share: Annotated[
        float | None,
        typer.Option(help="Share of a class that detectors fear to be foreign; the true one if not given."),
    ] = None,
    parts: Annotated[int, typer.Option(help="Parts of the training data, a classifier each, that vote.")] = 50,
    learner: Annotated[str, typer.Option(help="What votes: ridge or mlp.")] = "ridge",
    radii: Annotated[str, typer.Option(help="Numbers of changed training samples in the table.")] = "0,1,5,10,20",
    hidden: Annotated[int, typer.Option(help="Neurons of the network that is trained on all of the data.")] = 32,
    epochs: Annotated[int, typer.Option(help="Passes over the data in its training.")] = 30,
    seed: options.Seed = 0,
    threads: options.Threads = 1,
    out: Annotated[Path | None, typer.Option(help="Folder for poison.json.")] = None,
    quiet: options.Quiet = False,
    json_: options.Json = False,
) -> None:
    """Plant a backdoor in training data; detect, remove and explain it; certify a vote over parts against it."""
    for name, value in (("--parts", parts), ("--hidden", hidden), ("--epochs", epochs), ("--threads", threads)):
        at_least_one(name, value)
    seed_in_range(seed)
    asked = [float(radius) for radius in numbers("--radii", radii)]
    if any(radius != int(radius) for radius in asked):
        raise InputError(f"--radii: expected whole numbers of training samples, got {radii}")

    from rich.console import Console

    from assay.benchmarks.harness import poisoned
    from assay.benchmarks.harness.progress import watch
    from assay.models import data as datasets
    from assay.models.poisoning.backdoor import Backdoor
    from assay.models.poisoning.learners import Learner, Perceptron, Ridge
    from assay.models.poisoning.signatures import Filtered, Spectral
    from assay.verify.core.errors import unknown_name
    from assay.verify.support.documents import dump
    from assay.verify.support.files import writable_folder, write_atomic
    from assay.verify.support.signals import interruptible

    known: dict[str, Learner] = {"ridge": Ridge(), "mlp": Perceptron(seed=seed)}
    if learner not in known:
        raise unknown_name("learner", learner, known)
    use_threads(threads)
    training, test = (datasets.load(data, split, data_dir) for split in ("train", "test"))
    folder = None if out is None else writable_folder(out)
    with interruptible(), watch(unit="training", quiet=quiet) as progress:
        outcome = poisoned.poison(
            training,
            test,
            Backdoor(source, target, count, side),
            (Spectral(), Filtered()),
            share,
            Perceptron(hidden, epochs, seed=seed),
            parts,
            known[learner],
            [int(radius) for radius in asked],
            seed,
            progress,
        )
    document = poisoned.document(outcome) | {"command": shlex.join(["assay", *sys.argv[1:]])}
    _show(outcome, Console(stderr=json_))
    if folder is not None:
        write_atomic(folder / "poison.json", f"{dump(document)}\n".encode())
    if json_:
        print(dump(document))


def _show(outcome: Poisoned, console: Console) -> None:
    from assay.benchmarks.report import layout

    backdoor, voted = outcome.backdoor, outcome.voted
    planted = f"{backdoor.count} of {outcome.n} samples, class {backdoor.source} as {backdoor.target}"
    console.print(f"{outcome.data}: {planted}", style="bold", markup=False, highlight=False)
    table = layout.grid(layout.name(), *map(layout.figure, ("found", "removed", "accuracy", "backdoor")))
    table.add_row("nothing removed", "", "", *_shares(outcome.before))
    for one in outcome.found:
        table.add_row(one.name, f"{one.hits} of {backdoor.count}", str(one.removed), *_shares(one.after))
    table.add_row(f"vote of {voted.parts}", "", "", *_shares(voted.quality))
    layout.show(table, console)
    curve = layout.grid(*map(layout.figure, ("changed samples", "right and certified")))
    for samples, accuracy in voted.curve:
        curve.add_row(str(samples), f"{accuracy:.1%}")
    layout.show(curve, console)
    for line in (
        f"accuracy: of {outcome.test} clean test samples; backdoor: of class {backdoor.source}, how many are turned",
        "influence is told which inputs were turned; the other detectors see the training data alone",
        f"certified: samples added, removed or relabelled, median {voted.median:g}; one that is altered counts twice",
        f"{voted.compared} certified answers were compared with votes of which so many parts differ: all the same",
    ):
        console.print(line, style="dim", markup=False)


def _shares(quality: Quality) -> tuple[str, str]:
    return f"{quality.accuracy:.1%}", f"{quality.success:.1%}"
