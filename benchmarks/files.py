"""Output files: a folder that can be written to, and files that are replaced whole or not at all."""

from __future__ import annotations

import tempfile
from pathlib import Path

from verify.core.errors import InputError
from verify.core.files import replacing


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
