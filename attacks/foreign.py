"""Attacks of other libraries, where they are installed: ``foolbox:LinfPGD``, ``torchattacks:PGD``, ``art:DeepFool``.

Their points are projected into the region and evaluated again before they count. Their random numbers follow the seed,
but may depend on what else is in the batch.
"""

from __future__ import annotations

import ast
import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import InitVar, dataclass, field
from importlib import import_module
from importlib.util import find_spec
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from assay.attacks.baselines import clean_record
from assay.attacks.common import task
from assay.attacks.common.interface import AttackResult, Model, forward
from assay.attacks.common.task import Task
from assay.verify.core.binary import class_scores
from assay.verify.core.errors import InputError, UnsupportedError, unknown_name
from assay.verify.core.problem import Problem
from assay.verify.core.region import LpBall, Region
from assay.verify.support import options

INSTALL = {
    "art": "pip install adversarial-robustness-toolbox",
    "foolbox": "pip install foolbox",
    "torchattacks": "pip install torchattacks",
}
MODULES = {"art": "art.attacks.evasion", "foolbox": "foolbox.attacks", "torchattacks": "torchattacks"}


@dataclass(frozen=True)
class Ball:
    """A ball in plain numbers, as other libraries take it."""

    eps: float
    p: float
    low: float
    high: float


