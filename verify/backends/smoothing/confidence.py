"""Confidence bounds of a probability or a mean from samples: each holds with probability at least 1 - alpha.

``successes`` of ``n`` independent draws; ``alpha`` the share of cases in which the bound may be wrong. A lower bound
of a probability is below 1 and an upper one above 0, however many the draws.
"""

from __future__ import annotations

from math import exp, lgamma, log, log1p, sqrt

from assay.verify.core.errors import InputError


def clopper_pearson_lower(successes: int, n: int, alpha: float) -> float:
    """Exact one-sided lower bound of the probability (Clopper and Pearson 1934)."""
    from scipy.special import betaincinv

    check_counts(successes, n)
    check_alpha(alpha)
    return float(betaincinv(successes, n - successes + 1, alpha)) if successes else 0.0


def clopper_pearson_upper(successes: int, n: int, alpha: float) -> float:
    """Exact one-sided upper bound of the probability."""
    return 1 - clopper_pearson_lower(n - successes, n, alpha)


def clopper_pearson(successes: int, n: int, confidence: float) -> tuple[float, float]:
    """Exact interval of the probability: both bounds, each for one half of what the confidence leaves."""
    alpha = (1 - confidence) / 2
    return clopper_pearson_lower(successes, n, alpha), clopper_pearson_upper(successes, n, alpha)


def hoeffding_lower(mean: float, n: int, alpha: float) -> float:
    """Lower bound of the mean of a variable in [0, 1] from the ``mean`` of n draws (Hoeffding 1963)."""
    _check_mean(mean, n)
    check_alpha(alpha)
    return max(0.0, mean - sqrt(log(1 / alpha) / (2 * n)))


def bernstein_lower(mean: float, variance: float, n: int, alpha: float) -> float:
    """Empirical Bernstein: lower bound of the mean of a variable in [0, 1] (Maurer and Pontil 2009, arXiv:0907.3740).

    ``mean`` and ``variance`` (unbiased) of n >= 2 draws.
    """
    _check_mean(mean, n)
    check_alpha(alpha)
    if n < 2 or not variance >= 0:
        raise InputError(f"a variance of at least 0 from at least 2 draws is needed, got {variance} from {n}")
    rest = log(2 / alpha)
    return max(0.0, mean - sqrt(2 * variance * rest / n) - 7 * rest / (3 * (n - 1)))


def bernstein_upper(mean: float, variance: float, n: int, alpha: float) -> float:
    """The upper bound that goes with :func:`bernstein_lower`."""
    return 1 - bernstein_lower(1 - mean, variance, n, alpha)


def sequence_lower(successes: int, n: int, alpha: float) -> float:
    """Lower bound that holds at ALL n at once: one may look after every draw and stop at any time.

    The smallest p that the mixture over Beta(1/2, 1/2) of the alternatives does not refute by Ville's inequality
    (Robbins 1970): log [B(k + 1/2, n - k + 1/2) / B(1/2, 1/2)] - k log p - (n - k) log(1 - p) < log(1 / alpha).
    """
    check_counts(successes, n)
    check_alpha(alpha)
    if not successes:
        return 0.0
    k, rest = successes, n - successes
    mixture = lgamma(k + 0.5) + lgamma(rest + 0.5) - lgamma(n + 1) - 2 * lgamma(0.5)
    threshold = mixture - log(1 / alpha)
    if not rest:
        return exp(threshold / n)

    def likelihood(p: float) -> float:  # grows up to k / n
        return k * log(p) + rest * log1p(-p)

    if likelihood(k / n) < threshold:
        return 0.0  # cannot be: the mixture never exceeds the best likelihood by 1 / alpha
    low, high = 0.0, k / n
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if likelihood(middle) < threshold else (low, middle)
    return low


def sequence_upper(successes: int, n: int, alpha: float) -> float:
    """The upper bound that goes with :func:`sequence_lower`."""
    return 1 - sequence_lower(n - successes, n, alpha)


def least_successes(n: int, p: float, alpha: float) -> int:
    """The smallest number of successes of n draws whose Clopper-Pearson bound exceeds p; n + 1 if there is none.

    >>> least_successes(100_000, 0.5, 0.001)
    50490
    """
    low, high = 0, n + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if clopper_pearson_lower(middle, n, alpha) > p else (middle, high)
    return high


def check_counts(successes: int, n: int) -> None:
    """Raise :class:`InputError` unless 0 <= successes <= n and n >= 1."""
    if not 0 <= successes <= n or n < 1:
        raise InputError(f"expected 0 <= successes <= n and n >= 1, got {successes} of {n}")


def check_alpha(alpha: float) -> None:
    """Raise :class:`InputError` unless ``alpha`` lies strictly between 0 and 1."""
    if not 0 < alpha < 1:
        raise InputError(f"alpha must lie between 0 and 1, got {alpha}")


def _check_mean(mean: float, n: int) -> None:
    if not 0 <= mean <= 1 or n < 1:
        raise InputError(f"expected a mean between 0 and 1 of at least one draw, got {mean} of {n}")
