"""Attacks on smoothed classifiers, for a small part of what their certificates cost: none is left without one."""

from __future__ import annotations

from collections.abc import Sequence

from assay.verify.backends.smoothing.attack import SmoothingAttack
from assay.verify.backends.smoothing.method import Smoothing
from assay.verify.core.result import Guarantee
from assay.verify.core.verifier import OtherSubject, Verifier

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


def attacked(methods: Sequence[Verifier]) -> list[Verifier]:
    """The methods, and an attack on each smoothed classifier that one certifies and nobody attacks.

    >>> [method.name for method in attacked([Smoothing(), Smoothing(certificate="renyi")])]
    ['smoothing', 'smoothing', 'smoothing-attack']
    """
    known = {m.subject for m in methods if isinstance(m, OtherSubject) and m.guarantee is Guarantee.EMPIRICAL}
    more: dict[str, Verifier] = {}
    for method in methods:
        if isinstance(method, Smoothing) and method.subject not in known:
            more.setdefault(method.subject, against(method))
    return [*methods, *more.values()]
