"""Names that came from outside, made safe for a terminal: no escape sequences, no control characters, one line."""

from __future__ import annotations

import re

# CSI sequences (colours, cursor), OSC sequences (titles, links), and two-character escapes: ECMA-48.
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])|\x9b[0-?]*[ -/]*[@-~]")


def plain(text: object) -> str:
    r"""``text`` without escape sequences, whitespace runs as one space, what else cannot be printed left out.

    >>> plain("a\x1b[31mred\x1b[0m\nline \x07\x00end")
    'ared line end'
    """
    words = ESCAPES.sub("", str(text)).split()
    return " ".join("".join(char for char in word if char.isprintable()) for word in words)


def counted(n: int, noun: str) -> str:
    """So many of them.

    >>> counted(1, "sample"), counted(0, "sample"), counted(2, "success")
    ('1 sample', '0 samples', '2 successes')
    """
    return f"{n} {noun}" if n == 1 else f"{n} {noun}{'es' if noun.endswith('s') else 's'}"
