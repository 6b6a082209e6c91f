"""Bytes of images as numbers in [0, 1]."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def scaled(pixels: NDArray[np.uint8]) -> Tensor:
    """k / 255 in the shape of ``pixels``, each rounded once to the nearest float32 (k * (1/255) rounds twice)."""
    unit: NDArray[Any] = np.divide(pixels, np.float32(255), dtype=np.float32)
    return torch.from_numpy(unit)
