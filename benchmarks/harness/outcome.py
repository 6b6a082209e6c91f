"""What every comparison over a data set ends with, accuracies and radii alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from assay.benchmarks.harness import alarms
from assay.benchmarks.harness.alarms import Alarm
from assay.benchmarks.harness.lost import Lost
from assay.verify.core.norms import threat_name
from assay.verify.support import shown


@dataclass(frozen=True, kw_only=True, repr=False)
class Outcome:
    """Of which model and data, in which norm, within which other balls, or under which perturbation; where participants
    contradict each other; and what it took.

    ``folders``: where each alarm was saved, in their order; empty where no folder was named. ``seconds``: of wall
    time; ``resumed``: verdicts that were taken from the store; ``lost``: questions that no process survived.
    """

    model: str
    data: str
    norm: float
    seed: int
    alarms: tuple[Alarm, ...]
    folders: tuple[Path, ...]
    seconds: float
    resumed: int = 0
    lost: tuple[Lost, ...] = ()
    perturbation: str = ""
    within: str = ""

    def __repr__(self) -> str:
        return shown.line(type(self).__name__, self.facts)

    @property
    def threat(self) -> str:
        """The perturbation, or the norm by name, and what other balls it is within."""
        return threat_name(self.norm, self.perturbation, self.within)

    @property
    def caption(self) -> str:
        """The facts in one line, above a table."""
        return ", ".join(f"{key} {value}" for key, value in self.facts.items())

    @property
    def facts(self) -> dict[str, object]:
        """What people want to see of it, alarms first."""
        alarms = {"SOUNDNESS ALARMS": len(self.alarms)} if self.alarms else {}
        return {**alarms, "model": self.model, "data": self.data}

    def raise_alarm(self) -> None:
        """Raise :class:`AlarmError` if there was an alarm; to be called once everything is written."""
        alarms.raise_first(self.alarms, self.folders)
