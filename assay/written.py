"""Numbers as people write them, decimals and fractions: read exactly, printed as they were typed."""

from __future__ import annotations

import re
from fractions import Fraction
from math import isfinite
from typing import Self

from assay.verify.core.errors import InputError

FRACTION = re.compile(r"([+-]?\d{1,30}(?:\.\d{1,30})?)\s*/\s*(\d{1,30}(?:\.\d{1,30})?)", re.ASCII)


class Written(float):
    """A number as it was written, ``0.10`` or ``8/255``: it counts as the nearest float and prints as it stands.

    >>> f"{Written('8/255'):g}", Written("8/255") == 8 / 255
    ('8/255', True)
    """

    text: str

    def __new__(cls, text: str) -> Self:
        """Raises ValueError for what is no number, a division by 0 included."""
        divided = FRACTION.fullmatch(text)
        if divided is None:
            number = super().__new__(cls, text)
        else:
            above, below = map(Fraction, divided.groups())
            if not below:
                raise ValueError(f"{text} divides by 0")
            number = super().__new__(cls, above / below)
        number.text = text
        return number

    def __getnewargs__(self) -> tuple[str]:  # type: ignore[override]
        return (self.text,)

    def __format__(self, spec: str) -> str:
        return self.text


def numbers(name: str, text: str) -> list[Written]:
    """The numbers of ``0.02,8/255``, finite and at least 0, rising, each once. ``name``: of the option."""
    values = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            number = Written(part)
        except ValueError:
            raise InputError(f"{name}: expected numbers with commas between them, got {part!r}") from None
        if not isfinite(number) or number < 0:
            raise InputError(f"{name}: expected finite numbers >= 0, got {part}")
        values.append(number)
    if not values:
        raise InputError(f"{name}: expected at least one radius, such as 0.02,0.05 or 8/255")
    return sorted(set(values))
