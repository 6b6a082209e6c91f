"""What commands that compare over a data set have in common: on what terms, and into which store."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from assay.checks import at_least_one, positive, seed_in_range, use_threads
from assay.notes import hint, survey

if TYPE_CHECKING:
    from torch.nn import Module

    from assay.attacks.common.interface import Attack
    from assay.benchmarks.harness.asking import Ground
    from assay.benchmarks.harness.progress import Progress
    from assay.benchmarks.harness.records.store import Store
    from assay.models.data import Dataset
    from assay.verify.core.budget import Budget
    from assay.verify.core.network import Network
    from assay.verify.core.verifier import Verifier
    from assay.verify.support.executors import Hiring

Told = TypeVar("Told")


def limits(
    n: int | None,
    batch: int,
    seconds: float,
    seed: int,
    threads: int | None,
    workers: int | None,
    device: str,
) -> Budget:
    """The budget of each question, torch on as many threads. Raises :class:`InputError` for what cannot be."""
    for name, value in (("--n", n), ("--batch", batch), ("--threads", threads), ("--workers", workers)):
        at_least_one(name, value)
    positive("--timeout", seconds, "seconds")
    seed_in_range(seed)

    from assay.verify.core.budget import Budget

    return Budget(seconds, seed=seed, threads=use_threads(threads), device=device)


@dataclass(frozen=True)
class Asking:
    """Which model on which data by whom: the model as it is called, with its file of weights."""

    model: str
    weights: Path | None
    module: Module | Network
    samples: Dataset
    methods: Sequence[Verifier]
    attacks: Sequence[Attack]


@dataclass(frozen=True)
class Terms:
    """On what terms a command compares: its folder, itself as it was given, the budget of a question, where work runs,
    and whether to go on from what the store holds."""

    out: Path
    command: Sequence[str]
    budget: Budget
    batch: int
    hiring: Callable[[], Hiring]
    resume: bool
    quiet: bool

    @contextmanager
    def store(self) -> Iterator[Store]:
        """The store in the folder, which says how to go on where something stops it."""
        from assay.benchmarks.harness.records.store import Store
        from assay.verify.support.signals import interruptible

        with interruptible(), Store(self.out / "results.sqlite") as store, hint(store):
            survey(store, self.resume)
            yield store

    def watched(self, unit: str) -> AbstractContextManager[Progress]:
        """Progress, counted in these, on stderr."""
        from assay.benchmarks.harness.progress import watch

        return watch(unit=unit, quiet=self.quiet)

    def judged(self, judge: Callable[..., Told], asking: Asking, store: Store, progress: Progress) -> Told:
        """What ``judge``, a comparison of the harness, says; a run of its own in the store."""
        from assay.benchmarks.harness.sources import Named

        store.begin(shlex.join(self.command), asking.model, asking.samples.name)
        return judge(
            asking.module,
            asking.samples,
            methods=asking.methods,
            attacks=asking.attacks,
            budget=self.budget,
            batch=self.batch,
            name=asking.model,
            store=store,
            resume=self.resume,
            alarm_folder=self.out / "alarms",
            progress=progress,
            hiring=self.hiring(),
            source=Named(asking.model, asking.weights),
        )

    def ground(self, asking: Asking, norm: float) -> Ground:
        """What the tasks of the comparison shared, once more."""
        from assay.benchmarks.harness import compare
        from assay.benchmarks.harness.sources import Named

        by = asking.methods, asking.attacks
        source = Named(asking.model, asking.weights)
        return compare.ground(asking.module, asking.samples, *by, norm, self.budget, source)
