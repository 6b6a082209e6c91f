"""Attacks: robustness from above. Points of a region that a model gets wrong, by one interface for every method.

The public names are imported on first use (PEP 562): ``import attacks`` alone costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attacks.base import AttackResult as AttackResult
    from attacks.curves import Curve as Curve
    from attacks.curves import curve as curve
    from attacks.registry import get_attack as get_attack
    from attacks.registry import list_attacks as list_attacks

_HOME = {
    "AttackResult": "attacks.base",
    "Curve": "attacks.curves",
    "curve": "attacks.curves",
    "get_attack": "attacks.registry",
    "list_attacks": "attacks.registry",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'attacks' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
