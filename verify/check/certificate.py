"""A certificate: one zip of claims in ``cert.json`` and plain arrays, with the two files that it speaks of.

Whoever does not trust this package runs :mod:`assay.verify.check.checker`, which with the files that lie beside it,
``CHECKERS``, needs nothing of it.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.verify.support.files import replace_file

Arrays = Mapping[str, NDArray[Any]]
CHECKERS = (
    "checker.py",
    "bounds.py",
    "question.py",
    "property.py",
    "norms.py",
)  # the last for what is not a tree, or a point, about boxes
EPOCH = (1980, 1, 1, 0, 0, 0)  # of all files in it, so that equal proofs are equal bytes
LONG = 1 << 13  # bytes, below which bzip2 takes longer to begin than it is worth


@dataclass(frozen=True, eq=False)
class Certificate:
    """``content``: the zip; ``model`` and ``prop``: the ONNX and the VNN-LIB file that it speaks of, unpacked."""

    content: bytes
    model: bytes
    prop: bytes

    @classmethod
    def of(cls, claims: Mapping[str, Any], arrays: Arrays, model: bytes, prop: bytes) -> Certificate:
        """Claims, ``kind`` and ``semantics`` among them, and the arrays that they name; hashes are added."""
        from assay.verify.check.checker import FORMAT

        hashes = {name: hashlib.sha256(data).hexdigest() for name, data in (("model", model), ("property", prop))}
        return cls(packed({"format": FORMAT, **hashes, **claims}, arrays), model, prop)

    def check(self, exact: bool = False, until: float = inf) -> dict[str, Any]:
        """What it proves, by the checker: the ``claim``, its ``semantics``, and the number of ``leaves``.

        ``until``: when to give up, on the monotonic clock. Raises :class:`assay.verify.check.question.Rejected`.
        """
        from assay.verify.check.checker import check

        report: dict[str, Any] = check(self.content, self.model, self.prop, exact, until)
        return report

    def save(self, path: str | Path) -> None:
        """Write the zip, whole or not at all. Raises :class:`InputError` where the path cannot be written."""
        replace_file(Path(path), self.content)

    def save_with_files(self, folder: str | Path) -> None:
        """Write ``certificate.zip``, ``model.onnx`` and the property into a folder that is there."""
        for name, data in (("certificate.zip", self.content), ("model.onnx", self.model), (self.of_prop, self.prop)):
            replace_file(Path(folder) / name, data)

    @property
    def checkers(self) -> tuple[str, ...]:
        """The names of the files that check it."""
        with zipfile.ZipFile(io.BytesIO(self.content)) as file:
            kind = json.loads(file.read("cert.json"))["kind"]
        boxes = self.prop[:1] != b"{" and kind in ("tree", "counterexample")
        return CHECKERS[:-1] if boxes else CHECKERS

    @property
    def of_prop(self) -> str:
        """What the property is called as a file: a ball is JSON."""
        return "property.json" if self.prop[:1] == b"{" else "property.vnnlib"


def save_checkers(folder: Path, names: Iterable[str] = CHECKERS) -> None:
    """Copy the files that check certificates into a folder that is there."""
    for name in names:
        replace_file(folder / name, Path(__file__).with_name(name).read_bytes())


def packed(claims: Mapping[str, Any], arrays: Arrays) -> bytes:
    """The zip, the same for the same content."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(zipfile.ZipInfo("cert.json", EPOCH), json.dumps(claims, indent=1), zipfile.ZIP_DEFLATED)
        for name, array in sorted(arrays.items()):
            part = io.BytesIO()
            little = np.asfortranarray(array, array.dtype.newbyteorder("<"))  # a column's numbers are alike
            np.lib.format.write_array(part, little, version=(1, 0), allow_pickle=False)
            how = zipfile.ZIP_BZIP2 if part.tell() > LONG else zipfile.ZIP_DEFLATED
            file.writestr(zipfile.ZipInfo(f"{name}.npy", EPOCH), part.getvalue(), how)
    return buffer.getvalue()
