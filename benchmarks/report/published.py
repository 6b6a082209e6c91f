"""Tables to publish: the rows of a run as CSV, Parquet, LaTeX, Markdown or JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict
from enum import StrEnum
from importlib.util import find_spec
from typing import Any

from assay.benchmarks.harness.bracket import Bracketed, flat
from assay.benchmarks.harness.radii.radius_table import Line, RadiusTable
from assay.benchmarks.harness.records.recorded import Recorded
from assay.benchmarks.harness.records.store import Store
from assay.benchmarks.harness.suite import Row
from assay.verify.core.errors import UnsupportedError
from assay.verify.support.documents import dump
from assay.verify.support.plain import plain

Entry = dict[str, Any]

# What a spreadsheet would take for a formula: a quote in front makes it text (OWASP, CSV injection).
FORMULA = ("=", "+", "-", "@")
LATEX = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
}
# What a page of Markdown would take for its own.
MARKDOWN = {**{char: f"\\{char}" for char in "\\`*_{}[]()#|~$!"}, "&": "&amp;", "<": "&lt;", ">": "&gt;"}


class Format(StrEnum):
    """How a table is written."""

    CSV = "csv"
    PARQUET = "parquet"
    LATEX = "latex"
    MARKDOWN = "markdown"
    JSON = "json"


def of_comparison(comparison: Bracketed) -> list[Entry]:
    """A row for each participant and eps, with the names of model and data."""
    about = {"model": comparison.model, "data": comparison.data, "norm": float(comparison.norm)}
    return [about | flat(row) for row in comparison.rows]


def of_totals(store: Store) -> list[Entry]:
    """A row for each run, method, norm, eps, verdict and reason: counts, and seconds. The database counts."""
    return [asdict(total) for total in store.totals()]


def of_instances(rows: Sequence[Row]) -> list[Entry]:
    """A row for each instance."""
    return [{**row.to_json(), "limit": row.instance.seconds} for row in rows]


def of_radii(table: RadiusTable | Recorded, lines: Sequence[Line]) -> list[Entry]:
    """A row for each sample and participant: its radius, or its distance, and both ends of the sample's bracket."""
    about = {"model": table.model, "data": table.data, "norm": float(table.norm)}
    entries = []
    for line in lines:
        own = {"sample": line.sample, "label": line.label, "right": line.predicted == line.label}
        ends = {"certified": line.certified, "attacked": line.attacked, "disputed": line.disputed}
        nobody = {} if line.reaches else {"": None}
        for name, reach in {**line.reaches, **nobody}.items():
            radius = None if reach is None else reach.radius
            entries.append({**about, **own, "name": name, "radius": radius, **ends})
    return entries


def write(entries: Sequence[Entry], form: Format) -> bytes:
    """The table; shares are fractions of 1, times are seconds, and what does not apply is left empty.

    Raises :class:`UnsupportedError` for Parquet where pyarrow is missing.
    """
    return WRITERS[form](entries)


def _csv(entries: Sequence[Entry]) -> bytes:
    written = io.StringIO()
    out = csv.writer(written, lineterminator="\n")
    out.writerow(entries[0])
    for entry in entries:
        out.writerow([cell(value) for value in entry.values()])
    return written.getvalue().encode()


def cell(value: Any) -> Any:
    """What a cell of a CSV file holds: nothing for None, and no text that a spreadsheet would run."""
    if not isinstance(value, str):
        return "" if value is None else value
    text = plain(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def _parquet(entries: Sequence[Entry]) -> bytes:
    if find_spec("pyarrow") is None:
        raise UnsupportedError("parquet needs the package pyarrow: pip install pyarrow (csv and json need nothing)")
    import pyarrow
    from pyarrow import parquet

    sink = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(list(entries)), sink)
    return sink.getvalue()


def _json(entries: Sequence[Entry]) -> bytes:
    return f"{dump(list(entries))}\n".encode()


def _latex(entries: Sequence[Entry]) -> bytes:
    """A tabular for booktabs."""
    names = _shown(entries)
    figures = [all(not isinstance(entry[name], str) for entry in entries) for name in names]
    lines = [
        f"\\begin{{tabular}}{{{''.join('r' if figure else 'l' for figure in figures)}}}",
        r"\toprule",
        _tex([_heading(name) for name in names]),
        r"\midrule",
        *(_tex([_figure(name, entry[name]) for name in names]) for entry in entries),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return ("\n".join(lines) + "\n").encode()


def _tex(cells: Sequence[str]) -> str:
    return " & ".join("".join(LATEX.get(char, char) for char in plain(cell)) for cell in cells) + r" \\"


def _markdown(entries: Sequence[Entry]) -> bytes:
    names = _shown(entries)
    lines = [
        _line([_heading(name) for name in names]),
        _rule(["-:" if all(not isinstance(entry[name], str) for entry in entries) else "-" for name in names]),
        *(_line([_figure(name, entry[name]) for name in names]) for entry in entries),
    ]
    return ("\n".join(lines) + "\n").encode()


def _line(cells: Sequence[str]) -> str:
    return _rule(["".join(MARKDOWN.get(char, char) for char in plain(cell)) for cell in cells])


def _rule(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _heading(name: str) -> str:
    """Of a column, for print."""
    return {"low": "95% from", "high": "to"}.get(name, name.replace("_", " "))


def _shown(entries: Sequence[Entry]) -> list[str]:
    """The columns that tell rows apart: for print, what is the same or empty in all rows is left to the caption."""
    names = list(entries[0])
    if len(entries) == 1:
        return names
    return [name for name in names if len({str(entry[name]) for entry in entries}) > 1]


def _figure(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{100 * value:.1f}%" if name in ("accuracy", "low", "high") else f"{value:.4g}"
    return str(value)


WRITERS: dict[Format, Callable[[Sequence[Entry]], bytes]] = {
    Format.CSV: _csv,
    Format.PARQUET: _parquet,
    Format.LATEX: _latex,
    Format.MARKDOWN: _markdown,
    Format.JSON: _json,
}
