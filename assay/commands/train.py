"""``assay train``: train a network reproducibly and store it with its card."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay import options
from assay.benchmarks.harness.records.origin import version
from assay.checks import at_least_one
from assay.verify.core.errors import AlarmError, InputError
from assay.verify.support.files import writable_folder
from assay.verify.support.plain import counted
from assay.written import numbers

if TYPE_CHECKING:
    from torch import Tensor, nn

    from assay.models.architectures import Architecture
    from assay.models.cards import Card, Robustness, Smoothed
    from assay.models.data import Dataset
    from assay.models.training import Epoch, Precision, Training
    from assay.models.training.evaluate import Attacked

# What measures the card's accuracy under attack; far stronger than the attack inside of the training.
ATTACK = "pgd(steps=50,restarts=3)"

# Certified accuracy under noise is told at these radii, in deviations of it.
SIGMAS = (0, 0.5, 1, 1.5, 2)

# Samples, of those held out, that the errors shown during the training are measured on.
EARLY = 500


def train(
    name: Annotated[str, typer.Option(help="Name of the network; the files are NAME.safetensors and NAME.json.")],
    arch: Annotated[str, typer.Option(help="Architecture: mlp, cnn or resnet, with options.")] = "mlp(hidden=50-50)",
    start: Annotated[
        str, typer.Option(help="Go on from this network of the same architecture: zoo:NAME or file.safetensors.")
    ] = "",
    data: Annotated[str, typer.Option(help="digits, fashion-mnist, mnist, cifar10 or file.npz.")] = "digits",
    data_dir: options.DataDir = None,
    recipe: Annotated[
        str, typer.Option(help="What is minimised, with options: standard, pgd, trades, ibp, crown-ibp, gaussian, ...")
    ] = "pgd",
    epochs: Annotated[int, typer.Option(help="Passes over the training split.")] = 60,
    batch: Annotated[int, typer.Option(help="Samples a step.")] = 64,
    lr: Annotated[float, typer.Option(help="First learning rate of Adam.")] = 1e-3,
    schedule: Annotated[str, typer.Option(help="How the learning rate falls: cosine or step.")] = "cosine",
    weight_decay: Annotated[float, typer.Option(help="Weight decay of Adam.")] = 0.0,
    shift: Annotated[int, typer.Option(help="Move images at random by up to so many pixels.")] = 0,
    l1: Annotated[float, typer.Option(help="So many times the sum of the sizes of all weights joins the loss.")] = 0.0,
    average: Annotated[
        float, typer.Option(help="Keep a moving average of the weights, and this share of it at each step: 0.998.")
    ] = 0.0,
    precision: Annotated[
        str, typer.Option(help="Round the weights at the end: float16 makes files of half the size; or float32.")
    ] = "float32",
    seed: Annotated[int, typer.Option(help="Seed of everything random; the same seed gives the same bits.")] = 0,
    validation: Annotated[
        int, typer.Option(help="Hold so many samples out of the training split, to choose options by; the last ones.")
    ] = 0,
    search: Annotated[
        int,
        typer.Option(
            help="Choose the recipe's options and the learning rate first: so many trainings, on --validation samples."
        ),
    ] = 0,
    eval_eps: Annotated[
        str, typer.Option(help="Radii (linf) of the card's robust accuracies; the recipe's own, or 0.1, if not given.")
    ] = "",
    eval_n: Annotated[int, typer.Option(help="Test samples that robust accuracies are measured on, at most.")] = 500,
    smooth_n: Annotated[
        int,
        typer.Option(
            help="Test samples that the card's certified accuracy under noise is measured on, if the recipe has noise."
        ),
    ] = 100,
    smooth_draws: Annotated[int, typer.Option(help="Draws for each of these.")] = 1000,
    out: Annotated[Path, typer.Option(help="Folder for the two files.")] = Path("."),
    quiet: options.Quiet = False,
    json_: options.Json = False,
) -> None:
    """Train a network and store it with a card that says how to make it again, bit for bit."""
    from assay.models import architectures, cards, training
    from assay.models import data as datasets
    from assay.verify.support.options import convert

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise InputError(f"expected a name of letters, digits, dots and dashes, got {name!r}")
    architecture = architectures.parse(arch)
    falling = convert(schedule, training.Schedule, "--schedule")
    kept = convert(precision, training.Precision, "--precision")
    plan = training.Training(
        training.recipe(recipe), epochs, batch, lr, falling, weight_decay, shift, seed, l1, average
    )
    radii = list(map(float, numbers("--eval-eps", eval_eps))) if eval_eps else [plan.recipe.eps or 0.1]
    if eval_n < 1 or validation < 0:
        raise InputError(f"expected --eval-n >= 1 and --validation >= 0, got {eval_n} and {validation}")
    at_least_one("--smooth-n", smooth_n)
    at_least_one("--smooth-draws", smooth_draws)
    if search < 0 or (search and not validation):
        raise InputError("--search chooses on samples that are held out: --validation says how many")
    order = Order(name, architecture, data, plan, validation, radii, eval_n, smooth_n, smooth_draws, start, kept)
    learn, test = (datasets.load(data, split, folder=data_dir) for split in ("train", "test"))
    learn, held = training.hold_out(learn, validation) if validation else (learn, None)
    order.build(learn)  # what does not fit is refused before a folder is made
    writable_folder(out)

    if search and held:
        order = replace(order, plan=_chosen(order, learn, held, search, out))
    model = _trained(order, learn, held, quiet)
    training.round_weights(model, order.precision)
    weights = cards.encode(model)
    card = _card(order, model, test, cards.sha256(weights))
    paths = cards.save(out, card, weights)
    _report(card, paths, json_)


@dataclass(frozen=True)
class Order:
    """What is asked for: which network, trained how, and measured on ``eval_n`` test samples at ``radii``; smoothed, if
    it is trained for that, on ``smooth_n`` by ``smooth_draws`` each."""

    name: str
    architecture: Architecture
    data: str
    plan: Training
    validation: int
    radii: list[float]
    eval_n: int
    smooth_n: int
    smooth_draws: int
    start: str = ""
    precision: Precision = "float32"

    @property
    def sigma(self) -> float | None:
        """The noise that it is trained for, if it is."""
        from assay.models.training.recipe import Noisy

        return self.plan.recipe.sigma if isinstance(self.plan.recipe, Noisy) else None

    def build(self, dataset: Dataset) -> nn.Module:
        """The network as it is before the training: a new one, or the one to go on from."""
        from assay.models import architectures, cards, training, zoo

        if not self.start:
            with training.isolated(self.plan.seed):
                return self.architecture.build(dataset.shape, dataset.classes)
        _, found, name = self.start.rpartition("zoo:")
        model, card = cards.load(zoo.FOLDER / f"{zoo.card(name).name}.safetensors" if found else Path(self.start))
        ours = (self.architecture, dataset.shape, dataset.classes)
        if (theirs := (architectures.parse(card.architecture), tuple(card.input_shape), card.classes)) != ours:
            raise InputError(f"--start {self.start} is {theirs}, and what is asked for {ours}")
        return model

    @property
    def command(self) -> str:
        """The line that makes the same network; every default is written out, so that it outlives a change of one."""
        from assay.models.text import describe

        options = {
            "name": self.name,
            "arch": describe(self.architecture),
            **({"start": self.start} if self.start else {}),
            "data": self.data,
            "recipe": describe(self.plan.recipe),
            "epochs": self.plan.epochs,
            "batch": self.plan.batch,
            "lr": self.plan.lr,
            "schedule": self.plan.schedule,
            "weight-decay": self.plan.weight_decay,
            "shift": self.plan.shift,
            "l1": self.plan.l1,
            "average": self.plan.average,
            "precision": self.precision,
            "seed": self.plan.seed,
            "validation": self.validation,
            "eval-eps": ",".join(f"{eps:g}" for eps in self.radii),
            "eval-n": self.eval_n,
            **({} if self.sigma is None else {"smooth-n": self.smooth_n, "smooth-draws": self.smooth_draws}),
        }
        return shlex.join(
            ["assay", "train", *(part for key, value in options.items() for part in (f"--{key}", str(value)))]
        )


def _chosen(order: Order, learn: Dataset, held: Dataset, trials: int, out: Path) -> Training:
    """The plan of the best of so many trainings, by what is held out; each is shown as it ends."""
    from assay.models.text import describe
    from assay.models.training.search import Search, best

    journal = out / f"{order.name}.search.jsonl"
    # Trials of another question are none of this one's, whatever the names are.
    known = hashlib.sha256(learn.x.numpy().tobytes())
    if order.start:
        for tensor in order.build(learn).state_dict().values():
            known.update(tensor.numpy().tobytes())
    title = f"{describe(order.architecture)} on {order.data} ({known.hexdigest()}), {order.validation} held out:"
    ended = []
    for trial in Search(
        order.plan, lambda: order.build(learn), learn, held, trials, journal, title, not order.start
    ).run():
        ended.append(trial)
        how = f"{describe(trial.plan.recipe)} --lr {trial.plan.lr:g}"
        typer.echo(f"assay: {trial.number + 1} of {trials}: {trial.score:.2%} of what is held out, by {how}", err=True)
    return best(ended).plan


def _trained(order: Order, learn: Dataset, held: Dataset | None, quiet: bool) -> nn.Module:
    """The network after its training; errors on some of the samples held out, or learned, are shown on the way."""
    from assay.models import training

    early = held or learn
    early = early.take(min(len(early), EARLY))
    seed, radius = order.plan.seed, order.radii[-1]
    model = order.build(learn)
    if quiet:
        for _ in order.plan.run(model, learn, not order.start):
            pass
        return model
    which = counted(len(early), f"{'validation' if held else 'training'} sample")
    typer.echo(f"assay: on {which}: natural error, and verified error by ibp at eps {radius:g}", err=True)
    with _progress(order.name, order.plan.epochs) as show:
        for epoch in order.plan.run(model, learn, not order.start):
            with training.isolated(seed):
                natural = 1 - training.clean_accuracy(model, early)
                verified = 1 - training.certified_accuracy(model, early, radius, linear=False)
            show(epoch, f"error {natural:.2%}, verified error {verified:.2%}")
    return model


def _card(order: Order, model: nn.Module, test: Dataset, sha256: str) -> Card:
    """The card of a trained network, measured on the test split."""
    from assay.models.cards import Card
    from assay.models.text import describe
    from assay.models.training import clean_accuracy, isolated

    plan, samples = order.plan, min(order.eval_n, len(test))
    with isolated(plan.seed):
        clean = clean_accuracy(model, test)
        robustness = _robustness(model, test.take(samples), order.radii, plan.seed)
    held = (
        f"{counted(order.validation, 'sample')} held out of the training split"
        if order.validation
        else "nothing held out"
    )
    return Card(
        name=order.name,
        architecture=describe(order.architecture),
        input_shape=test.shape,
        classes=test.classes,
        data=order.data,
        recipe=describe(plan.recipe),
        eps=plan.recipe.eps,
        epochs=plan.epochs,
        seed=plan.seed,
        command=order.command,
        selected_on=held,
        samples=len(test),
        clean_accuracy=clean,
        robust_samples=samples,
        robustness=robustness,
        attack=ATTACK,
        sha256=sha256,
        version=version(),
        smoothed=() if order.sigma is None else (_smoothed(order, order.sigma, model, test),),
    )


def _smoothed(order: Order, sigma: float, model: nn.Module, test: Dataset) -> Smoothed:
    """The certified accuracy under the noise of the training, on samples from all over the test split."""
    from assay.benchmarks.harness import smoothed
    from assay.models.cards import Smoothed
    from assay.verify.backends.smoothing.method import Smoothing

    method, samples = Smoothing(sigma=sigma, n=order.smooth_draws), min(order.smooth_n, len(test))
    skip, radii = len(test) // samples, tuple(float(f"{k * sigma:g}") for k in SIGMAS)
    rows = list(smoothed.certify(model, test, method, 2.0, order.plan.seed, test.indices(samples, skip)))
    options = {
        "model": f"{order.name}.safetensors",
        "data": order.data,
        "sigma": f"{sigma:g}",
        "draws": method.n,
        "alpha": method.alpha,
        "radii": ",".join(f"{radius:g}" for radius in radii),
        "n": samples,
        "skip": skip,
        "seed": order.plan.seed,
    }
    command = shlex.join(["assay", "smooth", *(part for k, v in options.items() for part in (f"--{k}", str(v)))])
    smoothed.raise_alarm(rows, method.alpha)
    shares = tuple(point.accuracy for point in smoothed.curve(rows, radii))
    return Smoothed(method.subject, method.n, method.alpha, samples, radii, shares, command)


def _report(card: Card, paths: tuple[Path, Path], as_json: bool) -> None:
    """The accuracies and the files: on stdout, or on stderr where stdout is the card."""
    typer.echo(
        f"{card.name}: clean accuracy {card.clean_accuracy:.2%} on {counted(card.samples, 'test sample')}", err=as_json
    )
    for at in card.robustness:
        shares = f"{at.pgd:.2%} under PGD, certified {at.crown:.2%} by crown, {at.ibp:.2%} by ibp"
        typer.echo(f"  eps {at.eps:g}: {shares}, on the first {card.robust_samples}", err=as_json)
    for each in card.smoothed:
        told = ", ".join(f"{share:.2%} beyond {eps:g}" for eps, share in zip(each.radii, each.certified, strict=True))
        typer.echo(f"  {each.subject}, certified in l2: {told}, on {each.samples}", err=as_json)
    typer.echo(f"wrote {paths[0]} and {paths[1]}", err=as_json)
    if as_json:
        typer.echo(card.to_json(), nl=False)


def _robustness(model: nn.Module, dataset: Dataset, radii: list[float], seed: int) -> tuple[Robustness, ...]:
    """Robust accuracies at each radius. Raises :class:`AlarmError` where the attack breaks what bounds prove."""
    from assay.models.cards import Robustness
    from assay.models.training import evaluate

    found = []
    for eps in radii:
        attacked = evaluate.attacked(model, dataset, eps, ATTACK, seed)
        ibp, crown = (evaluate.proven(model, dataset, eps, linear) for linear in (False, True))
        raise_alarm(model, dataset, ibp | crown, attacked)
        shares = (int(each.sum()) / len(dataset) for each in (attacked.standing, ibp, crown))
        found.append(Robustness(eps, *shares))
    return tuple(found)


def raise_alarm(model: nn.Module, dataset: Dataset, proof: Tensor, broken: Attacked) -> None:
    """Raise :class:`AlarmError` where a sample is proven (samples, bool), and the attack's point replays against it."""
    from assay.verify.check.replay import replay
    from assay.verify.core.problem import Problem

    for i in (proof & ~broken.standing).nonzero()[:, 0].tolist():
        x, label = dataset.x[i], int(dataset.y[i])
        if replay(Problem.robustness(model, x, label, broken.eps, domain=dataset.domain), broken.points[i]).confirmed:
            raise AlarmError(
                f"soundness alarm: test sample {i} is certified within {broken.eps:g}, and an attack within it changes "
                "the answer: please report it"
            )


@contextmanager
def _progress(name: str, epochs: int) -> Iterator[Callable[[Epoch, str], None]]:
    """A bar with the time left on a terminal, about ten lines elsewhere; both on stderr."""
    from rich import progress
    from rich.console import Console

    from assay.benchmarks.harness.progress import clock

    console = Console(stderr=True)
    if not console.is_terminal:
        every = max(1, epochs // 10)

        def log(epoch: Epoch, errors: str) -> None:
            if epoch.number in (1, epochs) or epoch.number % every == 0:
                left = clock(epoch.seconds * (epochs - epoch.number))
                state = f"loss {epoch.loss:.4f}, {errors}, about {left} left"
                typer.echo(f"assay: epoch {epoch.number} of {epochs}: {state}", err=True)

        yield log
        return

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=32),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[state]}", markup=False),
    )
    with progress.Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task(name, total=epochs, state="")

        def move(epoch: Epoch, errors: str) -> None:
            bars.update(task, completed=epoch.number, state=f"loss {epoch.loss:.4f}, {errors}")

        yield move
