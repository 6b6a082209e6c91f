"""CIFAR-10 (Krizhevsky 2009) from its binary batches: 10,000 records of a label and 3 x 32 x 32 bytes in each file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from assay.models.data import folders
from assay.models.data.dataset import Dataset
from assay.models.data.files import reading
from assay.models.data.folders import Layout
from assay.models.data.pixels import scaled
from assay.verify.core.errors import InputError

BATCHES = "cifar-10-batches-bin"  # the folder in the published archive
LAYOUT = Layout("cifar10", ("cifar10", f"cifar10/{BATCHES}", BATCHES, ""))
FILES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
CLASSES = 10
SHAPE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32
# The files have no header: only their length shows that none is cut short.
RECORDS = 10_000


def load(split: str, folder: Path | None = None) -> Dataset:
    """Colour images, shape (3, 32, 32), channels red, green, blue, bytes / 255: 50,000 to train, 10,000 to test."""
    paths = folders.find(LAYOUT, [(name,) for name in FILES[split]], folder)
    records = np.concatenate([_read(path) for path in paths])
    x = scaled(records[:, 1:]).reshape(-1, *SHAPE)
    y = torch.from_numpy(records[:, 0].astype(np.int64))
    origin = f"{', '.join(FILES[split])} in {paths[0].parent}; bytes / 255"
    return Dataset("cifar10", split, x, y, CLASSES, origin=origin)


def _read(path: Path) -> NDArray[np.uint8]:
    """The records of one batch (10,000 x 3,073)."""
    with reading(path) as source:
        content = source.take(RECORDS * RECORD, f"{RECORDS} records")
        source.end()
    records = np.frombuffer(content, np.uint8).reshape(RECORDS, RECORD)
    wrong = records[:, 0] >= CLASSES
    if wrong.any():
        where = int(wrong.argmax())
        raise InputError(f"{path}: expected labels from 0 to {CLASSES - 1}, got {records[where, 0]} at record {where}")
    return records
