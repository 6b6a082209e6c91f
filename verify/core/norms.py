"""The norms by name: l1, l2 and linf, as people write them and as the field prints them.

Beside them measures that are no norms: l0, the number of changed pixels, the side of a square patch, and the share of
the ranges of a perturbation's parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isfinite

from assay.verify.core.errors import InputError, unknown_name

PATCH = -1.0  # stands where a norm does: eps is the side of a square, anywhere, that may hold anything
PERTURBATION = -2.0  # eps is a share of the ranges of its parameters
SPARSE = {0.0: "l0", PATCH: "patch"}
NORMS = {1.0: "l1", 2.0: "l2", inf: "linf"}
NAMES = NORMS | SPARSE | {PERTURBATION: "perturbation"}
SPELLINGS = {"inf": inf, **{name[1:]: p for p, name in NORMS.items()}, **{name: p for p, name in NORMS.items()}}
OF_PIXELS = {"0": 0.0, **{name: p for p, name in SPARSE.items()}}


def norm_name(p: float) -> str:
    """``linf`` and the like.

    >>> norm_name(inf), norm_name(3)
    ('linf', 'l3')
    """
    return NAMES.get(p, f"l{p:g}")


def threat_name(norm: float, perturbation: str = "", within: str = "") -> str:
    """The perturbation where there is one, else the norm by name, and which other balls what changes lies within.

    >>> threat_name(inf), threat_name(PERTURBATION, "rotation(-5,5)"), threat_name(inf, within="l2:1.5")
    ('linf', 'rotation(-5,5)', 'linf within l2:1.5')
    """
    return perturbation or (f"{norm_name(norm)} within {within}" if within else norm_name(norm))


def parse_norm(text: str, pixels: bool = False) -> float:
    """The norm that ``text`` names, ``inf`` or ``linf``, ``2`` or ``l2``, ``1`` or ``l1``; with ``pixels`` ``0`` or
    ``l0`` and ``patch``, too.

    Raises :class:`InputError` for any other.
    """
    known = SPELLINGS | (OF_PIXELS if pixels else {})
    if text.lower() not in known:
        raise unknown_name("norm", text, known)
    return known[text.lower()]


def balls_name(balls: Mapping[float, float]) -> str:
    """Radii by norm, as :func:`parse_balls` reads them.

    >>> balls_name({2.0: 1.5, 1.0: 8.0})
    'l2:1.5,l1:8'
    """
    return ",".join(f"{norm_name(p)}:{eps!r}".removesuffix(".0") for p, eps in balls.items())


def parse_balls(text: str) -> dict[float, float]:
    """Radii by norm, of ``l2:1.5,l1:8``. Raises :class:`InputError` for what is none.

    >>> parse_balls("l2:1.5, 1:8")
    {2.0: 1.5, 1.0: 8.0}
    """
    balls: dict[float, float] = {}
    for part in text.split(","):
        name, _, number = part.strip().partition(":")
        p = parse_norm(name)
        try:
            eps = float(number)
        except ValueError:
            eps = inf
        if not (isfinite(eps) and eps >= 0):
            raise InputError(f"expected a norm and a radius >= 0, such as l2:1.5, got {part.strip()!r}")
        if p in balls:
            raise InputError(f"expected one ball in {norm_name(p)}, got two in {text!r}")
        balls[p] = eps
    return balls


def covers(radius: float, eps: float, norm: float) -> bool:
    """Whether a certified ``radius`` holds at ``eps``: strictly above it in a norm, at least as many pixels else."""
    return radius >= eps if norm in SPARSE else radius > eps
