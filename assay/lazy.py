"""Packages whose public names are imported on first use (PEP 562), so that importing a package alone costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
