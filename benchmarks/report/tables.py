"""A comparison as a table for people and as summary.json for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from assay.benchmarks.harness import alarms
from assay.benchmarks.harness.bracket import ALL_ATTACKS, ALL_METHODS, CONFIDENCE, UNSUPPORTED, Bracketed, Role, Row
from assay.benchmarks.harness.compare import Comparison
from assay.benchmarks.harness.records.origin import source_hash, versions
from assay.benchmarks.report import layout
from assay.verify.core.result import NETWORK
from assay.verify.support.documents import dump as dump
from assay.verify.support.documents import finite
from assay.verify.support.files import write_atomic
from assay.verify.support.plain import counted, plain

JAWS = (ALL_ATTACKS, ALL_METHODS)
INTERVAL = f"{CONFIDENCE:.0%} CI"
SPARE = (INTERVAL, "seconds")  # columns that a narrow terminal does without
SHORT = len("smoothing-attack *")  # labels of other subjects are not folded up to here
NOTHING = ("\u2013", *[""] * 5)


def summary(comparison: Comparison, command: Sequence[str] = ()) -> dict[str, Any]:
    """Everything a reader needs as plain data; numbers that are not finite are strings."""
    document = {
        "model": comparison.model,
        "data": comparison.data,
        **({"perturbation": comparison.perturbation} if comparison.perturbation else {"norm": comparison.norm}),
        **({"within": comparison.within} if comparison.within else {}),
        "rows": [row.to_json() for row in comparison.rows],
        "alarms": alarms.told(comparison.alarms, comparison.folders),
        "lost": [asdict(each) for each in comparison.lost],
        "n": comparison.n,
        "seed": comparison.seed,
        "confidence": CONFIDENCE,
        "seconds": round(comparison.seconds, 3),
        "command": list(command),
        "versions": versions(),
        "source": source_hash(),
    }
    plain_data: dict[str, Any] = finite(document)
    return plain_data


def write_summary(document: dict[str, Any], path: Path) -> None:
    """Replace ``path`` by the document, whole or not at all."""
    write_atomic(path, f"{dump(document)}\n".encode())


def show(comparison: Comparison, console: Console) -> None:
    """Print the table and what the rows alone do not say."""
    layout.show(table(comparison), console, SPARE)
    for line in _notes(comparison):
        console.print(Text(line, "dim"))
    for alarm in comparison.alarms:
        console.print(Text(f"SOUNDNESS ALARM: {plain(alarm.explanation)}", "bold red"))


def table(comparison: Bracketed) -> Table:
    """Clean accuracy first; then for each eps, falling: attacks, the bracket's two jaws, methods."""
    head = f"{plain(comparison.model)} on {plain(comparison.data)}, {plain(comparison.threat)}, "
    head += counted(comparison.n, "sample")
    figures = map(layout.figure, ("accuracy", INTERVAL, "verified", "falsified", "unknown", "seconds"))
    clean, *others = comparison.rows
    labels = _labels(comparison.rows)
    least = max(
        [layout.NAME, *(min(len(label), SHORT) for (subject, _), label in labels.items() if subject != NETWORK)]
    )
    grid = layout.grid(layout.figure("eps"), layout.name(least=least), *figures, title=head)
    grid.add_row(*_cells(clean, labels[clean.subject, clean.name], "", ""), end_section=True)
    for eps in sorted({row.eps for row in others}):
        group = ordered([row for row in others if row.eps == eps])
        for position, row in enumerate(group):
            shown = f"{eps:g}" if position == 0 else ""
            side = "\u2264" if row.role is Role.ATTACK else "\u2265"
            style = "bold" if row.name in JAWS else ""
            label = labels[row.subject, row.name]
            grid.add_row(*_cells(row, label, shown, f"{side} "), style=style, end_section=row is group[-1])
    return grid


def ordered(rows: Sequence[Row]) -> list[Row]:
    """Attacks falling, the upper jaw, the lower jaw, methods falling: accuracies from top to bottom never rise.

    Whoever could not run stands last among their like.
    """
    attacks = [row for row in rows if row.role is Role.ATTACK and row.name not in JAWS]
    methods = [row for row in rows if row.role is Role.METHOD and row.name not in JAWS]
    both = [row for name in JAWS for row in rows if row.name == name]
    attacks.sort(key=lambda row: (bool(row.refusal), -row.accuracy))
    methods.sort(key=lambda row: (bool(row.refusal), -row.accuracy))
    return [*attacks, *both, *methods]


def _others(rows: Sequence[Row]) -> dict[str, str]:
    """A mark of stars for each subject that is not the network."""
    subjects = dict.fromkeys(row.subject for row in rows if row.subject != NETWORK)
    return {subject: "*" * number for number, subject in enumerate(subjects, 1)}


def _labels(rows: Sequence[Row]) -> dict[tuple[str, str], str]:
    """What each row is called, by subject and name: those of another subject are short, with its mark, since the note
    below the table has their options; two that would be called the same keep their full names."""
    marks = _others(rows)
    names = {(row.subject, row.name): plain(row.name) for row in rows}
    short = {key: name.partition("(")[0] for key, name in names.items()}
    seen = Counter((subject, short[subject, name]) for subject, name in names)

    def label(subject: str, name: str) -> str:
        alone = seen[subject, short[subject, name]] == 1
        return f"{short[subject, name] if alone else names[subject, name]} {marks[subject]}"

    return {key: label(*key) if key[0] in marks else name for key, name in names.items()}


def _cells(row: Row, label: str, eps: str, side: str) -> list[Text | str]:
    if row.refusal:
        return [eps, Text(f"{label}: {UNSUPPORTED}"), *NOTHING]
    low, high = row.interval
    return [
        eps,
        Text(label),
        f"{side}{row.accuracy:.1%}",
        f"{100 * low:.1f}\u2013{100 * high:.1f}",
        str(row.verified) if row.role is Role.METHOD else "",
        str(row.falsified),
        str(row.unknown) if row.role is Role.METHOD else "",
        f"{row.seconds:.2f}" if row.seconds else "",
    ]


def _notes(comparison: Comparison) -> list[str]:
    notes = []
    if wrong := comparison.rows[0].misclassified:
        is_, counts = ("is", "it counts") if wrong == 1 else ("are", "they count")
        which = f"{wrong} of {counted(comparison.n, 'sample')}"
        notes.append(f"{which} {is_} misclassified without any attack; {counts} as falsified.")
    for subject, mark in _others(comparison.rows).items():
        own = dict.fromkeys(row.name for row in comparison.rows if row.subject == subject and row.name != "clean")
        notes.append(f"{mark} speaks of {plain(subject)}, not of the network: {', '.join(map(plain, own))}.")
    refused = dict.fromkeys((plain(row.name), row.refusal) for row in comparison.rows if row.refusal)
    notes += [f"{name}: {plain(why)}." for name, why in refused]
    for row in comparison.rows:
        odd = {reason: count for reason, count in row.reasons.items() if reason != "incomplete"}
        if odd and not row.refusal:
            why = ", ".join(_counted(count, reason, row.explanations.get(reason, "")) for reason, count in odd.items())
            notes.append(f"{plain(row.name)} at eps {row.eps:g}: of the unknown, {why}.")
    return notes


def _counted(count: int, reason: str, explanation: str) -> str:
    return f"{count} {reason}" + (f" ({plain(explanation)})" if explanation else "")
