"""Objects for people: what they are as one line for the console, and as a table for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


def line(name: str, facts: Mapping[str, object]) -> str:
    """One line.

    >>> line("Box", {"shape": (2, 3), "width": "0 to 0.5"})
    'Box(shape (2, 3), width 0 to 0.5)'
    """
    return f"{name}({', '.join(f'{key} {value}' for key, value in facts.items())})"


def table(name: str, facts: Mapping[str, object]) -> str:
    """HTML, with whatever people called their things escaped.

    >>> table("Network", {"name": "<b>"})
    '<table><caption>Network</caption><tr><th>name</th><td>&lt;b&gt;</td></tr></table>'
    """
    from html import escape  # seldom needed, and its tables are large

    rows = (f"<tr><th>{escape(key)}</th><td>{escape(str(value))}</td></tr>" for key, value in facts.items())
    return f"<table><caption>{escape(name)}</caption>{''.join(rows)}</table>"


def grid(caption: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """HTML of a table with a header, likewise escaped.

    >>> grid("<i>", ["eps"], [[0.5]])
    '<table><caption>&lt;i&gt;</caption><tr><th>eps</th></tr><tr><td>0.5</td></tr></table>'
    """
    from html import escape

    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    lines = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><caption>{escape(caption)}</caption><tr>{head}</tr>{lines}</table>"


def span(low: float, high: float) -> str:
    """One number, or two.

    >>> span(0.0, 0.5), span(0.25, 0.25)
    ('0 to 0.5', '0.25')
    """
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
