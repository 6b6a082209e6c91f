"""Attacks: robustness from above. Points of a region that a model gets wrong, by one interface for every method.

The public names are imported on first use (PEP 562): ``import assay.attacks`` alone loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from assay.lazy import lazily

if TYPE_CHECKING:
    from assay.attacks.common.interface import AttackResult as AttackResult
    from assay.attacks.curves import Curve as Curve
    from assay.attacks.curves import curve as curve
    from assay.attacks.registry import get_attack as get_attack
    from assay.attacks.registry import list_attacks as list_attacks

_HOME = {
    "AttackResult": "assay.attacks.common.interface",
    "Curve": "assay.attacks.curves",
    "curve": "assay.attacks.curves",
    "get_attack": "assay.attacks.registry",
    "list_attacks": "assay.attacks.registry",
}

__all__ = sorted(_HOME)
__getattr__, __dir__ = lazily(__name__, _HOME)

if __name__ != "assay.attacks":  # imported by its bare name, beside the folder
    from assay.checkout import same_modules

    same_modules(__name__)
