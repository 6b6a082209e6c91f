"""``assay report``: what a store holds, as a page to look at, as tables and pictures to publish."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.checks import writable_file
from assay.verify.core.errors import InputError, unknown_name
from assay.verify.support.plain import plain

if TYPE_CHECKING:
    from assay.benchmarks.harness.records.store import Store
    from assay.benchmarks.report.published import Format

ROWS, TOTALS, VERDICTS = "rows", "totals", "verdicts"
PAGE, LEADERBOARD = "html", "robustbench"
ENDINGS = {PAGE: ".html", LEADERBOARD: ".robustbench.json", "latex": ".tex", "markdown": ".md"}


def report(
    store: Annotated[
        Path, typer.Argument(metavar="STORE", help="results.sqlite of compare, or bench.sqlite of bench.")
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The file; if not given, beside the store under its name.")
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="html, a page; the rows: csv, parquet, latex, markdown, json; robustbench.")
    ] = PAGE,
    of: Annotated[
        str,
        typer.Option(
            help="What to write with --format: rows of the run; totals, or verdicts (csv, parquet), of all runs, which "
            "millions of records need no memory for."
        ),
    ] = ROWS,
    figures: Annotated[Path | None, typer.Option(help="Folder for the plots too, each as SVG and PDF.")] = None,
    run: Annotated[int | None, typer.Option(help="Number of the run in the store; the last if not given.")] = None,
) -> None:
    """Write one self-contained HTML page about a run, or its rows as a table: nothing is asked again."""
    if not store.is_file():
        raise InputError(f"expected the store of a run, there is no file {str(store)!r}")
    if of not in (ROWS, TOTALS, VERDICTS):
        raise unknown_name("--of", of, [ROWS, TOTALS, VERDICTS])
    if form == PAGE and of != ROWS:
        raise InputError(f"--of {of} is a table: expected --format csv or another one with it")
    target = out or store.with_suffix(ENDINGS.get(form, f".{form}"))
    writable_file("--out", target)

    from assay.benchmarks.harness.records.store import Store
    from assay.verify.support.files import replace_file, writable_folder

    written = [target]
    with Store(store) as opened:
        if form == PAGE:
            write(opened, target, run)
        elif of == VERDICTS:
            from assay.benchmarks.report import verdicts

            verdicts.write(opened, target, _format(form))
        else:
            replace_file(target, _totals(opened, form) if of == TOTALS else _table(opened, form, run))
        if figures is not None:
            written += _draw(opened, writable_folder(figures), run)
    print(f"wrote {', '.join(map(plain, written))}")


def write(store: Store, page: Path, run: int | None = None) -> None:
    """The page of a run of the store, the last if no number is given."""
    from assay.benchmarks.harness.records import recorded
    from assay.verify.support.files import replace_file

    if recorded.compared(store, run):
        from assay.benchmarks.report import comparison_page

        text = comparison_page.render(recorded.read(store, run))
    else:
        from assay.benchmarks.report import instances_page, instances_run

        text = instances_page.render(instances_run.read(store, run))
    replace_file(page, text.encode("utf-8", "replace"))


def _format(form: str) -> Format:
    from assay.benchmarks.report.published import Format

    if form not in (*Format,):
        raise unknown_name("format", form, [*Format])
    return Format(form)


def _totals(store: Store, form: str) -> bytes:
    from assay.benchmarks.report import published

    entries = published.of_totals(store)
    if not entries:
        raise InputError(f"{store.path} has no records")
    return published.write(entries, _format(form))


def _table(store: Store, form: str, run: int | None) -> bytes:
    from assay.benchmarks.harness.radii.radius_table import recorded_lines
    from assay.benchmarks.harness.records import recorded
    from assay.benchmarks.report import instances_run, leaderboard, published

    if form not in (LEADERBOARD, *published.Format):
        raise unknown_name("format", form, [PAGE, *published.Format, LEADERBOARD])
    if form == LEADERBOARD:
        read = recorded.read(store, run)
        if read.about.tolerance is not None:
            raise InputError("expected accuracy at an eps: a run of compare with --eps, this one has --radius")
        return published.write(leaderboard.entries(read), published.Format.JSON)
    if recorded.compared(store, run):
        read = recorded.read(store, run)
        radii = read.about.tolerance is not None
        entries = published.of_radii(read, recorded_lines(read)) if radii else published.of_comparison(read)
    else:
        entries = published.of_instances(instances_run.read(store, run).outcome.rows)
    return published.write(entries, published.Format(form))


def _draw(store: Store, folder: Path, run: int | None) -> list[Path]:
    """Every plot of the run, as SVG and PDF."""
    from assay.benchmarks.harness.records import recorded
    from assay.benchmarks.report import (
        bracket_figure,
        cactus_figure,
        canvas,
        instances_run,
        price_figure,
        radii_figure,
    )

    if recorded.compared(store, run):
        read = recorded.read(store, run)
        plots, bracketed = {"radii": radii_figure.plot(read)}, recorded.at_levels(read)
        if bracketed.about.radii:
            plots["bracket"] = bracket_figure.plot(bracketed)
        if price_figure.priced(read):
            plots["price"] = price_figure.plot(read)
    else:
        ran = instances_run.read(store, run)
        plots = {"cactus": cactus_figure.plot(ran.outcome, ran.peers)}
    paths = {folder / f"{name}.{kind}": plot for name, plot in plots.items() for kind in ("svg", "pdf")}
    for path, plot in paths.items():
        canvas.save(plot, path)
    return list(paths)
