"""The norms by name: l1, l2 and linf, as people write them and as the field prints them."""

from __future__ import annotations

from math import inf

from assay.verify.core.errors import unknown_name

NAMES = {1.0: "l1", 2.0: "l2", inf: "linf"}
SPELLINGS = {"inf": inf, **{name[1:]: p for p, name in NAMES.items()}, **{name: p for p, name in NAMES.items()}}


def norm_name(p: float) -> str:
    """``linf`` and the like.

    >>> norm_name(inf), norm_name(3)
    ('linf', 'l3')
    """
    return NAMES.get(p, f"l{p:g}")


def parse_norm(text: str) -> float:
    """The norm that ``text`` names, ``inf`` or ``linf``, ``2`` or ``l2``, ``1`` or ``l1``.

    Raises :class:`InputError` for any other.
    """
    if text.lower() not in SPELLINGS:
        raise unknown_name("norm", text, SPELLINGS)
    return SPELLINGS[text.lower()]
