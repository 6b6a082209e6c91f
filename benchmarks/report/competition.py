"""What is published about instances: the verdicts to expect, and what other verifiers made of them; and our table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path
from statistics import mean, median

from rich.console import Console
from rich.table import Table
from rich.text import Text

from assay.benchmarks.harness.instances import Instance, Name, name_of, rows
from assay.benchmarks.harness.suite import DECIDED, Outcome
from assay.benchmarks.report import layout
from assay.verify.core.errors import InputError
from assay.verify.support.plain import counted, plain

OURS = "assay"
OPEN = ("unknown", "conflict")  # expected verdicts that nothing contradicts
EXPECTED = ("benchmark", "onnx", "vnnlib", "verdict")
PEERS = ("benchmark", "onnx", "vnnlib", "tool", "year", "verdict", "seconds")
SPARE = ("mean s", "median s")  # columns that a narrow terminal does without
SUMMARY = (
    *("benchmark", "tool", "year", "n", "sat", "unsat", "wrong_unsat"),
    *("mean_seconds_solved", "median_seconds_solved", "timeout", "unknown", "error_or_none"),
)


@dataclass(frozen=True)
class Standing:
    """What one tool made of ``n`` instances of a benchmark; mean and median are over the solved ones, in seconds."""

    benchmark: str
    tool: str
    n: int
    sat: int
    unsat: int
    unknown: int
    timeout: int
    error: int
    wrong: int
    mean: float | None
    median: float | None

    @property
    def solved(self) -> int:
        """Verdicts, the wrong ones not counted."""
        return self.sat + self.unsat


@dataclass(frozen=True)
class Peers:
    """Published standings, and for the plot the seconds of each solved instance by tool, where they are published."""

    standings: tuple[Standing, ...] = ()
    seconds: Mapping[str, Mapping[Name, float]] | None = None


def read_expected(path: Path) -> dict[Name, str]:
    """Verdicts by name from a CSV file: sat, unsat, or what contradicts nothing. Raises :class:`InputError`."""
    verdicts = {}
    for line, entry in _table(path, EXPECTED):
        if entry["verdict"] not in (*DECIDED, *OPEN):
            known = ", ".join((*DECIDED, *OPEN))
            raise InputError(f"{path}:{line}: expected a verdict of {known}, got {entry['verdict']!r}")
        verdicts[name_of(entry["benchmark"], entry["onnx"], entry["vnnlib"])] = entry["verdict"]
    return verdicts


def read_peers(path: Path, instances: Sequence[Instance], expected: Mapping[Name, str]) -> Peers:
    """Published results: one line per instance and tool, counted on ``instances`` alone, or a summary as it stands.

    Raises :class:`InputError` for a file that is neither.
    """
    _, header = next(rows(path), (1, [""]))
    if set(PEERS) <= set(header):
        return _counted(path, instances, expected)
    if "benchmark" not in header:
        raise InputError(
            f"{path}: expected a first line that names the columns {', '.join(PEERS)}, or of a summary "
            f"{', '.join(SUMMARY)}; got {','.join(header)!r}"
        )
    benchmarks = {instance.benchmark for instance in instances}
    entries = [(line, entry) for line, entry in _table(path, SUMMARY) if entry["benchmark"] in benchmarks]
    return Peers(tuple(_published(path, line, entry) for line, entry in entries))


def standings(outcome: Outcome) -> list[Standing]:
    """Ours, benchmark by benchmark in the order of the rows."""
    ours = []
    for benchmark in dict.fromkeys(row.instance.benchmark for row in outcome.rows):
        here = [row for row in outcome.rows if row.instance.benchmark == benchmark]
        said = [(row.word.value, row.seconds, row.contradicts) for row in here]
        ours.append(_standing(benchmark, OURS, len(here), said))
    return ours


def show(outcome: Outcome, peers: Peers, console: Console) -> None:
    """Print contradictions first, then the table, and where the peers' figures are from."""
    for line in outcome.contradictions:
        console.print(Text(f"CONTRADICTION: {plain(line)}", "bold red"))
    layout.show(table(outcome, peers), console, SPARE)
    if peers.standings:
        note = "peers: as published, start-up included, on the machines of the competition"
        console.print(Text(note, "dim"))


def table(outcome: Outcome, peers: Peers) -> Table:
    """For each benchmark ours in bold among the best standing of each peer."""
    columns = ("solved", "sat", "unsat", "unknown", "timeout", "error", "mean s", "median s")
    grid = layout.grid(layout.name(), *map(layout.figure, columns))
    for own, group in beside(outcome, peers):
        grid.add_row(Text(f"{plain(own.benchmark)} ({own.n})", "italic"))
        for standing in group:
            style = "bold" if standing is own else ""
            grid.add_row(*_cells(standing), style=style, end_section=standing is group[-1])
    return grid


