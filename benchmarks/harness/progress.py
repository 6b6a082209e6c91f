"""How far a run is, on stderr: a bar with the time left on a terminal, a log line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from types import MappingProxyType
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from assay.verify.support.plain import counted, plain

LOG_SECONDS = 5.0
OTHERWISE = ""  # the stage of what belongs to none
ALIKE: Mapping[str, int] = MappingProxyType({})  # no stages: every verdict takes as long as any other


class Progress(Protocol):
    """What a long run tells its watcher."""

    def begin(self, total: int, stages: Mapping[str, int] = ALIKE) -> None:
        """The work, counted in verdicts; ``stages``: how many are of each kind, where one takes longer than another."""
        ...

    def running(self, what: str) -> None:
        """What is being done now: the name of a stage, where there are any."""
        ...

    def advance(self, amount: int) -> None:
        """So many more verdicts are there."""
        ...

    def recall(self, amount: int) -> None:
        """So many more are there from an earlier run: they say nothing of how long the others will take."""
        ...

    def so_far(self, found: str) -> None:
        """What was found until now, in a few words."""
        ...


class Silent:
    """Tells nothing."""

    def begin(self, total: int, stages: Mapping[str, int] = ALIKE) -> None:
        """Nothing."""

    def running(self, what: str) -> None:
        """Nothing."""

    def advance(self, amount: int) -> None:
        """Nothing."""

    def recall(self, amount: int) -> None:
        """Nothing."""

    def so_far(self, found: str) -> None:
        """Nothing."""


SILENT = Silent()


class Pace:
    """How long the rest will take: each stage as long a verdict as it has taken so far.

    A stage of which nothing is known yet is taken to be as slow as the mean of the others.
    """

    def __init__(self, total: int, stages: Mapping[str, int]) -> None:
        self.owed = {OTHERWISE: total - sum(stages.values()), **stages}
        self.done = dict.fromkeys(self.owed, 0)
        self.spent = dict.fromkeys(self.owed, 0.0)
        self.stage, self.since = OTHERWISE, time.monotonic()

    def running(self, what: str) -> None:
        """The time from here on is that of stage ``what``."""
        self._charge()
        self.stage = what if what in self.owed else OTHERWISE

    def advance(self, amount: int) -> None:
        """So many more verdicts of the stage."""
        self._charge()
        self.done[self.stage] += amount

    def recall(self, amount: int) -> None:
        """So many verdicts fewer are owed by the stage."""
        self.since = time.monotonic()
        self.owed[self.stage] -= amount

    @property
    def left(self) -> float:
        """Seconds; inf before the first verdict."""
        known = {stage: self.spent[stage] / done for stage, done in self.done.items() if done}
        if not known:
            return inf
        usual = sum(known.values()) / len(known)
        return sum(max(0, owed - self.done[stage]) * known.get(stage, usual) for stage, owed in self.owed.items())

    def _charge(self) -> None:
        now = time.monotonic()
        self.spent[self.stage] += now - self.since
        self.since = now


@dataclass
class Lines:
    """A line at the start, then at most one every ``interval`` seconds, and one at the end."""

    stream: TextIO
    interval: float = LOG_SECONDS
    unit: str = "verdict"
    total: int = 0
    done: int = 0
    what: str = ""
    found: str = ""
    began: float = 0.0
    said: float = 0.0
    pace: Pace = field(default_factory=lambda: Pace(0, ALIKE))

    def begin(self, total: int, stages: Mapping[str, int] = ALIKE) -> None:
        """Start the clock."""
        self.total, self.done = total, 0
        self.began = self.said = time.monotonic()
        self.pace = Pace(total, stages)
        self._say(f"{counted(total, self.unit)} to come")

    def running(self, what: str) -> None:
        """Keep for the next line."""
        self.what = plain(what)
        self.pace.running(what)

    def advance(self, amount: int) -> None:
        """A line, if one is due."""
        self.pace.advance(amount)
        self._count(amount)

    def recall(self, amount: int) -> None:
        """Likewise."""
        self.pace.recall(amount)
        self._count(amount)

    def so_far(self, found: str) -> None:
        """Keep for the next line."""
        self.found = plain(found)

    def _count(self, amount: int) -> None:
        self.done += amount
        now = time.monotonic()
        elapsed = now - self.began
        if self.done >= self.total:
            self._say(f"{counted(self.total, self.unit)} in {clock(elapsed)}")
        elif now - self.said >= self.interval:
            self.said = now
            share = self.done / self.total
            left = clock(self.pace.left)
            doing = self.what + (f"; so far {self.found}" if self.found else "")
            self._say(f"{clock(elapsed)}  {self.done} of {self.total} ({share:.0%}), about {left} left: {doing}")

    def _say(self, text: str) -> None:
        print(f"assay: {text}", file=self.stream, flush=True)


class Bar:
    """A bar of rich; ``running`` is its description."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._task = bars.add_task("", total=None, what="", left="", found="")
        self._pace = Pace(0, ALIKE)

    def begin(self, total: int, stages: Mapping[str, int] = ALIKE) -> None:
        """Set the length."""
        self._bars.reset(self._task, total=total)
        self._pace = Pace(total, stages)

    def running(self, what: str) -> None:
        """Describe."""
        self._bars.update(self._task, what=plain(what))
        self._pace.running(what)

    def advance(self, amount: int) -> None:
        """Fill."""
        self._pace.advance(amount)
        self._fill(amount)

    def recall(self, amount: int) -> None:
        """Likewise."""
        self._pace.recall(amount)
        self._fill(amount)

    def so_far(self, found: str) -> None:
        """Beside the bar."""
        self._bars.update(self._task, found=plain(found))

    def _fill(self, amount: int) -> None:
        self._bars.update(self._task, advance=amount, left=f"about {clock(self._pace.left)} left")


@contextmanager
def watch(stream: TextIO | None = None, unit: str = "verdict", quiet: bool = False) -> Iterator[Progress]:
    """A bar while the block runs if ``stream`` (stderr) is a terminal, log lines, which name the unit, if not."""
    stream = stream or sys.stderr
    if quiet:
        yield SILENT
        return
    if not stream.isatty():
        yield Lines(stream, unit=unit)
        return
    columns = (
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}", markup=False),
        TextColumn("{task.fields[what]}", markup=False),
        TextColumn("{task.fields[found]}", markup=False),
    )
    with RichProgress(*columns, console=Console(file=stream), transient=True) as bars:
        yield Bar(bars)


def clock(seconds: float) -> str:
    """Seconds as a person reads them.

    >>> clock(4.2), clock(75), clock(7300), clock(float("inf"))
    ('4 s', '1 min 15 s', '2 h 01 min', 'unknown time')
    """
    if seconds == float("inf"):
        return "unknown time"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
