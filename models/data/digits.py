"""The 8 x 8 handwritten digits that come with scikit-learn (Alpaydin and Kaynak 1998): no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from assay.models.data.dataset import Dataset


def load(split: str, folder: Path | None = None) -> Dataset:
    """Pixels / 16 in [0, 1], shape (1, 8, 8). Samples 0, 5, 10, ... are the test split (360), the rest train (1437).

    They come with the installation: ``folder`` is not looked at.
    """
    bunch = load_digits()
    chosen = (np.arange(len(bunch.target)) % 5 == 0) == (split == "test")
    # 1/16 is a power of two: the division is exact in float32.
    x = torch.from_numpy(bunch.images[chosen]).to(torch.float32).unsqueeze(1) / 16
    y = torch.from_numpy(bunch.target[chosen]).to(torch.int64)
    return Dataset("digits", split, x, y, classes=10, origin="scikit-learn; pixels / 16")
