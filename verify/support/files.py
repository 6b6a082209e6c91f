"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from assay.verify.core.errors import InputError, ResourceError

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file beside ``path``, flushed to the disk and renamed at the end; after an error nothing has changed.

    An :class:`OSError` of the system, which does not say where the disk is full, names ``path``.
    """
    part = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        if error.filename not in (None, str(part)):
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def replace_file(path: Path, content: bytes) -> None:
    """Write ``path`` so that a crash or a full disk leaves the old file.

    Raises :class:`ResourceError` where the disk is full, :class:`InputError` where the path cannot be written.
    """
    try:
        write_atomic(path, content)
    except OSError as error:
        raise unwritten(path, error) from None


def unwritten(path: str | Path, error: OSError) -> InputError | ResourceError:
    """Why ``path`` was not written: the disk is full, or the path cannot be written."""
    kind = ResourceError if error.errno in FULL else InputError
    return kind(f"cannot write {path}: {error.strerror or error}")


def writable_folder(path: Path) -> Path:
    """``path`` as a folder, made if need be and tried with a write. Raises :class:`InputError` where that fails."""
    if path.is_file():
        raise InputError(f"{str(path)!r} is a file: expected a folder")
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
