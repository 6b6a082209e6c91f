"""A text and its name: what is wrong in it is told with line and column."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

from assay.verify.core.errors import AssayError, InputError


@dataclass(frozen=True)
class Text:
    """The content of a file, or of a string, called ``name``."""

    name: str
    content: str = field(repr=False)

    def place(self, offset: int) -> str:
        """``name:line:column``, both counted from 1."""
        line = self.content.count("\n", 0, offset) + 1
        return f"{self.name}:{line}:{offset - self.content.rfind(chr(10), 0, offset)}"

    def offset(self, line: int, symbol: str = "") -> int:
        """Where ``symbol`` stands first in a line, counted from 1; the start of the line if it does not."""
        line = min(line, len(self._starts) - 1)
        start, end = self._starts[line - 1 : line + 1]
        return max(start, self.content.find(symbol, start, end))

    @cached_property
    def _starts(self) -> list[int]:
        ends = (match.end() for match in re.finditer("\n", self.content))
        return [0, *ends, len(self.content) + 1]

    def error(self, offset: int, message: str, kind: type[AssayError] = InputError) -> AssayError:
        """An error that names the place."""
        return kind(f"{self.place(offset)}: {message}")

    @contextmanager
    def located(self, offset: int) -> Iterator[None]:
        """Errors raised within get the place in front."""
        try:
            yield
        except AssayError as error:
            raise self.error(offset, str(error), type(error)) from error


def shown(token: str) -> str:
    """``token`` for a message: quoted, and cut where it is long."""
    return repr(token if len(token) <= 40 else f"{token[:37]}...")
