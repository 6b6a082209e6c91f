"""SIGINT and SIGTERM: the first ends the work in good order, the second ends the process at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from assay.verify.core.errors import AlarmError

INTERRUPTED = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible() -> Iterator[None]:
    """While the block runs, the first signal raises KeyboardInterrupt in it, whatever becomes of that: what it breaks
    off, as the import of a package, may well go on and fail in another way.

    Does nothing outside of the main thread, where Python allows no handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    heard = False

    def first(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        heard = True
        for each in SIGNALS:
            signal.signal(each, _second)
        raise KeyboardInterrupt

    for number in SIGNALS:
        signal.signal(number, first)
    try:
        yield
    except Exception as error:
        if heard and not isinstance(error, AlarmError):
            raise KeyboardInterrupt from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _second(number: int, frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)
