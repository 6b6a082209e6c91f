"""The IDX format (LeCun, Cortes, Burges 1998): a magic number, big-endian dimensions, then bytes."""

from __future__ import annotations

from math import prod
from pathlib import Path
from struct import unpack

import numpy as np
from numpy.typing import NDArray

from assay.models.data.files import reading
from assay.verify.core.errors import InputError

UNSIGNED_BYTE = 8  # the type that the magic number's third byte names


def read(path: Path, item: tuple[int, ...]) -> NDArray[np.uint8]:
    """The array (n x item) of unsigned bytes, n > 0, in a file that may be compressed with gzip; not writable.

    Raises :class:`InputError` for a wrong magic number, other dimensions, and files cut short or too long;
    :class:`ResourceError` beyond the caps on sizes.
    """
    expected = UNSIGNED_BYTE << 8 | 1 + len(item)
    with reading(path) as source:
        (magic,) = unpack(">I", source.take(4, "magic number"))
        if magic != expected:
            raise InputError(f"{path}: expected the IDX magic number {expected}, got {magic}")
        shape = unpack(f">{1 + len(item)}I", source.take(4 + 4 * len(item), "dimensions"))
        if shape[1:] != item or not shape[0]:
            wanted = " x ".join(["n", *map(str, item)])
            raise InputError(f"{path}: expected dimensions {wanted} with n > 0, got {' x '.join(map(str, shape))}")
        content = source.take(prod(shape), f"{shape[0]} items")
        source.end()
    return np.frombuffer(content, np.uint8).reshape(shape)
