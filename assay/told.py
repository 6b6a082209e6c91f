"""How ``assay compare`` tells what it found: where everything is written, and the table of radii."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.commands.report import write
from assay.notes import lost
from assay.verify.core.errors import UnsupportedError
from assay.verify.support.plain import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assay.benchmarks.harness.radii.radius_table import RadiusTable


@dataclass(frozen=True)
class Told:
    """Where a comparison is told: the folder, the page if there is to be one, the number of its run in the store."""

    out: Path
    page: Path | None
    run: int | None
    resumed: bool
    as_json: bool

    @property
    def store(self) -> Path:
        """What the page and the pictures are made from."""
        return self.out / "results.sqlite"

    def write_page(self) -> None:
        """The page, if there is to be one."""
        from assay.benchmarks.harness.records.store import Store

        if self.page is not None:
            with Store(self.store) as opened:
                write(opened, self.page, self.run)

    def end(self, seconds: float, resumed: int, *files: str) -> None:
        """The last lines: what came from the store, the time, and the files."""
        if self.resumed:
            print(f"assay: {counted(resumed, 'verdict')} taken from {self.store}", file=sys.stderr)
        own = [self.store, *(self.out / name for name in ("summary.json", *files))]
        written = ", ".join(map(str, [*own, *([self.page] if self.page is not None else [])]))
        print(f"{seconds:.1f} s; wrote {written}", file=sys.stderr if self.as_json else sys.stdout)


def tell_radii(table: RadiusTable, where: dict[str, Any], command: Sequence[str], to: Told) -> int:
    """Summary, table, picture and page, written; the table of spreads, or the summary as JSON; and the exit code."""
    from rich.console import Console

    from assay.benchmarks.harness.records import recorded
    from assay.benchmarks.harness.records.origin import source_hash, versions
    from assay.benchmarks.harness.records.store import Store
    from assay.benchmarks.report import canvas, published, radii_figure, radius_tables, tables
    from assay.verify.support.documents import finite
    from assay.verify.support.files import replace_file

    try:
        facts = {"command": list(command), "versions": versions(), "source": source_hash()}
        document = finite(table.to_json() | facts | where)
        tables.write_summary(document, to.out / "summary.json")
        radius_tables.show(table, Console(stderr=to.as_json))
        with Store(to.store) as opened:
            read = recorded.read(opened, to.run)
        rows = published.of_radii(read, table.lines)
        replace_file(to.out / "radii.csv", published.write(rows, published.Format.CSV))
        canvas.save(radii_figure.plot(read), to.out / "radii.png")
        to.write_page()
        if to.as_json:
            print(tables.dump(document))
        to.end(table.seconds, table.resumed, "radii.csv", "radii.png")
    finally:  # an alarm does not hide behind a disk that is full
        table.raise_alarm()
    return UnsupportedError.exit_code if len(table.refused) == len(table.seats) else lost(table.lost)
