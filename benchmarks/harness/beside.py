"""Attacks on smoothed classifiers, for a small part of what their certificates cost: none is left without one."""

from __future__ import annotations

from collections.abc import Sequence

from assay.verify.backends.smoothing.attack import SmoothingAttack
from assay.verify.backends.smoothing.derandomized import Derandomized
from assay.verify.backends.smoothing.layer import LayerSmoothing
from assay.verify.backends.smoothing.layer_attack import LayerSmoothingAttack
from assay.verify.backends.smoothing.method import Smoothing
from assay.verify.core.result import Guarantee
from assay.verify.core.verifier import OtherSubject, Verifier
from assay.verify.solving.votes_attack import DerandomizedAttack

DOUBT = 1e-6  # the chance that an attack calls a tie broken: runs of many samples do not end by it


def against(method: Smoothing) -> SmoothingAttack:
    """The attack on the classifier that the method certifies, for about a tenth of its draws."""
    return SmoothingAttack(
        method.noise,
        method.sigma,
        n=max(100, min(1000, method.n // 10)),
        n0=min(100, method.n0),
        alpha=DOUBT,
        steps=max(1, min(10, method.n // 2000)),
        copies=16,
        scores=method.scores,
        keep=method.keep,
    )


def _rival(method: Verifier) -> Verifier | None:
    """The attack on the classifier that a method certifies in place of the network; None where there is none."""
    match method:
        case Smoothing():
            return against(method)
        case LayerSmoothing(noise, sigma, n):
            draws, steps = max(100, min(1000, n // 10)), max(1, min(10, n // 2000))
            return LayerSmoothingAttack(noise, sigma, draws, min(100, method.n0), DOUBT, steps, copies=16)
        case Derandomized(seen, width):
            return DerandomizedAttack(seen, width)
        case _:
            return None


def attacked(methods: Sequence[Verifier]) -> list[Verifier]:
    """The methods, and an attack on each classifier that one certifies in place of the network and nobody attacks.

    >>> [method.name for method in attacked([Smoothing(), Smoothing(certificate="renyi")])]
    ['smoothing', 'smoothing', 'smoothing-attack']
    """
    known = {m.subject for m in methods if isinstance(m, OtherSubject) and m.guarantee is Guarantee.EMPIRICAL}
    more: dict[str, Verifier] = {}
    for method in methods:
        rival = _rival(method)
        if rival is not None and isinstance(method, OtherSubject) and method.subject not in known:
            more.setdefault(method.subject, rival)
    return [*methods, *more.values()]
