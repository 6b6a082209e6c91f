"""Data sets by name, each behind one function of the split, imported on first use."""

from __future__ import annotations

from importlib import import_module

from models.data.dataset import Dataset
from verify.core.errors import unknown_name

__all__ = ["Dataset", "load", "names"]

TABLE = {"digits": "models.data.digits:load"}
SPLITS = ("train", "test")


def names() -> list[str]:
    """The names that :func:`load` knows."""
    return sorted(TABLE)


def load(name: str, split: str = "test") -> Dataset:
    """A split, ``train`` or ``test``, of a data set. Raises :class:`InputError` for an unknown name or split.

    >>> load("digits").shape
    (1, 8, 8)
    """
    if name not in TABLE:
        raise unknown_name("data set", name, TABLE)
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    module, _, function = TABLE[name].partition(":")
    dataset: Dataset = getattr(import_module(module), function)(split)
    return dataset