def beside(outcome: Outcome, peers: Peers) -> list[tuple[Standing, list[Standing]]]:
    """For each benchmark our standing, and it among the best standing of each peer, the best first."""
    groups = []
    for own in standings(outcome):
        best: dict[str, Standing] = {}
        for standing in (s for s in peers.standings if s.benchmark == own.benchmark):
            name = standing.tool.partition(" ")[0]
            best[name] = max(best.get(name, standing), standing, key=_rank)
        groups.append((own, sorted([own, *best.values()], key=lambda s: (_rank(s), s is own), reverse=True)))
    return groups


def _rank(standing: Standing) -> tuple[int, float]:
    return standing.solved, -(standing.mean or 0.0)


def _cells(standing: Standing) -> list[str | Text]:
    counts = (standing.solved, standing.sat, standing.unsat, standing.unknown, standing.timeout, standing.error)
    return [
        Text.assemble(plain(standing.tool), (f", {standing.wrong} wrong" if standing.wrong else "", "bold red")),
        *map(str, counts),
        *("" if value is None else f"{value:.2f}" for value in (standing.mean, standing.median)),
    ]


def _standing(benchmark: str, tool: str, n: int, said: Sequence[tuple[str, float, bool]]) -> Standing:
    """Counts of (verdict, seconds, whether it is wrong); what is missing among ``n`` is an error."""
    right = [(verdict, seconds) for verdict, seconds, wrong in said if verdict in DECIDED and not wrong]
    times = [seconds for _, seconds in right]
    words = [verdict for verdict, _ in right]
    open_ = {word: sum(verdict == word for verdict, _, _ in said) for word in ("unknown", "timeout")}
    wrong = sum(wrong for _, _, wrong in said)
    return Standing(
        benchmark,
        tool,
        n,
        words.count("sat"),
        words.count("unsat"),
        open_["unknown"],
        open_["timeout"],
        n - len(right) - sum(open_.values()) - wrong,
        wrong,
        mean(times) if times else None,
        median(times) if times else None,
    )


def _counted(path: Path, instances: Sequence[Instance], expected: Mapping[Name, str]) -> Peers:
    """Standings on exactly these instances, from one line per instance and tool."""
    wanted = {instance.name for instance in instances}
    said: dict[tuple[str, str], dict[Name, tuple[str, float, bool]]] = {}
    times: dict[str, dict[Name, float]] = {}
    for line, entry in _table(path, PEERS):
        name = name_of(entry["benchmark"], entry["onnx"], entry["vnnlib"])
        if name not in wanted:
            continue
        tool, verdict = f"{entry['tool']} {entry['year']}", entry["verdict"]
        seconds = _number(f"{path}:{line}", entry["seconds"] or "0", "seconds")
        right = expected.get(name)
        wrong = verdict in DECIDED and right in DECIDED and verdict != right
        said.setdefault((name[0], tool), {})[name] = (verdict, seconds, wrong)
        if verdict in DECIDED and not wrong:
            times.setdefault(tool, {})[name] = seconds
    size = {benchmark: sum(name[0] == benchmark for name in wanted) for benchmark in {name[0] for name in wanted}}
    counted = [_standing(where, tool, size[where], list(by.values())) for (where, tool), by in said.items()]
    return Peers(tuple(counted), times)


def _published(path: Path, line: int, entry: Mapping[str, str]) -> Standing:
    """A line of a summary."""

    def number(column: str) -> float:
        return _number(f"{path}:{line}", entry[column], f"a number in {column}")

    return Standing(
        entry["benchmark"],
        f"{entry['tool']} {entry['year']}",
        n=int(number("n")),
        sat=int(number("sat")),
        unsat=int(number("unsat")),
        unknown=int(number("unknown")),
        timeout=int(number("timeout")),
        error=int(number("error_or_none")),
        wrong=int(number("wrong_unsat")),
        mean=number("mean_seconds_solved") if entry["mean_seconds_solved"] else None,
        median=number("median_seconds_solved") if entry["median_seconds_solved"] else None,
    )


def _number(place: str, text: str, what: str) -> float:
    """A count or a time: finite, so that it can be counted with."""
    try:
        value = float(text)
    except ValueError:
        value = nan
    if not isfinite(value):
        raise InputError(f"{place}: expected {what}, got {text!r}")
    return value


def _table(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The lines of a CSV file with a header that has at least these columns."""
    lines = rows(path)
    _, header = next(lines, (1, [""]))
    if missing := [column for column in columns if column not in header]:
        what = f"a first line that names the columns {', '.join(columns)}"
        raise InputError(f"{path}: expected {what}; of these it lacks {', '.join(missing)}")
    for line, cells in lines:
        if len(cells) < len(header):
            raise InputError(f"{path}:{line}: expected {counted(len(header), 'cell')}, got {len(cells)}")
        yield line, dict(zip(header, cells, strict=False))
