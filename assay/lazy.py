"""What imports cost: packages whose public names are imported on first use (PEP 562), so that importing one alone costs
nothing, and imports without the collector of cycles."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any


def lazily(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of ``package``; ``homes``: each public name -> the module that defines it.

    A name whose home ends with ``:`` is that module itself.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, colon, _ = homes[name].partition(":")
        return import_module(module) if colon else getattr(import_module(module), name)

    return get, lambda: sorted(homes)


@contextmanager
def swift_imports() -> Iterator[None]:
    """Importing without the collector of cycles, which finds nothing and takes a tenth of torch's import.

    What was imported stays, so that later collections need not look at it either.
    """
    first = "torch" not in sys.modules
    gc.disable()
    try:
        yield
    finally:
        if first:
            gc.freeze()
        gc.enable()
