"""How far a run is, on stderr: a bar with the time left on a terminal, a log line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from assay.verify.support.plain import plain

LOG_SECONDS = 5.0


class Progress(Protocol):
    """What a long run tells its watcher."""

    def begin(self, total: int) -> None:
        """The work, counted in verdicts."""
        ...

    def running(self, what: str) -> None:
        """What is being done now."""
        ...

    def advance(self, amount: int) -> None:
        """So many more verdicts are there."""
        ...


class Silent:
    """Tells nothing."""

    def begin(self, total: int) -> None:
        """Nothing."""

    def running(self, what: str) -> None:
        """Nothing."""

    def advance(self, amount: int) -> None:
        """Nothing."""


SILENT = Silent()


@dataclass
class Lines:
    """A line at the start, then at most one every ``interval`` seconds, and one at the end."""

    stream: TextIO
    interval: float = LOG_SECONDS
    unit: str = "verdicts"
    total: int = 0
    done: int = 0
    what: str = ""
    began: float = 0.0
    said: float = 0.0

    def begin(self, total: int) -> None:
        """Start the clock."""
        self.total, self.done = total, 0
        self.began = self.said = time.monotonic()
        self._say(f"{total} {self.unit} to come")

    def running(self, what: str) -> None:
        """Keep for the next line."""
        self.what = plain(what)

    def advance(self, amount: int) -> None:
        """A line, if one is due."""
        self.done += amount
        now = time.monotonic()
        elapsed = now - self.began
        if self.done >= self.total:
            self._say(f"{self.total} {self.unit} in {clock(elapsed)}")
        elif now - self.said >= self.interval:
            self.said = now
            left = elapsed / self.done * (self.total - self.done) if self.done else float("inf")
            share = self.done / self.total
            self._say(
                f"{clock(elapsed)}  {self.done} of {self.total} ({share:.0%}), about {clock(left)} left: {self.what}"
            )

    def _say(self, text: str) -> None:
        print(f"assay: {text}", file=self.stream, flush=True)


class Bar:
    """A bar of rich; ``running`` is its description."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._task = bars.add_task("", total=None, what="")

    def begin(self, total: int) -> None:
        """Set the length."""
        self._bars.reset(self._task, total=total)

    def running(self, what: str) -> None:
        """Describe."""
        self._bars.update(self._task, what=plain(what))

    def advance(self, amount: int) -> None:
        """Fill."""
        self._bars.advance(self._task, amount)


@contextmanager
def watch(stream: TextIO | None = None, unit: str = "verdicts") -> Iterator[Progress]:
    """A bar while the block runs if ``stream`` (stderr) is a terminal, log lines, which name the unit, if not."""
    stream = stream or sys.stderr
    if not stream.isatty():
        yield Lines(stream, unit=unit)
        return
    columns = (
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[what]}", markup=False),
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
