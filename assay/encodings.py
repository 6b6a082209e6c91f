"""Output on streams that cannot encode every character: the nearest ASCII in place of an error."""

from __future__ import annotations

import codecs
import io
from typing import TextIO

NEAREST = {
    "\u2264": "<=",
    "\u2265": ">=",
    "\u2013": "-",
    "\u2014": "-",
    "\u2026": "...",
    "\u00b1": "+-",
    "\u00d7": "x",
    "\u2113": "l",
    "\u03b5": "eps",
    "\u221e": "inf",
    "\u2019": "'",
    "\u2501": "-",  # what rich draws bars of
    "\u2500": "-",
    "\u2578": "-",
    "\u257a": " ",
    "\u2022": "*",
}
HANDLER = "assay.nearest"


def nearest(error: UnicodeError) -> tuple[str, int]:
    """What stands for the first character that cannot be encoded, and where to go on (PEP 293).

    A longer stand-in takes the place of a blank behind it too, so that columns of figures stay where they are.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    after = error.start + 1
    shown = NEAREST.get(error.object[error.start], "?")
    if len(shown) == 2 and error.object[after : after + 1] == " ":
        after += 1
    return shown, after


def forgiving(stream: TextIO) -> None:
    """Let the stream write what it can encode, and the nearest ASCII of what it cannot."""
    codecs.register_error(HANDLER, nearest)
    if isinstance(stream, io.TextIOWrapper) and stream.errors != HANDLER:
        stream.reconfigure(errors=HANDLER)
