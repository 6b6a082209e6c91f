"""A validation split, held out of the training data: hyperparameters are chosen on it, never on the test split."""

from __future__ import annotations

from dataclasses import replace

from assay.models.data import Dataset
from assay.verify.core.errors import InputError


def hold_out(dataset: Dataset, n: int) -> tuple[Dataset, Dataset]:
    """``dataset`` without its last n samples, and these, n >= 1. Raises :class:`InputError` if nothing is left."""
    if not 1 <= n < len(dataset):
        raise InputError(f"expected to hold out from 1 to {len(dataset) - 1} samples of {dataset.name}, got {n}")
    kept = len(dataset) - n
    held = replace(dataset, split="validation", x=dataset.x[kept:], y=dataset.y[kept:])
    return dataset.take(kept), held
