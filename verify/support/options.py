"""Options as text: ``crown(dtype=float32)`` becomes a frozen dataclass, and unknown names fail at once."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from assay.verify.core.errors import AssayError, InputError, check_type, unknown_name


def split(text: str) -> list[str]:
    """Split at the commas outside of parentheses.

    >>> split("ibp, milp(solver=pulp:cbc,optimum=true), crown")
    ['ibp', 'milp(solver=pulp:cbc,optimum=true)', 'crown']
    """
    parts, depth, start = [], 0, 0
    for position, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if depth < 0:
            break
        if char == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    if depth != 0:
        raise InputError(f"unbalanced parentheses in {text!r}")
    return [part.strip() for part in [*parts, text[start:]] if part.strip()]


def title(options: Any) -> str:
    """A method or an attack as short as :func:`load` takes it: its name and the options that differ from the default.

    >>> from assay.verify.registry import get_verifier
    >>> title(get_verifier("crown(group=32,dtype=float32)"))
    'crown(dtype=float32)'
    """
    values = [(f, getattr(options, f.name)) for f in fields(options) if f.init]
    given = [f"{f.name}={value}" for f, value in values if value != f.default]
    return f"{options.name}({','.join(given)})" if given else str(options.name)


def load(kind: str, text: str, table: Mapping[str, str]) -> Any:
    """Build ``name(field=value,...)`` from a table of names to ``module:Class``; imports on use.

    Raises :class:`InputError` for a name or a field that does not exist, or a value of the wrong type.
    """
    name, opened, rest = text.strip().partition("(")
    name = name.strip()
    if opened and not rest.endswith(")"):
        raise InputError(f"expected {kind} as name(option=value,...), got {text!r}")
    if name not in table:
        raise unknown_name(kind, name, table)
    module, _, attribute = table[name].partition(":")
    return build(kind, name, getattr(import_module(module), attribute), split(rest[:-1]))


def known(own: Mapping[str, str], group: str) -> dict[str, str]:
    """Names to ``module:Class``: those of ours, and third parties' in the entry-point ``group``, which hide none."""
    return {point.name: point.value for point in entry_points(group=group)} | dict(own)


def make(kind: str, text: str, own: Mapping[str, str], group: str, interface: str, parts: Sequence[str]) -> Any:
    """What ``text`` names in the table of :func:`known`, which must have these ``parts`` to be an ``interface``.

    Raises :class:`InputError` as :func:`load` does, for what is no text, and for a third party's that cannot be loaded
    or lacks a part.
    """
    check_type(text, str, f"the name of a {kind}", "one that is made already is used as it is")
    name = text.partition("(")[0].strip()
    table = own if name in own else known(own, group)  # looking through all that is installed takes its time
    try:
        made = load(kind, text, table)
    except AssayError:
        raise
    except Exception as error:
        if name in own:
            raise
        raise InputError(f"{kind} {name!r} ({table[name]}) cannot be loaded: {error!r}") from error
    if lacking := [part for part in parts if getattr(made, part, None) is None]:
        raise InputError(f"{kind} {text!r} is not {interface}: it lacks {', '.join(lacking)}")
    return made


def build(kind: str, name: str, cls: type[Any], pairs: list[str]) -> Any:
    """``cls`` with its fields set from ``field=value`` texts."""
    hints = get_type_hints(cls)
    known = [f.name for f in fields(cls) if f.init]
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals:
            raise InputError(f"expected option=value for {kind} {name!r}, got {pair!r}")
        if key not in known:
            raise unknown_name(f"option of {kind} {name!r}", key, known)
        if key in values:
            raise InputError(f"option {key!r} of {kind} {name!r} is given twice")
        values[key] = convert(value, hints[key], f"option {key!r} of {kind} {name!r}")
    return cls(**values)


def convert(text: str, hint: Any, what: str) -> Any:
    """``text`` as a value of the annotated type: int, float, bool, str, Literal, or one of these or None."""
    if get_origin(hint) is Literal:
        by_text = {str(choice): choice for choice in get_args(hint)}
        if text not in by_text:
            raise InputError(f"{what}: expected one of {', '.join(by_text)}, got {text!r}")
        return by_text[text]
    if get_origin(hint) in (Union, types.UnionType):
        if text.lower() == "none" and type(None) in get_args(hint):
            return None
        (hint, *_) = (arg for arg in get_args(hint) if arg is not type(None))
        return convert(text, hint, what)
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise InputError(f"{what}: expected true or false, got {text!r}")
        return text.lower() == "true"
    try:
        return hint(text)
    except (TypeError, ValueError):
        raise InputError(f"{what}: expected {getattr(hint, '__name__', hint)}, got {text!r}") from None
