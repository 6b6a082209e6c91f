"""What produced a record: the version of the package, a hash of its sources, and the versions of what it stands on."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path

from assay.verify.support.sources import PACKAGE, hashed

HASHED = ("verify", "attacks")
REPORTED = ("torch", "numpy", "scipy")


@cache
def version() -> str:
    """The installed version of assay; ``0+source`` where it runs from a checkout that was never installed."""
    return package_version("assay") or "0+source"


def package_version(distribution: str) -> str | None:
    """The version of an installed distribution, None where it is missing; nothing is imported."""
    try:
        return installed(distribution)
    except PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """Versions that a reader of a report needs to repeat it."""
    packages = {name: package_version(name) or "missing" for name in REPORTED}
    return {"assay": version(), "python": platform.python_version(), **packages}


def machine() -> dict[str, str | int]:
    """What the seconds of a record were measured on; no name of a host."""
    return {"system": platform.system(), "processor": _processor(), "cores": os.cpu_count() or 1}


def _processor() -> str:
    """The processor as Linux calls it, elsewhere its architecture."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()} ({platform.machine()})"
    return platform.machine()


@cache
def source_hash() -> str:
    """SHA-256 over the package's own files that decide verdicts: 16 hexadecimal digits.

    A record made by other code than today's is told apart by it even where the version has not moved.
    """
    return hashed(HASHED, PACKAGE)
