"""JSON documents that every parser reads: numbers that are not finite are strings."""

from __future__ import annotations

import json
from math import isfinite
from typing import Any


def dump(document: Any) -> str:
    """One JSON document, complete.

    >>> print(dump([{"margin": float("-inf")}]))
    [
     {
      "margin": "-inf"
     }
    ]
    """
    return json.dumps(finite(document), indent=1, allow_nan=False)


def finite(value: Any) -> Any:
    """``value`` with its infinities and NaN as text, keys as text, tuples as lists."""
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value
