"""Options as text: a frozen dataclass written as ``name(field=value,...)``."""

from __future__ import annotations

from dataclasses import fields
from typing import ClassVar, Protocol

from assay.verify.core.errors import InputError


class Named(Protocol):
    """A frozen dataclass of options with the name that its table knows it by."""

    name: ClassVar[str]


def describe(options: Named) -> str:
    """The text that :func:`options.load` turns into an equal object; every option is written out."""
    pairs = ",".join(f"{f.name}={getattr(options, f.name)}" for f in fields(options))  # type: ignore[arg-type]
    return f"{options.name}({pairs})" if pairs else options.name


class Sizes(tuple[int, ...]):
    """Positive whole numbers, written with dashes.

    >>> Sizes("50-30"), str(Sizes((50, 30)))
    (Sizes('50-30'), '50-30')
    """

    __slots__ = ()

    def __new__(cls, value: str | tuple[int, ...]) -> Sizes:
        """From ``50-30`` or (50, 30). Raises :class:`InputError` for anything else."""
        parts = value.split("-") if isinstance(value, str) else [str(item) for item in value]
        if not parts or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
            raise InputError(f"expected positive numbers such as 50-50, got {value!r}")
        return super().__new__(cls, (int(part) for part in parts))

    def __str__(self) -> str:
        return "-".join(str(item) for item in self)

    def __repr__(self) -> str:
        return f"Sizes({str(self)!r})"
