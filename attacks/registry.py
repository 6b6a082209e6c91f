"""The table of attacks: names to classes that are imported on first use, and third parties' entry points."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, cast

from verify.core import options
from verify.core.errors import AssayError, InputError

if TYPE_CHECKING:
    from attacks.base import Attack

ATTACKS = {
    "apgd": "attacks.apgd:APGD",
    "apgd-ce": "attacks.apgd:APGDCE",
    "apgd-t": "attacks.apgd:APGDT",
    "autoattack": "attacks.autoattack:AutoAttack",
    "cw": "attacks.cw:CW",
    "cw-l0": "attacks.cw_l0:CWL0",
    "ddn": "attacks.ddn:DDN",
    "deepfool": "attacks.deepfool:DeepFool",
    "ead": "attacks.ead:EAD",
    "fab": "attacks.fab:FAB",
    "fab-t": "attacks.fab:FABT",
    "fgsm": "attacks.fgsm:FGSM",
    "fmn": "attacks.fmn:FMN",
    "grid": "attacks.baselines:Grid",
    "hopskipjump": "attacks.hopskipjump:HopSkipJump",
    "mi-fgsm": "attacks.mifgsm:MIFGSM",
    "pgd": "attacks.pgd:PGD",
    "square": "attacks.square:Square",
    "pgd-eot": "attacks.pgd_eot:PGDEOT",
    "random": "attacks.baselines:Random",
}

ENTRY_POINTS = "assay.attacks"


def table() -> dict[str, str]:
    """Every known attack, name -> "module:Class"; a third party's name never hides one of ours."""
    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)} | ATTACKS


def list_attacks() -> list[str]:
    """The names that :func:`get_attack` knows; imports none of them.

    >>> {"fgsm", "pgd"} <= set(list_attacks())
    True
    """
    return sorted(table())


def get_attack(text: str) -> Attack:
    """The attack written as ``name`` or ``name(option=value,...)``, or another library's as ``foolbox:LinfPGD``.

    Raises :class:`InputError` for an unknown name or option, a value of the wrong type or out of range, or a third
    party's attack that cannot be imported or is none.

    >>> get_attack("pgd(steps=20,restarts=2)")
    PGD(steps=20, restarts=2, step_size=None, momentum=0.0, loss='ce', random_start=False, diversify=0, targeted=False)
    """
    from attacks.base import Attack  # here, so that listing the names does not import torch

    if ":" in text.partition("(")[0]:
        from attacks.foreign import Foreign

        return cast("Attack", Foreign(text))
    known = table()
    try:
        attack = options.load("attack", text, known)
    except AssayError:
        raise
    except Exception as error:
        name = text.partition("(")[0].strip()
        if name in ATTACKS:
            raise
        raise InputError(f"attack {name!r} ({known[name]}) cannot be loaded: {error!r}") from error
    if not isinstance(attack, Attack):
        raise InputError(f"attack {text!r} is not an Attack: it lacks name, run or search")
    return attack
