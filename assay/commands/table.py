"""``assay table``: published figures, and the same protocol measured here, side by side."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay import options
from assay.checks import writable_file
from assay.comparing import Asking, Terms, limits
from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.support.plain import counted, plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch.nn import Module

    from assay.benchmarks.harness.bracket import Row
    from assay.benchmarks.harness.compare import Comparison
    from assay.benchmarks.tables import Table
    from assay.benchmarks.tables.measured import Group, Line
    from assay.models.data import Dataset
    from assay.verify.core.network import Network

OFFERED = "fashion-mnist"  # what comes along, for tables of data that do not


def table(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The table; all of them are listed if not given.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Measure on other data: fashion-mnist, digits; the table's own if not given.")
    ] = None,
    data_dir: options.DataDir = None,
    model: Annotated[list[str] | None, typer.Option(help=f"Measure this one too: {options.MODEL_FORMS}")] = None,
    train: Annotated[
        bool, typer.Option("--train", help="Train the networks that are missing, as the table says, into the folder.")
    ] = False,
    n: options.First = None,
    out: Annotated[Path, typer.Option(help="Folder for results.sqlite, and networks.")] = Path("out"),
    form: Annotated[
        str | None, typer.Option("--format", help="Write the lines to the folder too: csv, latex, markdown, json.")
    ] = None,
    seed: options.Seed = 0,
    batch: options.Batch = 50,
    timeout: Annotated[float, typer.Option(help="Seconds for each sample and method.")] = inf,
    threads: options.Threads = None,
    device: options.Device = "cpu",
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    resume: Annotated[bool, typer.Option("--resume", help="Take finished verdicts from results.sqlite.")] = False,
    quiet: options.Quiet = False,
    json_: options.Json = False,
) -> int:
    """Print published figures beside what the same protocol gives here: on the table's own data where they are at
    hand, or on data that come along."""
    from assay.benchmarks import tables

    if name is None:
        _list([tables.read(known) for known in tables.names()], json_)
        return 0
    published = tables.read(name)
    budget = limits(n, batch, timeout, seed, threads, workers, device)
    to = _written(form, out / f"{name}.{form}")

    from assay.benchmarks.tables import measured
    from assay.verify.support.files import writable_folder

    samples = _samples(published, data or published.data, data_dir, n)
    if train:
        published = _trained(published, samples.name, data_dir, writable_folder(out), seed, quiet)
    asked = measured.groups(published, samples.name, model or ())
    if not asked:
        raise InputError(_nobody(published, samples.name))
    opened = {group.model: options.fitting(group.model, None, samples) for group in asked}
    writable_folder(out)
    writable_file("--out", to)

    hiring = partial(options.hiring, workers, cluster, device)
    terms = Terms(out, ["assay", *context.obj], budget, batch, hiring, resume, quiet)
    comparisons = _compared(published, asked, opened, samples, terms)
    lines = measured.lines(published, asked, [comparison.rows for comparison in comparisons])
    entries = [measured.entry(line) for line in lines]
    document = {
        "table": name,
        "title": published.title,
        "protocol": published.protocol,
        "data": f"{samples.name} ({samples.split})",
        "published on": published.data,
        "lines": entries,
    }
    try:
        _show(document, lines, json_)
        if to is not None:
            _write(entries, to, json_)
    finally:  # an alarm does not hide behind a disk that is full
        for comparison in comparisons:
            comparison.raise_alarm()
    return UnsupportedError.exit_code if all(comparison.refused for comparison in comparisons) else 0


def _written(form: str | None, path: Path) -> Path | None:
    """Where the lines are written, if they are; a form that is unknown is refused before any work."""
    from assay.benchmarks.report.published import WRITERS, Format
    from assay.verify.core.errors import unknown_name

    if form is not None and form not in WRITERS:
        raise unknown_name("format", form, list(Format))
    return None if form is None else path


def _compared(
    published: Table, asked: Sequence[Group], opened: Mapping[str, Module | Network], samples: Dataset, terms: Terms
) -> list[Comparison]:
    """The comparison of each group at the radii of its figures, all in one store."""
    from assay.benchmarks.harness import compare as harness
    from assay.benchmarks.harness.progress import watch
    from assay.benchmarks.tables.published import radii

    attackers, found = options.attacks(published.attacks), []
    with terms.store() as store:
        for group in asked:
            methods = options.methods(group.methods)
            asking = Asking(group.model, None, opened[group.model], samples, methods, attackers)
            judge = partial(harness.compare, eps=radii(group.figures), norm=published.norm)
            with watch(quiet=terms.quiet) as progress:
                found.append(terms.judged(judge, asking, store, progress))
    return found


def _write(entries: Sequence[dict[str, Any]], to: Path, as_json: bool) -> None:
    """The lines as a file, in the form that its name ends in."""
    from assay.benchmarks.report.published import Format, write
    from assay.verify.support.files import replace_file

    replace_file(to, write(entries, Format(to.suffix[1:])))
    print(f"wrote {plain(to)}", file=sys.stderr if as_json else sys.stdout)


def _samples(published: Table, data: str, folder: Path | None, n: int | None) -> Dataset:
    """The data, or an error that says what can be measured without them."""
    try:
        return options.samples(data, folder, None, n)
    except InputError as error:
        others = ", ".join(f"--data {other}" for other in published.at_hand() or [OFFERED])
        if data != published.data or data in published.at_hand():
            raise
        raise InputError(
            f"the table is about {data}, which is not at hand: {error}. The same protocol on data that come along: "
            f"assay table {published.name} {others}" + ("" if published.at_hand() else " --model MODEL")
        ) from error


def _trained(published: Table, data: str, folder: Path | None, out: Path, seed: int, quiet: bool) -> Table:
    """The table with networks for the figures that say how theirs are trained and have none for these data: what an
    earlier run left in the folder is not trained again."""
    from assay.commands.train import train

    figures = []
    for place, figure in enumerate(published.figures, 1):
        if figure.train and data not in figure.models:
            name = f"{published.name}-{place}-{data}-{seed}"
            path = out / f"{name}.safetensors"
            if not path.is_file():
                print(f"assay: training {name} for {figure.who}, eps {figure.eps:.4g}", file=sys.stderr)
                with redirect_stdout(sys.stderr):
                    train(name, data=data, data_dir=folder, out=out, seed=seed, quiet=quiet, **figure.train)
            figure = replace(figure, models={**figure.models, data: str(path)})
        figures.append(figure)
    return replace(published, figures=tuple(figures))


def _nobody(published: Table, data: str) -> str:
    """Why nothing can be measured, and what can be."""
    others = [f"--data {other}" for other in published.at_hand()]
    known = f"; networks that come along stand for figures with {' or '.join(others)}" if others else ""
    return f"no network that comes along stands for a figure of {published.name} on {data}: pass --model MODEL{known}"


def _list(tables: Sequence[Table], as_json: bool) -> None:
    """The tables, and which data the networks that come along can measure them on."""
    from assay.benchmarks.report.tables import dump
    from assay.verify.core.norms import norm_name

    if as_json:
        told = ("name", "title", "data", "protocol")
        rows = [
            {**{key: getattr(each, key) for key in told}, "norm": norm_name(each.norm), "figures": len(each.figures)}
            for each in tables
        ]
        print(dump({"tables": rows}))
        return

    from rich.console import Console
    from rich.text import Text

    from assay.benchmarks.report import layout

    grid = layout.grid(layout.word("table"), layout.figure("figures"), layout.word("data"), layout.text("measured on"))
    for each in tables:
        here = ", ".join(each.at_hand()) or "networks of yours"
        grid.add_row(Text(each.name, "bold"), str(len(each.figures)), each.data, here)
    layout.show(grid, Console(), ("figures",))


def _show(document: dict[str, Any], lines: Sequence[Line], as_json: bool) -> None:
    """The lines for people, or as one JSON document."""
    from rich.console import Console
    from rich.text import Text

    from assay.benchmarks.report import layout
    from assay.benchmarks.report.tables import dump

    if as_json:
        print(dump(document))
        return
    same = document["data"].startswith(document["published on"])
    title = f"{document['title']}: published on {document['published on']}, measured on {document['data']}"
    figures = map(layout.figure, ("eps", "clean", "certified", "clean here", "certified here", "standing"))
    grid = layout.grid(layout.text("who, and where it says so"), *figures, title=title)
    for line in lines:
        here = [_interval(row) for row in (line.clean, line.certified, line.standing)]
        shares = [_percent(share) for share in (line.figure.clean, line.figure.certified)]
        who = Text.assemble((plain(line.figure.who), "bold"), f"\n{plain(line.figure.source)}")
        if line.model and line.model != line.figure.who:
            who.append(f"\nhere: {plain(line.model)}")
        grid.add_row(who, f"{line.figure.eps:.4g}", *shares, *here, end_section=True)
    console = Console()
    layout.show(grid, console)
    measured = [line.clean.n for line in lines if line.clean is not None]
    console.print(
        Text(
            f"Published: {document['protocol']}. Here: {counted(max(measured), 'sample')}, with exact 95% "
            "intervals; empty where nobody measured."
            + ("" if same else " Other data: of the same kind, not to be compared figure by figure."),
            "dim",
        )
    )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1f}%"


def _interval(row: Row | None) -> str:
    """A share and its interval, on two lines."""
    if row is None:
        return ""
    low, high = row.interval
    return f"{row.accuracy:.1%}\n{100 * low:.1f}\u2013{100 * high:.1f}"
