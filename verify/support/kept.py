"""What is kept of objects for whoever asks again, for as long as they live: by each thread for itself, since it is
changed where it lies while work goes on."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

K = TypeVar("K")
V = TypeVar("V")


class Kept(threading.local, Generic[K, V]):
    """By the objects that it is kept ``of``. What is kept must not hold its object, or that is never given up."""

    def __init__(self) -> None:
        self.of: WeakKeyDictionary[K, V] = WeakKeyDictionary()
