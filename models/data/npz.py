"""One's own data: ``file.npz`` with x (n x shape) and y (n), and x_train, y_train if there is a split to train on."""

from __future__ import annotations

import zipfile
import zlib
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.models.data.dataset import Dataset
from assay.models.data.files import check_ratio, check_size
from assay.models.data.pixels import scaled
from assay.verify.core.errors import InputError

KEYS = {"test": ("x", "y"), "train": ("x_train", "y_train")}
MAX_CLASSES = 100_000
READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def load(name: str, split: str, folder: Path | None = None, domain: tuple[float, float] = (0.0, 1.0)) -> Dataset:
    """The split of a file made by ``numpy.savez`` or ``savez_compressed``; a relative name starts at ``folder``.

    x is float in the ``domain`` (float64 is rounded to the nearest float32, float16 widened) or uint8 (divided by 255);
    y holds whole numbers from 0. ``classes`` is the largest label of the file plus 1, at least 2. Nothing is unpickled.
    Raises :class:`InputError` for whatever cannot be used, :class:`ResourceError` beyond the caps on sizes.
    """
    path = (folder or Path()) / Path(name).expanduser()
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            keys = {member.filename.removesuffix(".npy"): member for member in members}
            _check_keys(path, [member.filename.removesuffix(".npy") for member in members], split)
            x, y = (_array(path, archive, keys[key]) for key in KEYS[split])
            every = [y if key == KEYS[split][1] else _array(path, archive, keys[key]) for key in keys if key[0] == "y"]
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # RuntimeError: an encrypted member
        raise InputError(f"{path}: not a readable .npz file ({error})") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    kx, ky = KEYS[split]
    if x.ndim < 2 or y.ndim != 1 or len(x) != len(y) or not x.size:
        raise InputError(
            f"{path}: expected {kx} (n x shape) and {ky} (n) with n > 0, got {kx} {x.shape} and {ky} {y.shape}"
        )
    labels = [_labels(path, array) for array in every]
    classes = max(2, 1 + max(int(array.max()) for array in labels if array.size))
    values, what = _values(path, kx, x, domain)
    y64 = torch.from_numpy(_labels(path, y).astype(np.int64))
    return Dataset(name, split, values, y64, classes, domain, origin=f"{path}, {kx} and {ky}; {what}")


def _check_keys(path: Path, keys: list[str], split: str) -> None:
    """Raise :class:`InputError` unless the arrays are those of the split, each once, and no others beside it."""
    known = [key for pair in KEYS.values() for key in pair]
    got = ", ".join(keys) or "nothing"
    if set(keys) - set(known) or len(set(keys)) < len(keys):
        raise InputError(f"{path}: expected the arrays x and y (and x_train and y_train, if any), got {got}")
    missing = [key for key in KEYS[split] if key not in keys]
    if missing:
        raise InputError(f"{path}: has no {' and no '.join(missing)} for the {split} split; it holds {got}")


def _array(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    """One array, after its header has shown that it is of plain numbers and as large as the file says."""
    check_size(path, member.file_size)
    check_ratio(path, member.file_size, member.compress_size)
    try:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError("expected it stored or deflated, as numpy does")
        with archive.open(member) as stream:
            version = np.lib.format.read_magic(stream)
            if version not in READERS:
                raise ValueError(f"version {version} of the .npy format is not read")
            shape, _, dtype = READERS[version](stream)
            if dtype.kind not in "fiu":
                raise ValueError(f"expected an array of numbers, got {dtype}")
            if prod(shape) * dtype.itemsize != member.file_size - stream.tell():
                raise ValueError(f"{member.file_size} bytes do not hold an array of {dtype} with shape {shape}")
        with archive.open(member) as stream:
            array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    except ValueError as error:
        raise InputError(f"{path}: {member.filename}: {error}") from None
    return array


def _labels(path: Path, y: NDArray[Any]) -> NDArray[Any]:
    if y.dtype.kind not in "iu":
        raise InputError(f"{path}: expected whole numbers as labels, got {y.dtype}")
    if y.size and not (y.min() >= 0 and y.max() < MAX_CLASSES):
        raise InputError(f"{path}: expected labels from 0 to {MAX_CLASSES - 1}, got {y.min()} to {y.max()}")
    return y


def _values(path: Path, key: str, x: NDArray[Any], domain: tuple[float, float]) -> tuple[Tensor, str]:
    """x as float32 in the domain, and what was done to it."""
    if x.dtype == np.uint8:
        return scaled(np.ascontiguousarray(x)), "bytes / 255"
    if x.dtype.kind != "f":
        raise InputError(f"{path}: expected {key} in uint8 or float, got {x.dtype}")
    with np.errstate(over="ignore"):  # to infinity, which lies in no domain
        values = np.ascontiguousarray(x, dtype=np.float32)
    low, high = float(values.min()), float(values.max())
    if not (low >= domain[0] and high <= domain[1]):  # NaN fails it too
        hint = "; save pixels as uint8, or name the domain, --domain LO,HI" if high > 1 else ""
        raise InputError(
            f"{path}: expected {key} within [{domain[0]:.9g}, {domain[1]:.9g}], got {low:.9g} to {high:.9g}{hint}"
        )
    done = {2: "widened from float16", 4: "float32 as it is"}.get(x.dtype.itemsize, f"rounded from {x.dtype.name}")
    return torch.from_numpy(values), done
