"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from verify.core.errors import InputError


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
