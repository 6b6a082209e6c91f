"""Output files: a folder that can be written to, and files that are replaced whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from verify.core.errors import InputError


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
    """Write a temporary file beside ``path``, flush it to the disk, rename it: till then the old file stays whole."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp makes files that only their owner can read
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
