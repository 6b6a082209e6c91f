"""The table of attacks: names to classes that are imported on first use, and third parties' entry points."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from assay.verify.support import options

if TYPE_CHECKING:
    from assay.attacks.common.interface import Attack

ATTACKS = {
    "apgd": "assay.attacks.apgd:APGD",
    "apgd-ce": "assay.attacks.apgd:APGDCE",
    "apgd-t": "assay.attacks.apgd:APGDT",
    "autoattack": "assay.attacks.autoattack:AutoAttack",
    "cw": "assay.attacks.cw:CW",
    "cw-l0": "assay.attacks.cw_l0:CWL0",
    "ddn": "assay.attacks.ddn:DDN",
    "deepfool": "assay.attacks.deepfool:DeepFool",
    "ead": "assay.attacks.ead:EAD",
    "fab": "assay.attacks.fab:FAB",
    "fab-t": "assay.attacks.fab:FABT",
    "fgsm": "assay.attacks.fgsm:FGSM",
    "fmn": "assay.attacks.fmn:FMN",
    "grid": "assay.attacks.baselines:Grid",
    "hopskipjump": "assay.attacks.hopskipjump:HopSkipJump",
    "mi-fgsm": "assay.attacks.mifgsm:MIFGSM",
    "pgd": "assay.attacks.pgd:PGD",
    "sparse-rs": "assay.attacks.sparse_rs:SparseRS",
    "square": "assay.attacks.square:Square",
    "pgd-eot": "assay.attacks.pgd_eot:PGDEOT",
    "random": "assay.attacks.baselines:Random",
}

ENTRY_POINTS = "assay.attacks"


def table() -> dict[str, str]:
    """Every known attack, name -> "module:Class"; a third party's name never hides one of ours."""
    return options.known(ATTACKS, ENTRY_POINTS)


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
    if ":" in text.partition("(")[0]:
        from assay.attacks.foreign import Foreign

        return cast("Attack", Foreign(text))
    made = options.make("attack", text, ATTACKS, ENTRY_POINTS, "an Attack", ("name", "run", "search"))
    return cast("Attack", made)
