"""``assay train``: train a network reproducibly and store it with its card."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.files import writable_folder
from benchmarks.origin import version
from benchmarks.progress import clock
from verify.core.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from models.cards import Card
    from models.data import Dataset
    from models.training import Epoch, Training

# What measures the card's PGD accuracy; far stronger than the attack inside of the training.
ATTACK = "pgd(steps=50,restarts=3)"

# Test samples that the accuracy shown during the training is measured on.
EARLY = 1000


def train(
    name: Annotated[str, typer.Option(help="Name of the network; the files are NAME.safetensors and NAME.json.")],
    arch: Annotated[str, typer.Option(help="Architecture: mlp, cnn or resnet, with options.")] = "mlp(hidden=50-50)",
    data: Annotated[str, typer.Option(help="Data set.")] = "digits",
    recipe: Annotated[str, typer.Option(help="What is minimised: standard or pgd, with options.")] = "pgd",
    epochs: Annotated[int, typer.Option(help="Passes over the training split.")] = 60,
    batch: Annotated[int, typer.Option(help="Samples a step.")] = 64,
    lr: Annotated[float, typer.Option(help="First learning rate of Adam.")] = 1e-3,
    schedule: Annotated[str, typer.Option(help="How the learning rate falls: cosine or step.")] = "cosine",
    weight_decay: Annotated[float, typer.Option(help="Weight decay of Adam.")] = 0.0,
    shift: Annotated[int, typer.Option(help="Move images at random by up to so many pixels.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of everything random; the same seed gives the same bits.")] = 0,
    eval_eps: Annotated[
        float | None, typer.Option(help="Radius (linf) of the PGD accuracy; the recipe's own, or 0.1, if not given.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the two files.")] = Path("."),
    json_: Annotated[bool, typer.Option("--json", help="Print the card as one JSON document.")] = False,
) -> None:
    """Train a network and store it with a card that says how to make it again, bit for bit."""
    from models import architectures, cards, training
    from models import data as datasets
    from models.text import describe
    from verify.core.options import convert

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise InputError(f"expected a name of letters, digits, dots and dashes, got {name!r}")
    architecture = architectures.parse(arch)
    falling = convert(schedule, training.Schedule, "--schedule")
    plan = training.Training(training.recipe(recipe), epochs, batch, lr, falling, weight_decay, shift, seed)
    radius = eval_eps if eval_eps is not None else plan.recipe.eps or 0.1
    if not (isfinite(radius) and radius >= 0):
        raise InputError(f"--eval-eps must be a finite number >= 0, got {radius}")
    learn, test = datasets.load(data, "train"), datasets.load(data, "test")
    writable_folder(out)
    early = test.take(min(len(test), EARLY))

    with training.isolated(seed):
        model = architecture.build(learn.shape, learn.classes)
    with _progress(name, epochs) as show:
        for epoch in plan.run(model, learn):
            show(epoch, training.clean_accuracy(model, early))

    with training.isolated(seed):
        clean, robust = training.clean_accuracy(model, test), _pgd_accuracy(model, test, radius, seed)
    weights = cards.encode(model)
    card = cards.Card(
        name=name,
        architecture=describe(architecture),
        input_shape=learn.shape,
        classes=learn.classes,
        data=data,
        recipe=describe(plan.recipe),
        eps=plan.recipe.eps,
        epochs=epochs,
        seed=seed,
        command=_command(name, describe(architecture), data, describe(plan.recipe), plan, radius),
        samples=len(test),
        clean_accuracy=clean,
        pgd_accuracy=robust,
        pgd_eps=radius,
        pgd_attack=ATTACK,
        sha256=cards.sha256(weights),
        version=version(),
    )
    paths = cards.save(out, card, weights)
    _report(card, paths, json_)


def _report(card: Card, paths: tuple[Path, Path], as_json: bool) -> None:
    """The accuracies and the files: on stdout, or on stderr where stdout is the card."""
    clean, robust = f"clean accuracy {card.clean_accuracy:.2%}", f"PGD accuracy {card.pgd_accuracy:.2%}"
    line = f"{card.name}: {clean}, {robust} at eps {card.pgd_eps:g}, on {card.samples} test samples"
    typer.echo(line, err=as_json)
    typer.echo(f"wrote {paths[0]} and {paths[1]}", err=as_json)
    if as_json:
        typer.echo(card.to_json(), nl=False)


def _pgd_accuracy(model: nn.Module, dataset: Dataset, eps: float, seed: int) -> float:
    """Share of the samples that are classified rightly and stay so under :data:`ATTACK`."""
    import torch

    from attacks import get_attack
    from models.training import strictly_right
    from verify.core.region import LpBall

    region = LpBall(dataset.x, eps, inf, dataset.domain)
    attacked = get_attack(ATTACK).run(model, dataset.x, dataset.y, region, seed=seed)
    with torch.no_grad():
        right = strictly_right(model(dataset.x), dataset.y)
    return int((right & ~attacked.success).sum()) / len(dataset)


def _command(name: str, arch: str, data: str, recipe: str, plan: Training, radius: float) -> str:
    """The line that makes the same network; every default is written out, so that it outlives a change of one."""
    options = {
        "name": name,
        "arch": arch,
        "data": data,
        "recipe": recipe,
        "epochs": plan.epochs,
        "batch": plan.batch,
        "lr": plan.lr,
        "schedule": plan.schedule,
        "weight-decay": plan.weight_decay,
        "shift": plan.shift,
        "seed": plan.seed,
        "eval-eps": radius,
    }
    return shlex.join(
        ["assay", "train", *(part for key, value in options.items() for part in (f"--{key}", str(value)))]
    )


@contextmanager
def _progress(name: str, epochs: int) -> Iterator[Callable[[Epoch, float], None]]:
    """A bar with the time left on a terminal, about ten lines elsewhere; both on stderr."""
    console = Console(stderr=True)
    if not console.is_terminal:
        every = max(1, epochs // 10)

        def log(epoch: Epoch, accuracy: float) -> None:
            if epoch.number in (1, epochs) or epoch.number % every == 0:
                left = clock(epoch.seconds * (epochs - epoch.number))
                state = f"loss {epoch.loss:.4f}, test accuracy {accuracy:.2%}, about {left} left"
                typer.echo(f"assay: epoch {epoch.number} of {epochs}: {state}", err=True)

        yield log
        return

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[state]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task(name, total=epochs, state="")

        def move(epoch: Epoch, accuracy: float) -> None:
            bars.update(task, completed=epoch.number, state=f"loss {epoch.loss:.4f}, test accuracy {accuracy:.2%}")

        yield move
