"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from assay.verify.core.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file beside ``path``, flushed to the disk and renamed at the end; after an error nothing has changed."""
    part = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def replace_file(path: Path, content: bytes) -> None:
    """Write ``path`` so that a crash or a full disk leaves the old file; :class:`InputError` where that fails."""
    try:
        with replacing(path) as file:
            file.write(content)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def writable_folder(path: Path) -> Path:
    """``path`` as a folder, made if need be and tried with a write. Raises :class:`InputError` where that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise InputError(f"cannot write to the folder {str(path)!r}: {error.strerror or error}") from None
    return path


def write_atomic(path: Path, content: bytes) -> None:
    """Write ``path`` so that a crash or a full disk, which is an :class:`OSError`, leaves the old file as it was."""
    with replacing(path) as file:
        file.write(content)
