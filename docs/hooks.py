"""What the pages of reference are made from: ``--help`` of every command, the classes of methods and attacks."""

from __future__ import annotations

import contextlib
import io
import os
import re
from typing import Any

ROLE = re.compile(r":(?:class|func|meth|mod|attr):<code>~?([^<]+)</code>|:(?:class|func|meth|mod|attr):`~?([^`]+)`")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with ``<!-- commands -->``, ``<!-- methods -->`` and ``<!-- attacks -->`` filled in."""
    for mark, made in (("commands", commands), ("methods", methods), ("attacks", attacks)):
        if (comment := f"<!-- {mark} -->") in markdown:
            markdown = markdown.replace(comment, made())
    return markdown


def on_page_content(html: str, **_: Any) -> str:
    """Roles of docstrings as code."""
    return ROLE.sub(lambda found: f"<code>{found[1] or found[2]}</code>", html)


def commands() -> str:
    """The list of commands, and a section for each with its ``--help``."""
    from assay.__main__ import app

    names = sorted(command.callback.__name__ for command in app.registered_commands if command.callback)
    overview = f"```text\n{_help()}\n```\n\n"
    return overview + "\n".join(f"## assay {name}\n\n```text\n{_help(name)}\n```\n" for name in names)


def methods() -> str:
    """A section for each method."""
    from assay.verify.registry import VERIFIERS

    return _classes(VERIFIERS)


def attacks() -> str:
    """A section for each attack."""
    from assay.attacks.registry import ATTACKS

    return _classes(ATTACKS)


def _classes(table: dict[str, str]) -> str:
    options = "    options:\n      members: false\n      show_root_heading: false\n      heading_level: 3\n"
    parts = (f"## {name}\n\n::: {home.replace(':', '.')}\n{options}" for name, home in sorted(table.items()))
    return "\n".join(parts)


def _help(*command: str) -> str:
    from assay.__main__ import main

    os.environ["COLUMNS"] = "100"
    with contextlib.redirect_stdout(io.StringIO()) as told:
        main([*command, "--help"])
    return told.getvalue().strip()
