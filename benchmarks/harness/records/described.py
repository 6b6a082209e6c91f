"""What a run was about, kept beside its records: a report needs more than verdicts.

A document in the store's own table, with the number of its form; a reader that does not know the form says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from assay.benchmarks.harness import alarms
from assay.benchmarks.harness.alarms import Alarm
from assay.benchmarks.harness.bracket import Role
from assay.benchmarks.harness.bracket import Seat as Anyone
from assay.benchmarks.harness.records.origin import machine, source_hash, versions
from assay.benchmarks.harness.records.store import Store
from assay.models.data import Dataset
from assay.verify.core.budget import Budget
from assay.verify.core.network import Network
from assay.verify.core.norms import threat_name
from assay.verify.core.result import NETWORK
from assay.verify.support.documents import finite

COMPARISON, INSTANCES = 1, 2  # forms of documents; the latter's is in the report on runs over instances
KEPT = 128 * 2**20  # bytes of samples that a store takes, for reports to show


@dataclass(frozen=True)
class Seat:
    """A participant by name; ``key`` is that of its records."""

    role: Role
    name: str
    key: str
    subject: str = NETWORK


@dataclass(frozen=True)
class Description:
    """A comparison before its verdicts. ``wrong``: the positions of the samples that each subject misclassifies.

    ``network``: the content hash of what was compared; ``written``: the radii as they were asked for, such as 8/255;
    ``eps_scale``, ``domain``: numbers, or nested lists that broadcast to a sample; ``seconds``: of the whole run, None
    while it is not at its end; ``alarms``: those of the run as plain data; ``tolerance``: of a search for radii, which
    has no ``radii`` of its own; ``perturbation``: instead of a norm, as it was written; ``within``: the balls, by norm,
    that what changes lies within whatever the eps.
    """

    model: str
    network: str
    data: str
    origin: str
    norm: float
    n: int
    radii: tuple[float, ...]
    written: tuple[str, ...]
    seed: int
    device: str
    threads: int
    budget: float
    seats: tuple[Seat, ...]
    wrong: Mapping[str, Sequence[int]]
    domain: list[Any]
    eps_scale: Any
    source: str
    versions: Mapping[str, str]
    machine: Mapping[str, str | int]
    seconds: float | None = None
    alarms: tuple[Mapping[str, Any], ...] = field(default=())
    tolerance: float | None = None
    perturbation: str = ""
    within: str = ""

    def to_json(self) -> str:
        """One document."""
        return json.dumps(finite(asdict(self)), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Description:
        """The inverse of :meth:`to_json`. Raises ValueError, KeyError or TypeError for what is none."""
        data = json.loads(text)
        seats = tuple(Seat(Role(s["role"]), s["name"], s["key"], s["subject"]) for s in data["seats"])
        data |= {"norm": float(data["norm"]), "budget": float(data["budget"]), "seats": seats}
        lists = {name: tuple(data[name]) for name in ("radii", "written", "alarms")}
        made = cls(**data | lists)
        if not made._is_sound():
            raise ValueError("its parts are not what they should be")
        return made

    def _is_sound(self) -> bool:
        """Whether the parts that reports compute with, or look up, are what they should be."""
        texts = [
            self.model,
            self.network,
            self.data,
            self.origin,
            self.device,
            self.source,
            self.perturbation,
            self.within,
            *self.written,
        ]
        texts += [text for seat in self.seats for text in (seat.name, seat.key, seat.subject)]
        numbers = [self.norm, self.n, self.seed, self.threads, self.budget, *self.radii]
        numbers += [each for each in (self.seconds, self.tolerance) if each is not None]
        positions = [i for each in self.wrong.values() for i in each]
        return (
            len(self.radii) == len(self.written)
            and {seat.subject for seat in self.seats} <= set(self.wrong)
            and all(isinstance(text, str) for text in texts)
            and all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers)
            and all(isinstance(i, int) for i in (self.n, *positions))
            and all(isinstance(part, Mapping) for part in (self.versions, self.machine, *self.alarms))
        )

    @property
    def threat(self) -> str:
        """The perturbation, or the norm by name, and what other balls it is within."""
        return threat_name(self.norm, self.perturbation, self.within)

    def label(self, eps: float) -> str:
        """The radius as it was written."""
        return dict(zip(self.radii, self.written, strict=True)).get(eps, f"{eps:g}")


def describe(
    network: Network,
    model: str,
    data: Dataset,
    norm: float,
    radii: Sequence[float],
    budget: Budget,
    participants: Sequence[Anyone],
    right: Mapping[str, set[int]],
    perturbation: str = "",
    within: str = "",
) -> Description:
    """What is about to be compared. ``right``: the positions of what each subject classifies rightly."""
    return Description(
        model=model,
        network=network.id,
        data=f"{data.name} ({data.split})",
        origin=data.origin,
        norm=norm,
        n=len(data),
        radii=tuple(map(float, radii)),
        written=tuple(f"{eps:g}" for eps in radii),
        seed=budget.seed,
        device=str(budget.device),
        threads=torch.get_num_threads(),
        budget=budget.seconds,
        seats=tuple(Seat(each.role, each.name, each.key, each.subject) for each in participants),
        wrong={subject: [i for i in range(len(data)) if i not in rightly] for subject, rightly in right.items()},
        domain=[torch.as_tensor(end).tolist() for end in data.legal],
        eps_scale=None if data.eps_scale is None else data.eps_scale.tolist(),
        source=source_hash(),
        versions=versions(),
        machine=machine(),
        perturbation=perturbation,
        within=within,
    )


def begin(store: Store | None, about: Description, data: Dataset) -> None:
    """Keep the description and the samples, as many of the first as are no more than ``KEPT`` bytes; a store that no
    run was begun in takes none."""
    if store is not None and store.run is not None:
        store.noted.describe(store.run, COMPARISON, about.to_json())
        first = data.x[: KEPT // (4 * data.x[0].numel())]
        store.noted.note_samples(store.run, first, data.y[: len(first)].tolist())


def end(
    store: Store | None, about: Description, seconds: float, found: Sequence[Alarm], folders: Sequence[Path]
) -> None:
    """Note that the run came to its end, and its alarms."""
    if store is not None and store.run is not None:
        told = tuple(alarms.told(found, folders))
        store.noted.describe(store.run, COMPARISON, replace(about, seconds=seconds, alarms=told).to_json())


def read(form: int, document: str) -> Description | str:
    """The description, or why it cannot be read."""
    if form != COMPARISON:
        return f"it is described in form {form}, and this assay reads form {COMPARISON}"
    try:
        return Description.from_json(document)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its description cannot be read ({type(error).__name__}: {error})"
