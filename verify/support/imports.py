"""Imports without the collector of cycles, which finds nothing there and takes a tenth of torch's."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def swift_imports() -> Iterator[None]:
    """While the block runs nothing is collected.

    What was imported first stays, so that later collections need not look at it either.
    """
    first = "torch" not in sys.modules
    gc.disable()
    try:
        yield
    finally:
        if first:
            gc.freeze()
        gc.enable()
