"""MNIST (LeCun et al. 1998) and Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747): 28 x 28 images in IDX files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from assay.models.data import folders, idx, shipped
from assay.models.data.dataset import Dataset
from assay.models.data.folders import Layout
from assay.models.data.pixels import scaled
from assay.verify.core.errors import InputError

# The second subfolder is torchvision's.
MNIST = Layout("mnist", ("mnist", "MNIST/raw", ""))
FASHION = Layout(
    "fashion-mnist",
    ("fashion-mnist", "FashionMNIST/raw", ""),
    system=Path("/usr/share/datasets/fashion-mnist"),
    package="dataset-fashion-mnist",
)
PREFIX = {"train": "train", "test": "t10k"}
CLASSES = 10

# Both sets have the same file names: the first labels tell them apart.
FIRST_LABELS = {
    ("mnist", "train"): (5, 0, 4, 1, 9, 2, 1, 3, 1, 4),
    ("mnist", "test"): (7, 2, 1, 0, 4, 1, 4, 9, 5, 9),
    ("fashion-mnist", "train"): (9, 0, 0, 3, 0, 2, 7, 2, 5, 5),
    ("fashion-mnist", "test"): (9, 2, 1, 1, 6, 1, 4, 6, 5, 7),
}


def mnist(split: str, folder: Path | None = None) -> Dataset:
    """Handwritten digits, shape (1, 28, 28), bytes / 255: 60,000 to train, 10,000 to test."""
    return _load(MNIST, split, folder)


def fashion_mnist(split: str, folder: Path | None = None) -> Dataset:
    """Pictures of clothes, shape (1, 28, 28), bytes / 255: 60,000 to train, 10,000 to test.

    The first 500 to test come with the installation; these are taken where no folder is given and no files are found.
    """
    if split == "test" and folder is None and folders.found(FASHION, _files(split)) is None:
        x, y = shipped.read(FASHION.name)
        rest = f"the first {len(y)} come with assay, and for all of them it {folders.nowhere(FASHION, _files(split))}"
        return _dataset(FASHION, split, x, y, "comes with assay; bytes / 255", rest)
    return _load(FASHION, split, folder)


def _files(split: str) -> list[tuple[str, str]]:
    """Images and labels, each under its possible names."""
    stems = f"{PREFIX[split]}-images-idx3-ubyte", f"{PREFIX[split]}-labels-idx1-ubyte"
    return [(stem, f"{stem}.gz") for stem in stems]


def _load(layout: Layout, split: str, folder: Path | None) -> Dataset:
    images, labels = folders.find(layout, _files(split), folder)
    y = idx.read(labels, ())
    _check_labels(y, labels, layout.name, split)
    x = idx.read(images, (28, 28))
    if len(x) != len(y):
        raise InputError(f"{images} has {len(x)} images, but {labels} {len(y)} labels")
    return _dataset(layout, split, x, y, f"{images}, {labels.name}; bytes / 255")


def _dataset(
    layout: Layout, split: str, x: NDArray[np.uint8], y: NDArray[np.uint8], origin: str, rest: str = ""
) -> Dataset:
    images, labels = scaled(x).unsqueeze(1), torch.from_numpy(y.astype(np.int64))
    return Dataset(layout.name, split, images, labels, CLASSES, origin=origin, rest=rest)


def _check_labels(y: NDArray[np.uint8], path: Path, name: str, split: str) -> None:
    if y.max() >= CLASSES:
        where = int((y >= CLASSES).argmax())
        raise InputError(f"{path}: expected labels from 0 to {CLASSES - 1}, got {y[where]} at sample {where}")
    for (other, part), first in FIRST_LABELS.items():
        if (other, part) != (name, split) and tuple(y[:10].tolist()) == first:
            raise InputError(f"{path}: expected the {split} labels of {name}, got the {part} labels of {other}")
