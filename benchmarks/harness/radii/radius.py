"""The robust radius of a sample, between the largest ball that is certified and the smallest that is attacked.

The radius is the supremum of all eps for which the label is strictly the largest output everywhere within eps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any

from assay.attacks.common.interface import Attack
from assay.benchmarks.harness import alarms
from assay.benchmarks.harness.alarms import Alarm
from assay.benchmarks.harness.lost import Lost
from assay.benchmarks.harness.progress import SILENT, Progress
from assay.benchmarks.harness.radii import radius_table
from assay.benchmarks.harness.sources import Source
from assay.models.data import Dataset
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.result import Reason
from assay.verify.core.verifier import Verifier
from assay.verify.support.executors import Hiring
from assay.verify.support.executors.inline import here
from assay.verify.support.options import title

NO_LIMIT = Budget()


@dataclass(frozen=True)
class Bracket:
    """``certified`` <= radius <= ``attacked`` for one sample, in the units of x.

    ``certified`` is 0 where nothing is certified, ``attacked`` inf where no attack succeeded; both are 0 for a sample
    that is misclassified (``predicted`` differs from ``label``), and None after a soundness alarm. ``reason``: why the
    method proved no more when it was last asked in vain. ``questions``: to the method, and runs of the attack.
    """

    sample: int
    label: int
    predicted: int
    certified: float | None
    attacked: float | None
    reason: Reason | None
    questions: tuple[int, int]
    seconds: float

    @property
    def right(self) -> bool:
        """Whether the sample itself is classified as its label."""
        return self.predicted == self.label


@dataclass(frozen=True)
class Radii:
    """The brackets of some samples; ``folders``: where each alarm was saved, in their order, if anywhere."""

    model: str
    data: str
    norm: float
    method: str
    attack: str
    tolerance: float
    seed: int
    brackets: tuple[Bracket, ...]
    alarms: tuple[Alarm, ...]
    folders: tuple[Path, ...]
    lost: tuple[Lost, ...] = ()

    def raise_alarm(self) -> None:
        """Raise :class:`AlarmError` if there was an alarm; to be called once everything is printed."""
        alarms.raise_first(self.alarms, self.folders)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        samples = [asdict(bracket) for bracket in self.brackets]
        for entry in samples:
            asked, tried = entry.pop("questions")
            entry |= {"asked": asked, "attacks": tried, "seconds": round(entry["seconds"], 3)}
        names = ("model", "data", "norm", "method", "attack", "tolerance", "seed")
        return {
            **{name: getattr(self, name) for name in names},
            "samples": samples,
            "alarms": alarms.told(self.alarms, self.folders),
            "lost": [asdict(each) for each in self.lost],
        }


def radii(
    model: Any,
    data: Dataset,
    samples: Sequence[int],
    method: Verifier,
    attack: Attack,
    *,
    norm: float = inf,
    tolerance: float = 1e-3,
    budget: Budget = NO_LIMIT,
    name: str = "model",
    alarm_folder: Path | None = None,
    progress: Progress = SILENT,
    hiring: Hiring = here,
    source: Source | None = None,
) -> Radii:
    """The bracket of each of these ``samples`` of ``data``: its ends are found within ``tolerance`` (units of x).

    ``budget``: its seconds are for all questions about one sample to the method, and as many for the attack.

    Raises :class:`InputError` for input that cannot be used, :class:`UnsupportedError` where the method or the attack
    cannot treat the model or the norm. Alarms are returned: see :meth:`Radii.raise_alarm`.
    """
    if missing := [i for i in samples if not 0 <= i < len(data)]:
        raise InputError(f"{data.name} ({data.split}) has samples from 0 to {len(data) - 1}, not {missing[0]}")
    table = radius_table.compare_radii(
        model,
        data,
        [method],
        [attack],
        samples=samples,
        norm=norm,
        tolerance=tolerance,
        share=0.0,
        budget=budget,
        name=name,
        alarm_folder=alarm_folder,
        progress=progress,
        hiring=hiring,
        source=source,
    )
    if table.refused:
        (who, why), *_ = table.refused.items()
        raise UnsupportedError(f"{who} cannot treat this model in this norm: {why}")
    return Radii(
        name,
        table.data,
        norm,
        title(method),
        title(attack),
        tolerance,
        budget.seed,
        tuple(_bracket(table, line) for line in table.lines),
        table.alarms,
        table.folders,
        table.lost,
    )


def _bracket(table: radius_table.RadiusTable, line: radius_table.Line) -> Bracket:
    """One line of a table of one method and one attack."""
    attack, method = (line.reaches.get(seat.name) for seat in table.seats)
    certified, attacked = (None, None) if line.disputed else (line.certified, line.attacked)
    questions = (method.asked if method else 0, attack.asked if attack else 0)
    seconds = sum(each.seconds for each in (attack, method) if each)
    reason = method.reason if method else None
    return Bracket(line.sample, line.label, line.predicted, certified, attacked, reason, questions, seconds)
