"""What can go wrong through the caller's fault or ours, and the exit code that each kind ends with.

    AssayError
    |-- InputError          40   wrong shape, label, eps, name, option, file: the caller can mend it
    |-- UnsupportedError    50   an operation or a region that no method asked for can treat
    |-- ResourceError       60   memory or a cap on sizes
    |-- RequirementError    80   a model is worse than what was asked of it
    `-- InternalError       70   crossed bounds, a failed import check: a fault of ours, never a verdict
        `-- AlarmError      70   one method verifies what another falsifies

Timeouts, unsupported problems and solver failures met while verifying are results, not exceptions.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar


class AssayError(Exception):
    """Root of the tree: one clear line for the user, and the exit code of the command."""

    exit_code: ClassVar[int] = 70


class InputError(AssayError):
    """The caller's input cannot be used as it is."""

    exit_code: ClassVar[int] = 40


class UnsupportedError(AssayError):
    """The model or the region holds something that is not supported; the message lists all of it."""

    exit_code: ClassVar[int] = 50


class ResourceError(AssayError):
    """Memory ran out, or a cap on sizes was reached."""

    exit_code: ClassVar[int] = 60


class RequirementError(AssayError):
    """A model does not reach what the caller asked of it; raised once everything is written."""

    exit_code: ClassVar[int] = 80


class InternalError(AssayError):
    """An invariant of ours does not hold; no verdict can be drawn."""

    exit_code: ClassVar[int] = 70


class AlarmError(InternalError):
    """Two methods contradict each other on one problem."""


def check_type(value: object, kind: type | tuple[type, ...], what: str, advice: str) -> None:
    """Raise :class:`InputError` unless ``value`` is of a ``kind``, called ``what``; ``advice``: what to do."""
    if not isinstance(value, kind):
        plain = value is None or isinstance(value, (int, float, str))
        got = repr(value) if plain else type(value).__name__
        raise InputError(f"expected {what}, got {got}: {advice}")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that is in no table: says what was got, what is known, and the nearest."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return InputError(f"unknown {kind} {name!r}{hint} (known: {', '.join(names)})")
