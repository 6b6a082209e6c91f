"""Output files that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from verify.core.errors import InputError


def replace_file(path: Path, content: bytes) -> None:
    """Write beside ``path``, flush to the disk, rename: a crash or a full disk leaves the old file as it was.

    Raises :class:`InputError` where that fails.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)
