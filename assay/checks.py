"""Options that several commands take, checked before any work is done."""

from __future__ import annotations

import os
from math import isnan
from pathlib import Path

from assay.verify.core.errors import InputError
from assay.verify.support.files import writable_folder
from assay.verify.support.imports import swift_imports


def at_least_one(name: str, value: int | None) -> None:
    """Refuse a count below 1; None stands for a choice of our own."""
    if value is not None and value < 1:
        raise InputError(f"{name} must be at least 1, got {value}")


def positive(name: str, value: float, unit: str) -> None:
    """Refuse what is not above 0."""
    if isnan(value) or value <= 0:
        raise InputError(f"{name} must be a number of {unit} > 0, got {value}")


def seed_in_range(seed: int) -> None:
    """Refuse seeds that not every generator takes."""
    if not 0 <= seed < 2**63:
        raise InputError(f"--seed must be a whole number from 0 to 2^63 - 1, got {seed}")


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_threads(wanted: int | None) -> int:
    """Torch on as many threads, or on its own choice, but on no more than there are cores; returns how many."""
    with swift_imports():
        import torch

    torch.set_num_threads(min(wanted or torch.get_num_threads(), cores()))
    return torch.get_num_threads()


def writable_file(option: str, path: Path | None) -> None:
    """Refuse a file that could not be written once the work is done."""
    if path is None:
        return
    if not path.parent.is_dir():
        raise InputError(f"{option}: there is no folder {str(path.parent)!r}")
    if path.is_dir():
        raise InputError(f"{option}: {str(path)!r} is a folder: expected a file")
    writable_folder(path.parent)
