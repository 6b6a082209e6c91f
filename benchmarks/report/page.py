"""One self-contained page from a template: no network, no script but ours, everything that is named escaped."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from assay.benchmarks.report import canvas, colours, inline
from assay.verify.support.plain import plain

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup
    from matplotlib.figure import Figure

TEMPLATES = "templates"


def render(template: str, facts: Mapping[str, Any]) -> str:
    """The page. What is written into it is escaped, unless :func:`figure` made it."""
    script = _text("page.js")
    shared = {
        "style": _markup(_text("page.css")),
        "light": _markup(colours.declarations(dark=False)),
        "dark": _markup(colours.declarations(dark=True)),
        "script": _markup(script),
        # A browser runs this script alone, and loads nothing, whatever a name may have smuggled in.
        "policy": f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'",
    }
    return _environment().get_template(template).render({**shared, **facts})


def figure(plot: Callable[[canvas.Size], Figure], name: str, title: str) -> Markup:
    """A plot for wide screens and one for narrow ones, of which a page shows the one that fits."""
    shown = [
        f'<div class="{kind}">{inline.svg(plot(size), f"{name}-{kind}", title)}</div>'
        for kind, size in (("wide", canvas.WIDE), ("narrow", canvas.NARROW))
    ]
    return _markup("".join(shown))


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    made = Environment(
        autoescape=True, loader=FunctionLoader(_text), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters["plain"] = plain
    made.filters["percent"] = lambda share: f"{share:.1%}"
    return made


def _text(name: str) -> str:
    return files("assay.benchmarks.report").joinpath(TEMPLATES, name).read_text(encoding="utf-8")


def _markup(text: str) -> Markup:
    from markupsafe import Markup

    return Markup(text)
