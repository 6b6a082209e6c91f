"""The 8 x 8 handwritten digits of UCI (Alpaydin and Kaynak 1998), as scikit-learn has them: no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from assay.models.data import shipped
from assay.models.data.dataset import Dataset


def load(split: str, folder: Path | None = None) -> Dataset:
    """Pixels / 16 in [0, 1], shape (1, 8, 8). Samples 0, 5, 10, ... are the test split (360), the rest train (1437).

    They come with the installation: ``folder`` is not looked at.
    """
    images, labels = shipped.read("digits")
    chosen = (np.arange(len(labels)) % 5 == 0) == (split == "test")
    # 1/16 is a power of two: the division is exact in float32.
    x = torch.from_numpy(images[chosen]).to(torch.float32).unsqueeze(1) / 16
    y = torch.from_numpy(labels[chosen]).to(torch.int64)
    return Dataset("digits", split, x, y, classes=10, origin="comes with assay; pixels / 16")
