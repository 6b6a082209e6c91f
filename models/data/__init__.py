"""Data sets by name, each behind one function of the split and the folder, imported on first use."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from assay.models.data.dataset import Dataset
from assay.verify.core.errors import InputError, unknown_name

__all__ = ["Dataset", "download", "load", "names"]

TABLE = {
    "cifar10": "assay.models.data.cifar10:load",
    "digits": "assay.models.data.digits:load",
    "fashion-mnist": "assay.models.data.mnist:fashion_mnist",
    "mnist": "assay.models.data.mnist:mnist",
    "spheres": "assay.models.data.spheres:load",
}
NPZ = "assay.models.data.npz:load"
SPLITS = ("train", "test")


def names() -> list[str]:
    """The names that :func:`load` knows, beside every ``file.npz``."""
    return sorted(TABLE)


def load(
    name: str,
    split: str = "test",
    folder: str | Path | None = None,
    domain: tuple[float, float] | None = None,
) -> Dataset:
    """A split, ``train`` or ``test``, of a data set by name, or of the user's own ``file.npz``.

    ``folder`` is where its files lie, and the only place looked at if it is given; otherwise ``$ASSAY_DATA``, the
    distribution's folders and the user's cache are tried in turn (``models/data/folders.py``). Only the files of the
    split asked for are read. ``domain``: the lowest and the highest legal input, where they are not the data set's own,
    which is [0, 1]; all values must lie in it. Raises :class:`InputError` for an unknown name or split and for missing
    or damaged files, :class:`ResourceError` for files that would unpack beyond the caps on sizes.

    >>> load("digits").shape
    (1, 8, 8)
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    place = None if folder is None else Path(folder).expanduser()
    if place is not None and not place.is_dir():
        raise InputError(f"there is no folder {str(place)!r} to find the data in")
    if name.lower().endswith(".npz"):
        own: Dataset = _function(NPZ)(name, split, place, domain or (0.0, 1.0))
        return own
    if name not in TABLE:
        raise unknown_name("data set", name, [*TABLE, "file.npz"])
    dataset: Dataset = _function(TABLE[name])(split, place)
    return dataset if domain is None else replace(dataset, domain=domain)


def download(name: str, folder: str | Path | None = None, mirror: str | None = None) -> Path:
    """Fetch the files of a data set, verified, into ``folder`` or the user's cache; where they lie then.

    ``mirror`` is the http(s) address of a folder that holds them, in place of the public ones; the checksums stay.
    Raises :class:`InputError` for an unknown name and where no mirror gives the published files.
    """
    path: Path = _function("assay.models.data.fetch:download")(name, folder, mirror)
    return path


def _function(entry: str) -> Any:
    module, _, function = entry.partition(":")
    return getattr(import_module(module), function)
