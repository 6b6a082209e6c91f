"""The bracket harness: attacks from above and methods from below, sample by sample over a data set.

clean accuracy >= what attacks leave standing >= the true robust accuracy >= what methods certify. Every decided
verdict is checked before it counts (``assay.verify.solving.stages.decide``), an attack's success like a method's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from math import inf
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from assay.attacks.common.interface import Attack
from assay.attacks.fgsm import FGSM
from assay.attacks.pgd import PGD
from assay.benchmarks.harness import bracket
from assay.benchmarks.harness.asking import Asked, Ground, ask
from assay.benchmarks.harness.bracket import ALL_ATTACKS, ALL_METHODS, CLEAN, Row
from assay.benchmarks.harness.judging import Run
from assay.benchmarks.harness.outcome import Outcome
from assay.benchmarks.harness.participants import by_cells, participants_of
from assay.benchmarks.harness.preloaded import SAMPLES
from assay.benchmarks.harness.progress import SILENT, Progress
from assay.benchmarks.harness.questions import Records
from assay.benchmarks.harness.records import described
from assay.benchmarks.harness.records.store import Store
from assay.benchmarks.harness.sources import Held, Source
from assay.models.data import Dataset
from assay.verify.backends.crown import CROWN
from assay.verify.backends.ibp import IBP
from assay.verify.core.binary import class_scores
from assay.verify.core.budget import Budget, check_budget
from assay.verify.core.errors import InputError, UnsupportedError, check_type
from assay.verify.core.network import Network, to_network
from assay.verify.core.norms import PERTURBATION, balls_name
from assay.verify.core.result import NETWORK
from assay.verify.core.spec import strictly_largest
from assay.verify.core.verifier import Verifier
from assay.verify.perturbations import Perturbation
from assay.verify.support import shown
from assay.verify.support.executors import Executor, Hiring, Job, Task, run
from assay.verify.support.executors.inline import here
from assay.verify.support.plain import counted

if TYPE_CHECKING:
    import pandas

NO_LIMIT = Budget()
ANYWHERE: Mapping[float, float] = MappingProxyType({})  # within no other balls
METHODS, ATTACKS = (IBP(), CROWN()), (FGSM(), PGD())  # who is asked unless others are named


@dataclass(frozen=True, kw_only=True, repr=False)
class Comparison(Outcome):
    """The rows of the bracket, clean first, then eps by eps: attacks, upper jaw, lower jaw, methods."""

    n: int
    rows: tuple[Row, ...]

    def _repr_html_(self) -> str:
        columns = ("eps", "name", "accuracy", "interval", "seconds")
        return shown.grid(self.caption, columns, map(bracket.cells, self.rows))

    @property
    def facts(self) -> dict[str, object]:
        """Beside the model and the data both jaws at each radius."""
        jaws = {(row.name, row.eps): f"{row.accuracy:.1%}" for row in self.rows}
        radii = sorted({row.eps for row in self.rows if row.name == ALL_METHODS})
        ends = {f"eps {eps:g}": f"{jaws[ALL_METHODS, eps]} to {jaws[ALL_ATTACKS, eps]}" for eps in radii}
        return {**super().facts, "samples": self.n, **ends}

    @property
    def refused(self) -> bool:
        """Whether nobody could treat a single sample."""
        asked = [row for row in self.rows if row.key not in (CLEAN, ALL_ATTACKS, ALL_METHODS)]
        return bool(asked) and all(row.refusal for row in asked)

    def to_frame(self) -> pandas.DataFrame:
        """The rows as a data frame: shares of 1, and seconds.

        Raises :class:`UnsupportedError` where pandas is not installed.
        """
        if find_spec("pandas") is None:
            raise UnsupportedError("a data frame needs the package pandas: pip install pandas")
        import pandas

        return pandas.DataFrame([bracket.flat(row) for row in self.rows])


def compare(
    model: nn.Module | Network,
    data: Dataset,
    eps: float | Sequence[float],
    methods: Sequence[Verifier] = METHODS,
    attacks: Sequence[Attack] = ATTACKS,
    *,
    norm: float = inf,
    budget: Budget = NO_LIMIT,
    batch: int = 50,
    name: str = "model",
    store: Store | None = None,
    resume: bool = False,
    alarm_folder: Path | None = None,
    progress: Progress = SILENT,
    hiring: Hiring = here,
    source: Source | None = None,
    perturbation: Perturbation | None = None,
    within: Mapping[float, float] = ANYWHERE,
) -> Comparison:
    """Judge every sample of ``data`` at every ``eps``, one or several (units of x, in the ``norm``; where the data have
    an ``eps_scale``, times that) by every method and attack; with a ``perturbation`` at every share ``eps`` of its
    parameters' ranges, by attacks on the parameters and by methods that bound cells of them. ``within``: radii, by
    norm, of other balls about each sample that hold what is asked about as well, whatever the eps.

    ``budget``: its seconds are for each sample and participant, its seed for whatever is random; ``batch``: samples
    treated at once. A misclassified clean sample counts as falsified at every eps, and nobody is asked about it; for
    those who speak of another classifier, the samples that this one misclassifies or abstains on.
    Records go to ``store`` and the cases of soundness alarms to ``alarm_folder`` as they are decided. With ``resume``
    the records that are settled already (:func:`assay.benchmarks.harness.records.store.settled`) are taken from the
    store. ``hiring``: where the work runs, which changes nothing of what comes out; ``source``: where other processes
    find the model, which travels itself if nothing is said.

    Raises :class:`InputError` for input that cannot be used, :class:`InternalError` where a participant fails: an
    exception is never a verdict. Alarms are returned: see :meth:`Outcome.raise_alarm`.
    """
    began = time.monotonic()
    common = ground(model, data, methods, attacks, norm, budget, source, perturbation, within)
    network, participants, norm = common.opened(), common.participants, common.norm
    radii = _checked(common, eps, batch)
    changed, held = "" if perturbation is None else str(perturbation), balls_name(within)
    with hiring(Job(ask, common, SAMPLES)) as executor:
        right = _right_by_subject(common, batch, executor)
        records = Records(store, resume, norm, budget)
        about = described.describe(network, name, data, norm, radii, budget, participants, right, changed, held)
        described.begin(store, about, data)
        under_way = Run(common, radii, right, records, alarm_folder, progress)
        under_way.judge(batch, executor)
    wrong = {subject: len(data) - len(rightly) for subject, rightly in right.items()}
    spent = time.monotonic() - began
    alarmed, folders = under_way.alarms, under_way.folders
    described.end(store, about, spent, alarmed, folders)
    return Comparison(
        model=name,
        data=f"{data.name} ({data.split})",
        norm=norm,
        seed=budget.seed,
        n=len(data),
        rows=tuple(bracket.rows(participants, radii, len(data), wrong, under_way.judged)),
        alarms=tuple(alarmed),
        folders=tuple(folders),
        seconds=spent,
        resumed=under_way.resumed,
        lost=tuple(under_way.lost),
        perturbation=changed,
        within=held,
    )


def ground(
    model: nn.Module | Network,
    data: Dataset,
    methods: Sequence[Verifier],
    attacks: Sequence[Attack],
    norm: float,
    budget: Budget,
    source: Source | None = None,
    perturbation: Perturbation | None = None,
    within: Mapping[float, float] = ANYWHERE,
) -> Ground:
    """What all tasks of a comparison share. Raises :class:`InputError` for input that cannot be used."""
    check_asked(data, budget)
    if perturbation is not None:
        if within:
            raise InputError("other balls are about the samples, and do not go with a perturbation")
        if data.limits is not None or data.eps_scale is not None:
            raise UnsupportedError("perturbations know one domain for all values, and no scale of eps")
        norm, methods = PERTURBATION, by_cells(methods)
    participants = participants_of(methods, attacks)
    network = to_network(model, data.shape)
    return Ground(
        source or Held(model), network.id, data, norm, budget, participants, network, perturbation, dict(within)
    )


def check_asked(data: Dataset, budget: Budget) -> None:
    """Raise :class:`InputError` for what is no data set or no budget."""
    made = "assay.data.load(name) gives one, and so does assay.data.Dataset(name, split, x, y, classes)"
    check_type(data, Dataset, "a Dataset", made)
    check_budget(budget)


def _checked(ground: Ground, eps: float | Sequence[float], batch: int) -> list[float]:
    """The radii in order, once all that can be refused beforehand was looked at: not in the midst of the work."""
    radii = [eps] if isinstance(eps, (int, float)) else list(eps)
    if batch < 1:
        raise InputError(f"the batch must be at least 1, got {batch}")
    if not radii:
        raise InputError("expected at least one eps")
    for radius in radii:
        ground.questions(radius, (0,))
    return sorted(set(radii))


def _right_by_subject(ground: Ground, batch: int, executor: Executor) -> dict[str, set[int]]:
    """Positions of the samples that each subject classifies rightly, the network first."""
    data = ground.data
    right = {NETWORK: set(rightly_classified(ground.opened(), data, batch).tolist())}
    places = {p.subject: place for place, p in enumerate(ground.participants) if p.subject != NETWORK}
    everything = [tuple(range(start, min(start + batch, len(data)))) for start in range(0, len(data), batch)]
    tasks = [Task(Asked(place, some, some), tag=subject) for subject, place in places.items() for some in everything]
    right |= {subject: set[int]() for subject in places}
    for ended in run(executor, tasks):
        right[ended.task.tag].update(ended.value())
    return right


def rightly_classified(network: Network, data: Dataset, batch: int) -> Tensor:
    """Positions (samples) of those whose label is strictly the largest output of the original model; NaN is wrong."""
    if int(data.y.max()) >= max(2, network.output_size):  # one output tells two classes apart
        only = counted(network.output_size, "output")
        raise InputError(f"{data.name} has the label {int(data.y.max())}, the model only {only}")
    oracle = network.oracle or network
    right = []
    with torch.no_grad():
        for x, y in zip(torch.split(data.x, batch), torch.split(data.y, batch), strict=True):
            outputs = class_scores(oracle(x.to(network.dtype)).flatten(1))
            right.append(strictly_largest(outputs, y))
    return torch.cat(right).nonzero().flatten()
