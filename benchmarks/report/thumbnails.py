"""Samples as small pictures within a page: PNG in a data URI, as many as there is room for."""

from __future__ import annotations

import io
from base64 import b64encode
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from assay.benchmarks.report.image_sheet import picture

LARGEST = 96  # pixels, of a side
ROOM = 3 * 2**20  # characters of all pictures of a page together
LESS, NONE, MORE = (np.array(c, dtype=np.float64) for c in ((33, 102, 172), (247, 247, 247), (178, 24, 43)))


@dataclass
class Album:
    """Pictures of samples whose numbers are from ``low`` to ``high``, until ``room`` characters are used up."""

    low: float
    high: float
    room: int = ROOM

    def strip(self, x: Tensor, point: Tensor | None) -> list[str]:
        """The sample and, where there is an adversarial point, that and their difference: blue where it is less, red
        where it is more, full at the largest change. None of them where the sample is no image or the room is used up.
        """
        if picture(x) is None or (point is not None and point.shape != x.shape):
            return []
        shown = [self._image(x)]
        if point is not None:
            shown += [self._image(point), _difference(point.double() - x.double())]
        links = ["data:image/png;base64," + b64encode(_png(each)).decode() for each in shown]
        self.room -= sum(map(len, links))
        return links if self.room >= 0 else []

    def _image(self, x: Tensor) -> NDArray[np.uint8]:
        shown = picture(x)
        assert shown is not None
        unit = (shown.double().numpy() - self.low) / ((self.high - self.low) or 1.0)
        return (np.clip(np.nan_to_num(unit), 0, 1) * 255).round().astype(np.uint8)


def _difference(step: Tensor) -> NDArray[np.uint8]:
    shown = picture(step)
    assert shown is not None
    flat = shown.numpy() if shown.dim() == 2 else shown.numpy().mean(2)
    part = np.nan_to_num(flat / (np.abs(flat).max() or 1.0))[..., None]
    colour = np.where(part < 0, LESS, MORE)
    return (NONE + (colour - NONE) * np.abs(part)).round().astype(np.uint8)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    image, buffer = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((LARGEST, LARGEST))
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
