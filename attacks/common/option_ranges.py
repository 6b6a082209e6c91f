"""Checks of the ranges of options, with one message for all attacks."""

from __future__ import annotations

from math import isfinite
from typing import Protocol

from assay.verify.core.errors import InputError


class Named(Protocol):
    """An object whose options are checked, named in the messages."""

    @property
    def name(self) -> str:
        """As in the registry."""
        ...


def whole(attack: Named, *options: str, least: int = 1) -> None:
    """Refuse options that are not whole numbers of at least ``least``, with an :class:`InputError`."""
    for option in options:
        value = getattr(attack, option)
        if not isinstance(value, int) or value < least:
            raise InputError(f"{option} of {attack.name} must be a whole number of at least {least}, got {value}")


def positive(attack: Named, *options: str) -> None:
    """Refuse options that are not finite numbers above 0."""
    for option in options:
        value = getattr(attack, option)
        if not (isfinite(value) and value > 0):
            raise InputError(f"{option} of {attack.name} must be a finite number > 0, got {value}")


def nonnegative(attack: Named, *options: str) -> None:
    """Refuse options that are not finite numbers of at least 0."""
    for option in options:
        value = getattr(attack, option)
        if not (isfinite(value) and value >= 0):
            raise InputError(f"{option} of {attack.name} must be a finite number of at least 0, got {value}")


def fraction(attack: Named, *options: str) -> None:
    """Refuse options that do not lie strictly between 0 and 1."""
    for option in options:
        value = getattr(attack, option)
        if not 0 < value < 1:
            raise InputError(f"{option} of {attack.name} must lie between 0 and 1, got {value}")
