"""How a quantity grows while a network is trained for certificates: the radius, and what follows it."""

from __future__ import annotations

from math import isfinite

from assay.verify.core.errors import InputError


def linear(progress: float, begin: float, end: float) -> float:
    """0 until ``begin``, 1 from ``end`` on, a straight line between (Gowal et al. 2018, arXiv:1810.12715).

    >>> [linear(p, 0.2, 0.6) for p in (0.1, 0.4, 0.9)]
    [0.0, 0.5, 1.0]
    """
    if end <= begin:
        return float(progress >= end)
    return round(min(1.0, max(0.0, (progress - begin) / (end - begin))), 12)


def smooth(progress: float, begin: float, end: float) -> float:
    """As :func:`linear`, but its first quarter is a quartic that meets the line with the same slope
    (Xu et al. 2020, arXiv:2002.12920, as Shi et al. 2021, arXiv:2103.17268, use it).

    >>> [round(smooth(p, 0.0, 1.0), 3) for p in (0.0, 0.1, 0.25, 1.0)]
    [0.0, 0.002, 0.077, 1.0]
    """
    t = linear(progress, begin, end)
    middle, power = 0.25, 4
    # c t^4 up to the middle, then a line to 1 with the slope reached there: c (m^4 + 4 m^3 (1 - m)) = 1.
    c = 1 / (middle**power + power * middle ** (power - 1) * (1 - middle))
    if t < middle:
        return c * t**power
    return 1 - c * power * middle ** (power - 1) * (1 - t)


def check(name: str, eps: float, kappa: float, begin: float, end: float) -> None:
    """Raise :class:`InputError` unless these are a radius, a share, and two moments of a training in order."""
    if not (isfinite(eps) and eps >= 0):
        raise InputError(f"{name}: eps must be a finite number >= 0, got {eps}")
    if not 0 <= kappa <= 1:
        raise InputError(f"{name}: expected 0 <= kappa <= 1, got {kappa}")
    if not 0 <= begin <= end <= 1:
        raise InputError(f"{name}: expected 0 <= begin <= end <= 1, got {begin} and {end}")
