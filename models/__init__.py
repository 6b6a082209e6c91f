"""Floor 2, models: architectures, data sets, training recipes, cards, and the zoo of trained networks."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models import data, zoo

__all__ = ["data", "zoo"]


def __getattr__(name: str) -> ModuleType:
    """The public submodules, imported on first use (PEP 562)."""
    if name in __all__:
        return import_module(f"models.{name}")
    raise AttributeError(f"module 'models' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