@dataclass(frozen=True)
class Foreign:
    """The attack ``library:Class(option=value,...)``; options go to the class's constructor as Python literals.

    Raises :class:`InputError` for a library that is unknown or not installed, or a class that it does not have.
    """

    text: InitVar[str]
    name: str = field(init=False)
    library: str = field(init=False, repr=False)
    kind: str = field(init=False, repr=False)
    arguments: tuple[tuple[str, Any], ...] = field(init=False, repr=False)

    def __post_init__(self, text: str) -> None:
        head, opened, rest = text.strip().partition("(")
        if opened and not rest.endswith(")"):
            raise InputError(f"expected attack as library:Class(option=value,...), got {text!r}")
        library, _, kind = (part.strip() for part in head.partition(":"))
        if library not in INSTALL:
            raise unknown_name("library of attacks", library, INSTALL)
        if find_spec(library) is None:
            raise InputError(f"attack {text!r}: {library} is not installed; {INSTALL[library]}")
        arguments = tuple(_argument(text, pair) for pair in options.split(rest[:-1]))
        object.__setattr__(self, "name", text.strip())
        object.__setattr__(self, "library", library)
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "arguments", arguments)
        _ = self._class

    def run(self, model: Model, x: Tensor, labels: Tensor, region: Region, seed: int = 0) -> AttackResult:
        """Attack classification: x (batch x shape), labels (batch), on a ball with one eps and a domain of numbers.

        Raises :class:`InputError` as every attack does and for options that the library refuses,
        :class:`UnsupportedError` for another region.
        """
        return task.run(model, x, labels, region, "margin", lambda job: self._method(job, labels, seed))

    def search(self, problems: Sequence[Problem], seed: int = 0) -> AttackResult:
        """Attack problems of robust classification, which have a label; :class:`UnsupportedError` for others."""
        labels = [problem.label for problem in problems]
        if None in labels:
            raise UnsupportedError(f"{self.name} attacks labels, not specifications")
        whole = task.search(problems, lambda job: clean_record(job).result(job.region))
        for label in sorted({label for label in labels if label is not None}):
            rows = [i for i, own in enumerate(labels) if own == label]
            result = task.search([problems[i] for i in rows], lambda job, y=label: self._method(job, y, seed))  # type: ignore[misc]
            for part in ("adversarial", "success", "loss", "distance", "queries"):
                getattr(whole, part)[rows] = getattr(result, part)
        return whole

    def _method(self, job: Task, labels: Tensor | int, seed: int) -> AttackResult:
        ball = _ball(self.name, job.region)
        record = clean_record(job)
        standing = record.standing
        if len(standing):
            part = job.take(standing)
            classes = torch.as_tensor(labels, device=job.clean.device).long().expand(len(job.clean))[standing]
            module = Counted(job.model).eval()
            x = CALLS[self.library](self._class, dict(self.arguments), module, part.clean, classes, ball, seed)
            x = part.region.project(x.detach().to(part.clean))
            loss, success = part.evaluate(x)
            record.note(standing, x, loss, part.confirm(x, success))
            record.queries[standing] += round(module.seen / len(standing))
        return record.result(job.region)

    @property
    def _class(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            home = import_module(MODULES[self.library])
        if not inspect.isclass(getattr(home, self.kind, None)):
            known = [name for name, value in vars(home).items() if inspect.isclass(value) and not name.startswith("_")]
            raise unknown_name(f"attack of {self.library}", self.kind, known)
        return getattr(home, self.kind)


class Counted(nn.Module):
    """A model as a module that counts the samples it has seen, with the weights of the model where that is a module."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        """The scores of the classes (batch x classes) at x (batch x shape)."""
        self.seen += len(x)
        return class_scores(forward(self.model, x))


def by_foolbox(
    kind: Any, arguments: dict[str, Any], model: nn.Module, x: Tensor, labels: Tensor, ball: Ball, seed: int
) -> Tensor:
    """The points (batch x shape) of a foolbox attack on x (batch x shape), labels (batch)."""
    with _quiet(seed):
        attack = _made(kind, arguments)
        wrapped = import_module("foolbox").PyTorchModel(model, bounds=(ball.low, ball.high), device=x.device)
        _, points, _ = attack(wrapped, x, labels, epsilons=ball.eps)
    return _tensor(points)


def by_torchattacks(
    kind: Any, arguments: dict[str, Any], model: nn.Module, x: Tensor, labels: Tensor, ball: Ball, seed: int
) -> Tensor:
    """The points (batch x shape) of a torchattacks attack on x (batch x shape), labels (batch); in [0, 1] only."""
    if (ball.low, ball.high) != (0, 1):
        raise UnsupportedError(f"torchattacks attacks inputs in [0, 1], got [{ball.low:g}, {ball.high:g}]")
    with _quiet(seed):
        attack = _made(kind, {**_accepted(kind, {"eps": ball.eps}), **arguments}, model)
        return _tensor(attack(x, labels))


def by_art(
    kind: Any, arguments: dict[str, Any], model: nn.Module, x: Tensor, labels: Tensor, ball: Ball, seed: int
) -> Tensor:
    """The points (batch x shape) of an attack of the toolbox ART on x (batch x shape), labels (batch)."""
    with torch.no_grad():
        classes = model(x[:1]).shape[1]
    with _quiet(seed):
        classifier = import_module("art.estimators.classification").PyTorchClassifier(
            model=model,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(x.shape[1:]),
            nb_classes=classes,
            clip_values=(ball.low, ball.high),
            device_type=x.device.type,
        )
        given = _accepted(kind, {"eps": ball.eps, "norm": ball.p, "verbose": False})
        attack = _made(kind, {**given, **arguments}, classifier)
        points = attack.generate(x=x.cpu().numpy(), y=labels.cpu().numpy())
    return torch.from_numpy(points).to(x)


Call = Callable[[Any, dict[str, Any], nn.Module, Tensor, Tensor, Ball, int], Tensor]
CALLS: dict[str, Call] = {"art": by_art, "foolbox": by_foolbox, "torchattacks": by_torchattacks}


def _argument(text: str, pair: str) -> tuple[str, Any]:
    """``option=value`` as a name and a Python literal, or a word."""
    key, equals, value = (part.strip() for part in pair.partition("="))
    if not equals:
        raise InputError(f"expected option=value for attack {text!r}, got {pair!r}")
    try:
        return key, ast.literal_eval({"true": "True", "false": "False", "none": "None"}.get(value.lower(), value))
    except (ValueError, SyntaxError):
        return key, value


def _ball(name: str, region: Region) -> Ball:
    if not isinstance(region, LpBall) or region.domain is None:
        raise UnsupportedError(f"{name} needs a region that is a ball within a domain")
    numbers = []
    for bound in (region.eps, *region.domain):
        values = torch.as_tensor(bound).double()
        if bool((values != values.flatten()[0]).any()):
            raise UnsupportedError(f"{name} needs one eps and one domain for all samples and coordinates")
        numbers.append(float(values.flatten()[0]))
    eps, low, high = numbers
    return Ball(eps, inf if region.p == inf else int(region.p), low, high)


def _accepted(kind: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    known = inspect.signature(kind).parameters
    return {key: value for key, value in arguments.items() if key in known}


def _made(kind: Any, arguments: dict[str, Any], *first: Any) -> Any:
    try:
        return kind(*first, **arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"{kind.__name__} refuses its options: {error}") from error


def _tensor(points: Any) -> Tensor:
    if not isinstance(points, Tensor):
        raise UnsupportedError(f"expected a tensor of points from the attack, got {type(points).__name__}")
    return points


@contextmanager
def _quiet(seed: int) -> Iterator[None]:
    """Random numbers by the seed, gradients on, and the libraries' warnings off."""
    generator = import_module("numpy").random
    state = generator.get_state()
    try:
        with torch.random.fork_rng(), torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(seed)
            generator.seed(seed % 2**32)
            yield
    finally:
        generator.set_state(state)
