"""Two pieces of work measured in turns, so that both meet the same noise of the machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any


def in_turns(a: Callable[[], Any], b: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """The median CPU seconds of each over ``repeats`` calls, after one warming call of each."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats + 1):
        for call, spent in zip((a, b), seconds, strict=True):
            begun = time.process_time()
            call()
            if turn:
                spent.append(time.process_time() - begun)
    return statistics.median(seconds[0]), statistics.median(seconds[1])
