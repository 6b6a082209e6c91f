"""Every verdict of a store as a file, CSV or Parquet: written as it is read, so that millions need no more memory."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

from assay.benchmarks.harness.records.store import COLUMNS, Store
from assay.benchmarks.report.published import Format, cell
from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.support.files import replacing, unwritten

GROUP = 50_000  # rows of a group of a Parquet file, which are held at once
WHOLE, NUMBERS = ("seed", "run", "sample", "label"), ("eps", "norm", "budget", "margin", "seconds")


def write(store: Store, path: Path, form: Format) -> int:
    """Write the file, whole or not at all; how many rows it has.

    Raises :class:`InputError` for another form, and where the path cannot be written; :class:`UnsupportedError` for
    Parquet where pyarrow is missing.
    """
    if form not in (Format.CSV, Format.PARQUET):
        raise InputError(f"verdicts are written as csv or parquet, not as {form.value}")
    if form is Format.PARQUET and find_spec("pyarrow") is None:
        raise UnsupportedError("parquet needs the package pyarrow: pip install pyarrow (csv needs nothing)")
    try:
        with replacing(path) as file:
            return _parquet(store, file) if form is Format.PARQUET else _csv(store, file)
    except OSError as error:
        raise unwritten(path, error) from None


def _csv(store: Store, file: BinaryIO) -> int:
    count = 0
    with _text(file) as text:
        out = csv.writer(text, lineterminator="\n")
        out.writerow(COLUMNS)
        for rows in store.flat():
            out.writerows([cell(value) for value in row] for row in rows)
            count += len(rows)
    return count


@contextmanager
def _text(file: BinaryIO) -> Iterator[io.TextIOWrapper]:
    """The file as text, which leaves it open."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    try:
        yield text
    finally:
        text.detach()


def _parquet(store: Store, file: BinaryIO) -> int:
    import pyarrow
    from pyarrow import parquet

    kinds = {**dict.fromkeys(WHOLE, pyarrow.int64()), **dict.fromkeys(NUMBERS, pyarrow.float64())}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in COLUMNS])
    rows, count = chain.from_iterable(store.flat()), 0
    with parquet.ParquetWriter(file, schema) as writer:
        while group := list(islice(rows, GROUP)):
            columns: list[Any] = [
                pyarrow.array(values, kind) for values, kind in zip(zip(*group, strict=True), schema.types, strict=True)
            ]
            writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema))
            count += len(group)
    return count
