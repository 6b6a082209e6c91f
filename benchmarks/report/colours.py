"""The colours of all pictures: as they are printed on white, and what a page puts in their place in the dark.

Lines have Okabe and Ito's colours (2008), told apart with any colour vision: warm from above, cool from below. Thin
letters need more contrast than lines, so each has a deeper one for its label.
"""

from __future__ import annotations

INK, SOFT, FAINT, GRID, GAP, PAPER = "#222222", "#444444", "#8a8a8a", "#e6e6e6", "#f0e7c8", "#ffffff"
WARM = ("#d55e00", "#e69f00", "#cc79a7", "#a6761d")
COOL = ("#0072b2", "#009e73", "#56b4e9", "#4b4e9e")

# The letters beside a line of each colour: a contrast of 4.5 or more on white.
DEEPER = {
    **dict(zip(WARM, ("#a84a00", "#8a5f01", "#a04e7b", "#7f5a15"), strict=True)),
    **dict(zip(COOL, ("#005f94", "#00704f", "#1f6b99", "#3f4290"), strict=True)),
    INK: "#222223",
    FAINT: "#696969",
}

_WARM_DARK = ("#f0803c", "#e9ae2e", "#de93bb", "#c99a4b")
_COOL_DARK = ("#4ba3db", "#35c79b", "#7cc7f2", "#9a9ce8")

# Name of a CSS variable: the colour on white paper, and the one in the dark.
VARIABLES = {
    "ink": (INK, "#e9e7e2"),
    "soft": (SOFT, "#bdbab3"),
    "faint": (FAINT, "#8f8f94"),
    "grid": (GRID, "#393a41"),
    "gap": (GAP, "#4d452b"),
    "paper": (PAPER, "#16171b"),
    **{f"warm-{i}": (colour, dark) for i, (colour, dark) in enumerate(zip(WARM, _WARM_DARK, strict=True))},
    **{f"cool-{i}": (colour, dark) for i, (colour, dark) in enumerate(zip(COOL, _COOL_DARK, strict=True))},
    **{f"warm-{i}-text": (DEEPER[c], dark) for i, (c, dark) in enumerate(zip(WARM, _WARM_DARK, strict=True))},
    **{f"cool-{i}-text": (DEEPER[c], dark) for i, (c, dark) in enumerate(zip(COOL, _COOL_DARK, strict=True))},
    "ink-text": (DEEPER[INK], "#e9e7e2"),
    "faint-text": (DEEPER[FAINT], "#a6a5aa"),
}


def declarations(dark: bool) -> str:
    """The variables as CSS."""
    return " ".join(f"--{name}: {colours[dark]};" for name, colours in VARIABLES.items())


def contrast(one: str, other: str) -> float:
    """The ratio of two colours' luminances (WCAG 2.2), from 1 to 21.

    >>> contrast("#000000", "#ffffff")
    21.0
    """
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
