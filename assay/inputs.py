"""Which samples evidence speaks of: by the hashes of their numbers, and by where its regions lie."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from assay.models.data import Dataset

SLACK = 1e-9  # relative, of widths of boxes, which are rounded


def digests(x: Tensor) -> list[str]:
    """The sha256 of each sample (n x shape): of its numbers in their order, as little-endian float32."""
    return [hashlib.sha256(one.contiguous().numpy().astype("<f4").tobytes()).hexdigest() for one in x]


def another(entry: Mapping[str, Any], samples: Dataset) -> str | None:
    """Why what is said of a sample is not said of the one with its number in the data."""
    number = entry["sample"]
    if type(number) is not int or not 0 <= number < len(samples):
        return f"{samples.name} ({samples.split}) has only {len(samples)} samples"
    if digests(samples.x[number][None]) != [entry["input"]]:
        return f"it is not about sample {number} of {samples.name} ({samples.split}), whose numbers are others"
    if entry["label"] != int(samples.y[number]):
        return f"the label is {int(samples.y[number])} in {samples.name} ({samples.split})"
    return None


def around(
    centre: Sequence[float],
    radius: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    least: Sequence[float],
    most: Sequence[float],
) -> bool:
    """Whether a box holds all inputs within a radius of the centre, each its own, but those beyond the domain."""
    return all(
        a <= max(c - (1 - SLACK) * r, start) and b >= min(c + (1 - SLACK) * r, end)
        for c, r, a, b, start, end in zip(centre, radius, low, high, least, most, strict=True)
    )


def inside(centre: Sequence[float], radius: Sequence[float], low: Sequence[float], high: Sequence[float]) -> bool:
    """Whether a box holds nothing beyond a radius of the centre, each input its own, but for how its ends were
    rounded."""
    return all(
        max(c - a, b - c) <= (1 + SLACK) * r + 4 * math.ulp(max(abs(a), abs(b), abs(c)))
        for c, r, a, b in zip(centre, radius, low, high, strict=True)
    )


def within(radius: Sequence[float], low: Sequence[float], high: Sequence[float]) -> bool:
    """Whether a box lies within a radius of a point, each input its own, but for how its ends were rounded."""
    return all(
        b - a <= 2 * (1 + SLACK) * r + 4 * math.ulp(max(abs(a), abs(b)))
        for r, a, b in zip(radius, low, high, strict=True)
    )


def middle(
    radius: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    least: Sequence[float],
    most: Sequence[float],
) -> list[float] | None:
    """A point of the domain of which the box holds all within a radius, but what is beyond the domain; None if there is
    none, as of a box that is narrow along any input."""
    ends = [
        (start if a <= start else a + (1 - SLACK) * r, end if b >= end else b - (1 - SLACK) * r)
        for r, a, b, start, end in zip(radius, low, high, least, most, strict=True)
    ]
    return [first for first, _ in ends] if all(first <= last for first, last in ends) else None
