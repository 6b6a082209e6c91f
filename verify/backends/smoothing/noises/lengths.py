"""Noises of density exp(-r^k), r a norm: how fast sets gain by a shift that the norm feels in full."""

from __future__ import annotations

from math import exp, lgamma

from assay.verify.backends.smoothing.noises.noise import Radius


def gamma_growth(size: int, k: float) -> Radius:
    """phi(q) for a unit shift along an axis of l1, or a diagonal of linf, for inputs of ``size`` values.

    r^k is Gamma(size / k), and the rate +-k r^(k - 1) grows with r for k >= 1 and falls for k < 1: the best set of
    probability q is the outermost, or the innermost, half on the side that gains.
    """
    from scipy.special import gammainc, gammaincc, gammainccinv, gammaincinv

    shape, tilted = size / k, (size + k - 1) / k
    mean = k / 2 * exp(lgamma(tilted) - lgamma(shape))
    tail, quantile = (gammaincc, gammainccinv) if k >= 1 else (gammainc, gammaincinv)

    def phi(q: float) -> float:
        return mean * float(tail(tilted, quantile(shape, 2 * q)))

    return phi
