"""Folders of instances in VNN-COMP's form: ``instances.csv`` with a network, a property and seconds in each line."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import isfinite
from os.path import abspath
from pathlib import Path
from posixpath import normpath

from assay.verify.core.errors import InputError, unknown_name
from assay.verify.core.network import content_hash

LISTED = "instances.csv"


@dataclass(frozen=True)
class Instance:
    """A network file, a property file and the seconds that they are given; the names are those of the list."""

    benchmark: str
    onnx: str
    vnnlib: str
    seconds: float
    folder: Path

    @property
    def name(self) -> Name:
        """What tells it apart from the others, however its paths are written."""
        return name_of(self.benchmark, self.onnx, self.vnnlib)

    @property
    def place(self) -> Name:
        """Its name with the folder that it lies in, which another benchmark of the same name does not."""
        return (str(self.folder.resolve()), *self.name[1:])

    @property
    def net(self) -> Path:
        """The network file; it may be stored as NAME.gz."""
        return self.folder / self.onnx

    @property
    def prop(self) -> Path:
        """The property file; it may be stored as NAME.gz."""
        return self.folder / self.vnnlib


Name = tuple[str, str, str]


def name_of(benchmark: str, onnx: str, vnnlib: str) -> Name:
    """Benchmark, network and property in one form: no ``./``, no ``.gz``."""
    return benchmark, normpath(onnx).removesuffix(".gz"), normpath(vnnlib).removesuffix(".gz")


def find(folder: Path, benchmarks: Sequence[str] | None = None, most: float | None = None) -> list[Instance]:
    """The instances of the benchmarks in ``folder``, or of ``folder`` itself if it is one, in the order of their lists.

    ``benchmarks``: only these, in this order; ``most``: a cap on each instance's seconds. Raises
    :class:`InputError` for a folder without benchmarks, an unknown one, a list without instances or a line that cannot
    be read.
    """
    lists = _lists(folder)
    if not lists:
        raise InputError(f"expected a folder of benchmarks, each with its {LISTED}, got {str(folder)!r}")
    if unknown := [name for name in benchmarks or () if name not in lists]:
        raise unknown_name("benchmark", unknown[0], lists)
    if benchmarks is not None and not benchmarks:  # nothing would be asked, and nothing go wrong
        raise InputError("expected the name of a benchmark, got none")
    chosen = lists if benchmarks is None else dict.fromkeys(benchmarks)
    found = [
        Instance(name, onnx, vnnlib, min(seconds, most or seconds), lists[name].parent)
        for name in chosen
        for onnx, vnnlib, seconds in _read_list(lists[name])
    ]
    if not found:  # likewise
        raise InputError(f"expected instances in {', '.join(str(lists[name]) for name in chosen)}, found none")
    return found


def rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines of a CSV file that are not blank, with their numbers; spreadsheets put a byte-order mark in front.

    Raises :class:`InputError` for a file that cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            stripped = ((reader.line_num, [cell.strip() for cell in row]) for row in reader)
            yield from ((line, cells) for line, cells in stripped if any(cells))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def hasher() -> Callable[[Instance], str]:
    """A function that hashes all that an instance's files say, unpacked, reading each file once.

    The function raises what :func:`assay.verify.frontends.onnx.external.fingerprint` does.
    """
    from assay.verify.frontends.onnx.external import fingerprint
    from assay.verify.frontends.source import read_bytes

    network = cache(fingerprint)
    text = cache(lambda path: hashlib.sha256(read_bytes(path)).hexdigest())
    return lambda instance: content_hash("instance", network(instance.net), text(instance.prop))


def _lists(folder: Path) -> dict[str, Path]:
    """The list of each benchmark by its name, which is its folder's as it is called there, be it a link or not."""
    own = folder / LISTED
    if own.exists():
        return {Path(abspath(folder)).name: own}
    return {path.parent.name: path for path in sorted(folder.glob(f"*/{LISTED}"))}


def _read_list(path: Path) -> Iterator[tuple[str, str, float]]:
    for line, cells in rows(path):
        try:
            onnx, vnnlib, seconds = cells
            limit = float(seconds)
            if not (isfinite(limit) and limit > 0 and onnx and vnnlib):
                raise ValueError
        except ValueError:
            got = ",".join(cells)
            form = "onnx,vnnlib,seconds with seconds > 0" + (" and no header" if line == 1 else "")
            raise InputError(f"{path}:{line}: expected {form}, got {got!r}") from None
        yield onnx.removesuffix(".gz"), vnnlib.removesuffix(".gz"), limit
