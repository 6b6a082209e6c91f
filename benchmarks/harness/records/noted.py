"""What runs noted beside their records, which hold what was decided: what a run was about as a document, its samples,
which problem each of its questions was, and which problems the instances of a folder are."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress

import torch
from torch import Tensor

from assay.benchmarks.harness.records.database import UNREADABLE, Database

# Which problem, by content, each instance of a benchmark in a folder was when it was last asked. Made on first use.
ENROLLED = """
CREATE TABLE IF NOT EXISTS enrolled (
    folder TEXT NOT NULL, onnx TEXT NOT NULL, vnnlib TEXT NOT NULL, problem TEXT NOT NULL,
    PRIMARY KEY (folder, onnx, vnnlib)) WITHOUT ROWID
"""
# What a run was about as a document of some form, its samples, and which problem each of its questions was: what a
# report needs beside the results. Made on first use, so that older stores are read as they are.
DESCRIBED = """
CREATE TABLE IF NOT EXISTS described (
    run INTEGER PRIMARY KEY REFERENCES runs (id), form INTEGER NOT NULL, document TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS points (id TEXT PRIMARY KEY, shape TEXT NOT NULL, x BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS samples (
    run INTEGER NOT NULL, sample INTEGER NOT NULL, label INTEGER NOT NULL, point TEXT REFERENCES points (id),
    PRIMARY KEY (run, sample)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS asked (
    run INTEGER NOT NULL, sample INTEGER NOT NULL, eps REAL NOT NULL, problem TEXT NOT NULL,
    PRIMARY KEY (run, sample, eps)) WITHOUT ROWID
"""


class Noted:
    """The notes in a store's file."""

    def __init__(self, file: Database) -> None:
        self._file = file

    def enrol(self, problems: Mapping[tuple[str, str, str], str]) -> None:
        """Note which problem each instance (folder, network, property) is."""
        with self._file.transaction():
            self._file.execute(ENROLLED)
            named = [(*name, problem) for name, problem in problems.items()]
            self._file.executemany("INSERT OR REPLACE INTO enrolled VALUES (?, ?, ?, ?)", named)

    def enrolled(self) -> dict[tuple[str, str, str], str]:
        """What was noted by :meth:`enrol`, of this run and of earlier ones."""
        if not self._file.has("enrolled"):
            return {}
        noted = self._file.execute("SELECT folder, onnx, vnnlib, problem FROM enrolled")
        return {(folder, onnx, vnnlib): problem for folder, onnx, vnnlib, problem in noted}

    def describe(self, run: int | None, form: int, document: str) -> None:
        """Note what the run is about, in place of what was noted before."""
        with self._file.transaction():
            for statement in DESCRIBED.split(";"):
                self._file.execute(statement)
            self._file.execute("INSERT OR REPLACE INTO described VALUES (?, ?, ?)", (run, form, document))

    def note_samples(self, run: int | None, x: Tensor, labels: Sequence[int]) -> None:
        """Keep the samples of the run, once :meth:`describe` was called: x (n x shape) float32; equal ones once."""
        shape = ",".join(map(str, x.shape[1:]))
        packed = [zlib.compress(one.contiguous().numpy().tobytes(), 1) for one in x]
        names = [hashlib.sha256(shape.encode() + part).hexdigest()[:32] for part in packed]
        with self._file.transaction():
            points = ((name, shape, part) for name, part in zip(names, packed, strict=True))
            self._file.executemany("INSERT OR IGNORE INTO points VALUES (?, ?, ?)", points)
            rows = ((run, i, label, name) for i, (label, name) in enumerate(zip(labels, names, strict=True)))
            self._file.executemany("INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?)", rows)

    def note_asked(self, run: int | None, asked: Sequence[tuple[int, float, str]]) -> None:
        """Note which problem (sample, eps, id) the run asks about, once :meth:`describe` was called."""
        with self._file.transaction():
            rows = [(run, *each) for each in asked]
            self._file.executemany("INSERT OR REPLACE INTO asked VALUES (?, ?, ?, ?)", rows)

    def described(self) -> dict[int, tuple[int, str]]:
        """By the number of the run, what :meth:`describe` noted; nothing in a store of before there was any."""
        if not self._file.has("described"):
            return {}
        noted = self._file.execute("SELECT run, form, document FROM described ORDER BY run")
        return {run: (form, document) for run, form, document in noted}

    def samples(self, run: int) -> dict[int, tuple[int, Tensor]]:
        """Label and float32 x of the samples of a run, as far as they are kept; what cannot be read is left out."""
        kept: dict[int, tuple[int, Tensor]] = {}
        if self._file.has("samples"):
            columns = "sample, label, shape, x FROM samples JOIN points ON point = points.id"
            for sample, label, shape, packed in self._file.execute(f"SELECT {columns} WHERE run = ?", (run,)):
                with suppress(zlib.error, RuntimeError, *UNREADABLE):
                    sizes = [int(size) for size in shape.split(",")]
                    flat = torch.frombuffer(bytearray(zlib.decompress(packed)), dtype=torch.float32)
                    kept[sample] = int(label), flat.reshape(sizes)
        return kept

    def asked(self, run: int) -> list[tuple[int, float, str]]:
        """What :meth:`note_asked` noted of a run, by sample and eps; what cannot be read is left out."""
        if not self._file.has("asked"):
            return []
        columns = "sample, eps, problem FROM asked WHERE run = ? ORDER BY sample, eps"
        noted = self._file.execute(f"SELECT {columns}", (run,))
        return [
            row for row in noted if isinstance(row[0], int) and isinstance(row[1], float) and isinstance(row[2], str)
        ]

    def counts(self, run: int, who: tuple[int, str, str, str]) -> list[tuple[str, int, float, str, float]]:
        """Method, sample, eps, verdict and seconds of what is known of the questions of a run, without reading the
        results themselves; ``who`` decides: seed, device, version and source hash."""
        if not self._file.has("asked"):
            return []
        columns = "method, asked.sample, asked.eps, verdict, seconds"
        joined = "asked JOIN results ON results.problem = asked.problem"
        mine = " AND ".join(
            ("asked.run = ?", *(f"results.{name} = ?" for name in ("seed", "device", "version", "source")))
        )
        return list(self._file.execute(f"SELECT {columns} FROM {joined} WHERE {mine}", (run, *who)))
