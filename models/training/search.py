"""The few options that decide about a recipe, chosen on samples that are held out (Optuna: Akiba et al. 2019,
arXiv:1907.10902). Test figures are never looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from assay.models.data import Dataset
from assay.models.text import describe
from assay.models.training.evaluate import attacked_accuracy, certified_accuracy
from assay.models.training.isolation import isolated
from assay.models.training.loop import Training
from assay.verify.core.errors import InputError, UnsupportedError


@dataclass(frozen=True)
class Knob:
    """An option, and the range that is searched: ``even`` in the value, or else in its logarithm."""

    name: str
    low: float
    high: float
    even: bool = True


# What decides about each recipe; the learning rate does about all.
KNOBS = {
    "trades": [Knob("beta", 1.0, 12.0, even=False)],
    "ibp": [Knob("kappa", 0.0, 0.5)],
    "crown-ibp": [Knob("kappa", 0.0, 0.5), Knob("beta", 0.0, 1.0)],
    "mtl-ibp": [Knob("alpha", 0.05, 1.0, even=False)],
    "cc-ibp": [Knob("alpha", 0.05, 1.0, even=False)],
    "exp-ibp": [Knob("alpha", 0.05, 1.0, even=False)],
    "sabr": [Knob("tau", 0.05, 1.0, even=False)],
    "taps": [Knob("weight", 0.5, 10.0, even=False)],
    "staps": [Knob("tau", 0.05, 1.0, even=False), Knob("weight", 0.5, 10.0, even=False)],
    "linf-margin": [Knob("scale", 5.0, 100.0, even=False), Knob("last", 50.0, 1000.0, even=False)],
}
RATES = Knob("lr", 2e-4, 2e-2, even=False)

# Of the networks of recipes for an attack, which bounds say little about.
EMPIRICAL = "pgd(steps=20)"


@dataclass(frozen=True)
class Trial:
    """One training of the search, from 0 on: its plan, and the share of the samples held out that it got right."""

    number: int
    plan: Training
    score: float


@dataclass(frozen=True, eq=False)
class Search:
    """``trials`` trainings of networks that ``build`` makes, each as ``plan`` but for the knobs.

    ``learn`` is trained on and ``held`` measured, at the radius of the recipe: certified by linear bounds, or under
    attack for the recipes ``pgd`` and ``trades``. Every training is kept in ``journal`` when it has ended: a search
    that is killed goes on from there, and chooses the same as one that was not. ``title``: what else decides, so that
    other searches in the same file stay apart.
    """

    plan: Training
    build: Callable[[], nn.Module]
    learn: Dataset
    held: Dataset
    trials: int
    journal: Path
    title: str
    fresh: bool = True

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise InputError(f"expected at least 1 training to search, got {self.trials}")
        if not self.plan.recipe.eps:
            raise InputError(f"{self.plan.recipe.name} trains for no linf radius: there is nothing to search by")

    def run(self) -> Iterator[Trial]:
        """Each training as it ends, those of the journal first. Raises :class:`UnsupportedError` without Optuna."""
        if find_spec("optuna") is None:
            raise UnsupportedError("--search needs the package optuna: pip install 'assay[search]'")
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        _whole_lines(self.journal)
        backend = JournalFileBackend(str(self.journal), JournalFileOpenLock(str(self.journal)))
        title = f"{self.title} {describe(self.plan.recipe)} {replace(self.plan, recipe=None)}"  # type: ignore[arg-type]
        study = optuna.create_study(
            storage=JournalStorage(backend), study_name=title, direction="maximize", load_if_exists=True
        )
        ended = optuna.trial.TrialState.COMPLETE
        for number in range(self.trials):
            known = study.get_trials(deepcopy=False, states=(ended,))
            if number < len(known):
                plan, score = self.turned(known[number].params), known[number].value
            else:
                # A sampler of its own for each: what it draws depends on the trainings that ended, and on no kill.
                study.sampler = optuna.samplers.TPESampler(seed=(self.plan.seed + number) % (1 << 32))
                trial = study.ask()
                plan = self.turned({knob.name: _drawn(trial, knob) for knob in self.knobs})
                score = self.measured(plan)
                study.tell(trial, score)
            yield Trial(number, plan, float(score))

    @property
    def knobs(self) -> list[Knob]:
        """Of the recipe, and the learning rate."""
        return [*KNOBS.get(self.plan.recipe.name, []), RATES]

    def turned(self, values: dict[str, Any]) -> Training:
        """The plan with the knobs at these values; four digits of each are kept, so that commands stay short."""
        short = {name: float(f"{value:.4g}") for name, value in values.items()}
        own = {f.name for f in fields(self.plan.recipe)}  # type: ignore[arg-type]
        options = {name: value for name, value in short.items() if name in own}
        return replace(self.plan, recipe=replace(self.plan.recipe, **options), lr=short[RATES.name])  # type: ignore[type-var]

    def measured(self, plan: Training) -> float:
        """The score of one training; 0 where it diverges, or learns nothing."""
        with isolated(plan.seed):
            model = self.build()
            try:
                for _ in plan.run(model, self.learn, self.fresh):
                    pass
            except InputError:
                return 0.0
            eps = plan.recipe.eps
            if plan.recipe.name in ("pgd", "trades"):
                return attacked_accuracy(model, self.held, eps, EMPIRICAL, plan.seed)
            return certified_accuracy(model, self.held, eps, linear=True)


def _drawn(trial: Any, knob: Knob) -> float:
    return float(trial.suggest_float(knob.name, knob.low, knob.high, log=not knob.even))


def best(trials: list[Trial]) -> Trial:
    """The first of those with the highest score."""
    return max(trials, key=lambda trial: trial.score)


def _whole_lines(journal: Path) -> None:
    """Cut off what was being written when a search was killed: with what is appended to it it could not be read."""
    if journal.is_file() and (text := journal.read_bytes()) and not text.endswith(b"\n"):
        journal.write_bytes(text[: text.rfind(b"\n") + 1])
