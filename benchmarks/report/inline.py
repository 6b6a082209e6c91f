"""Figures as SVG within a page: its letters, its colours in the light and in the dark, names of their own for ids."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING

from assay.benchmarks.report import canvas
from assay.benchmarks.report.colours import VARIABLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {light: name for name, (light, _) in VARIABLES.items()}
COLOUR = re.compile("|".join(NAMES), re.IGNORECASE)
HEAD = re.compile(r"^.*?<svg.*?viewBox=\"([^\"]*)\".*?>", re.DOTALL)
LEFT_OUT = re.compile(r"<metadata>.*?</metadata>|<!--.*?-->", re.DOTALL)
ID, REFERENCE = re.compile(r' id="([^"]*)"'), re.compile(r'(?:xlink:href="|url\()#([^")]*)')


def svg(figure: Figure, name: str, title: str) -> str:
    """The figure as an element of a page. ``name``: unlike that of any other figure there; ``title``: what a reader
    hears who does not see it."""
    style = {"svg.fonttype": "none", "svg.hashsalt": name}
    written = canvas.drawn(figure, style, {"format": "svg", "transparent": True, "metadata": {"Date": None}})
    text = LEFT_OUT.sub("", written.decode())
    head = HEAD.match(text)
    assert head is not None, "matplotlib writes an svg element with a viewBox"
    body = text[head.end() :]
    used = set(REFERENCE.findall(body))
    body = ID.sub(lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", body)
    body = REFERENCE.sub(lambda found: found[0].replace("#", f"#{name}-"), body)
    # Names are letters of the drawing: a colour among them stays what it is.
    parts = re.split(r"(<[^>]*>)", body)
    body = "".join(COLOUR.sub(_variable, part) if part.startswith("<") else part for part in parts)
    body = re.sub(r"\n\s*", "\n", body)
    return f'<svg viewBox="{head[1]}" role="img" aria-label="{escape(title)}">{body}'


def _variable(found: re.Match[str]) -> str:
    return f"var(--{NAMES[found[0].lower()]})"
