"""The samples that come with the package: all of the digits, and the first test images of Fashion-MNIST."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read(name: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images (n x height x width) and labels (n)."""
    with np.load(Path(__file__).with_name(f"{name}.npz"), allow_pickle=False) as arrays:
        x: NDArray[Any] = arrays["x"]
        y: NDArray[Any] = arrays["y"]
    return x, y
