"""Figures as they were published, read from the TOML files beside this one."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from importlib.resources import files
from typing import Any

from assay.verify.core.errors import InputError, unknown_name
from assay.verify.core.norms import parse_norm


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A row: ``who`` it is about, as ``source`` says; shares in percent, None where the source has none.

    ``models``: by data set, which network stands for it here; ``train``: options of ``assay train`` that make one on
    other data. ``methods``: who certifies it, where that is somebody else than the table's own.
    """

    who: str
    source: str
    eps: float
    clean: float | None = None
    certified: float | None = None
    models: dict[str, str] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    methods: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Published figures for the ``data`` within balls of a ``norm``, all of them by one ``protocol``; ``methods`` and
    ``attacks``: who measures the same here."""

    name: str
    title: str
    data: str
    norm: float
    protocol: str
    methods: str
    attacks: str
    figures: tuple[Figure, ...]

    @property
    def radii(self) -> list[float]:
        """Each eps of the figures, rising."""
        return radii(self.figures)

    def at_hand(self) -> list[str]:
        """Data sets that some of the figures have a network for."""
        return sorted({data for figure in self.figures for data in figure.models})


def radii(figures: Iterable[Figure]) -> list[float]:
    """Each eps of some figures, rising."""
    return sorted({figure.eps for figure in figures})


def names() -> list[str]:
    """The tables that come along."""
    found = (file.name for file in files(__package__).iterdir())
    return sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml"))


def read(name: str) -> Table:
    """The table of that name. Raises :class:`InputError` where there is none."""
    if name not in names():
        raise unknown_name("table", name, names())
    return parse(name, files(__package__).joinpath(f"{name}.toml").read_text(encoding="utf-8"))


def parse(name: str, text: str) -> Table:
    """A table from TOML: its own keys, and one ``[[figure]]`` for each row.

    Raises :class:`InputError` for text that is not TOML, keys that are missing, unknown or of another type, and shares
    that are none.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"table {name}: not TOML: {error}") from error
    rows = document.pop("figure", [])
    if not isinstance(rows, list) or not rows:
        raise InputError(f"table {name}: expected at least one [[figure]]")
    figures = tuple(_figure(f"table {name}, figure {place}", row) for place, row in enumerate(rows, 1))
    document |= {"name": name, "norm": parse_norm(str(document.get("norm", "")))}
    return Table(**_checked(f"table {name}", Table, document | {"figures": figures}))


def _figure(where: str, row: dict[str, Any]) -> Figure:
    row = {key: float(value) if type(value) is int else value for key, value in row.items()}
    figure = Figure(**_checked(where, Figure, row))
    for key in ("clean", "certified"):
        share = getattr(figure, key)
        if share is not None and not 0 <= share <= 100:
            raise InputError(f"{where}: expected {key} in percent, from 0 to 100, got {share!r}")
    if not figure.eps > 0:
        raise InputError(f"{where}: expected eps > 0, got {figure.eps!r}")
    return figure


TYPES = {
    "str": str,
    "float": float,
    "float | None": float,
    "dict[str, str]": dict,
    "dict[str, Any]": dict,
    "tuple[Figure, ...]": tuple,
}


def _checked(where: str, of: type[Figure | Table], row: dict[str, Any]) -> dict[str, Any]:
    """The row, if it has the fields of the dataclass and no others, each of its type."""
    known = {each.name: each for each in fields(of)}
    if unknown := sorted(set(row) - set(known)):
        raise InputError(f"{where}: unknown {'keys' if len(unknown) > 1 else 'key'} {', '.join(unknown)}")
    needed = Figure.__dataclass_fields__ if of is Figure else Table.__dataclass_fields__
    optional = {"clean", "certified", "models", "train", "methods"} if of is Figure else set[str]()
    if missing := sorted(set(needed) - optional - set(row)):
        raise InputError(f"{where}: expected {', '.join(missing)}, which {'are' if len(missing) > 1 else 'is'} missing")
    for key, value in row.items():
        if not isinstance(value, TYPES[str(known[key].type)]):
            raise InputError(f"{where}: {key} is of another type: {value!r}")
    return row
