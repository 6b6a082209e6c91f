"""Which code this is: a hash of the package's own files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

PACKAGE = Path(__file__).parents[2]
FOLDERS = ("attacks", "benchmarks", "models", "verify")  # what processes on other machines may run


def hashed(folders: Iterable[str] = FOLDERS, package: Path = PACKAGE) -> str:
    """SHA-256 over the Python files of some folders of the package: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in folders:
        folder = (package / name).resolve()
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{name}/{path.relative_to(folder).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]
