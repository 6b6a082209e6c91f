"""Certified radii of smoothed classifiers from bounds of probabilities: one pure function a theorem.

``p`` is a lower bound of the probability (or the mean score in [0, 1]) of the answer, ``rival`` an upper bound of
every other class's; where both are used they hold at once. 0 means that nothing is certified. Radii are strict: they
hold for every perturbation that is shorter.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, inf, log, sqrt

import numpy as np
import torch
from torch import Tensor

from assay.verify.core.errors import InputError
from assay.verify.support.floats import length


def cohen(p: float, sigma: float) -> float:
    """l2 radius under Gaussian noise against all other classes together (Cohen et al. 2019, arXiv:1902.02918).

    It holds for mean scores in [0, 1] too: the normal quantile of the mean is 1 / sigma-Lipschitz (Salman et al.
    2019, arXiv:1906.04584).
    """
    from scipy.special import ndtri

    _check(p)
    return sigma * float(ndtri(p)) if p > 0.5 else 0.0


def two_class(p: float, rival: float, sigma: float) -> float:
    """l2 radius under Gaussian noise against the strongest single rival; the bounds must hold simultaneously."""
    from scipy.special import ndtri

    _check(p)
    _check(rival)
    return max(0.0, sigma / 2 * float(ndtri(p) - ndtri(rival))) if p > rival else 0.0


def pixeldp_laplace(p: float, rival: float, scale: float, sensitivity: float = 1.0) -> float:
    """Radius under Laplace noise by differential privacy (Lecuyer et al. 2019, arXiv:1802.03471).

    ``sensitivity``: of what lies before the noise, from the norm of the radius to l1; 1 for l1 at the input.
    """
    _check(p)
    _check(rival)
    return scale / (2 * sensitivity) * log(p / rival) if p > rival > 0 else 0.0


def pixeldp_gaussian(p: float, rival: float, sigma: float, sensitivity: float = 1.0) -> float:
    """Radius under Gaussian noise by (epsilon, delta) differential privacy, the best over epsilon <= 1.

    ``sensitivity``: of what lies before the noise, from the norm of the radius to l2; 1 for l2 at the input.
    """
    _check(p)
    _check(rival)
    if not p > rival:
        return 0.0

    def radius(epsilon: float) -> float:
        delta = (p - exp(2 * epsilon) * rival) / (1 + exp(epsilon))
        return epsilon / sqrt(2 * log(1.25 / delta)) if delta > 0 else 0.0

    return sigma / sensitivity * _highest(radius, 0.0, 1.0)


def renyi(p: float, rival: float, sigma: float) -> float:
    """l2 radius under Gaussian noise by Renyi divergence (Li et al. 2019, arXiv:1809.03113), at its best order."""
    _check(p)
    _check(rival)
    if not p > rival > 0:
        return 0.0

    def radius(log_excess: float) -> float:
        order = 1 + exp(log_excess)
        power = 1 - order
        mean = exp((np.logaddexp(power * log(p), power * log(rival)) - log(2)) / power)
        inside = 1 - p - rival + 2 * mean
        return sqrt(max(0.0, -2 / order * log(inside))) if inside > 0 else 0.0

    return sigma * _highest(radius, -12.0, 12.0)


def higher_order(p: float, gradient: float, sigma: float) -> float:
    """l2 radius under Gaussian noise from p and an upper bound of the l2 norm of its gradient in the input.

    The worst set is a slab instead of a half-space (Mohapatra et al. 2020, arXiv:2010.09391, reduced to one
    dimension): its faces z1 < z2 have Phi(z2) - Phi(z1) = p and phi(z2) - phi(z1) = sigma * gradient.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtri

    plain = cohen(p, sigma)
    slope = sigma * gradient
    if plain == 0 or not slope >= 0 or slope >= _density(float(ndtri(p))):
        return plain

    def lower_face(upper: float) -> float:
        return float(ndtri(max(_mass(upper) - p, 0.0)))

    def excess(upper: float) -> float:
        return _density(upper) - _density(lower_face(upper)) - slope

    upper = float(brentq(excess, float(ndtri(p)) + 1e-12, float(ndtri((1 + p) / 2)) + 1e-12, xtol=1e-13))
    lower = lower_face(upper)

    def majority(shift: float) -> float:
        return _mass(upper - shift) - _mass(lower - shift) - 0.5

    return max(plain, sigma * float(brentq(majority, 0.0, upper + 1.0, xtol=1e-13)) * (1 - 1e-9))


def gradient_bound(first: Tensor, second: Tensor, n: int, sigma: float, alpha: float) -> float:
    """Upper bound, with confidence 1 - alpha, of the l2 norm of the gradient of p, from two independent draws.

    ``first``, ``second`` (shape): means over n draws each of ``noise / sigma^2`` times (1/2 where the class is the
    answer, -1/2 elsewhere). Each mean is the gradient plus an error that is sub-Gaussian with variance s^2 =
    1 / (n sigma^2) in every direction (symmetrisation), so that its length is bounded as by Hsu, Kakade and Zhang
    2012 (arXiv:1110.2842), and ``first . second`` differs from the squared norm by sqrt(size) / n only.
    """
    size, rest = first.numel(), log(4 / alpha)
    s = 1 / (sigma * sqrt(n))
    error = s * sqrt(size + 2 * sqrt(size * rest) + 2 * rest)
    product = float(first.double().flatten() @ second.double().flatten())
    square = product + s * error * sqrt(2 * rest)
    return s * sqrt(rest) + sqrt(max(0.0, s * s * rest + square))


def sensitivity(weight: Tensor, norm: float, noise_norm: float) -> float:
    """Upper bound of ``||W v||_noise_norm`` over ``||v||_norm <= 1``: W (outputs x inputs), norms 1, 2, inf and 1, 2.

    Exact from l1, and from l2 to l2; the others are hard to compute, and bounded row by row.
    """
    w = weight.detach().double()
    if w.dim() != 2 or norm not in (1, 2, inf) or noise_norm not in (1, 2):
        got = f"{tuple(w.shape)}, {norm}, {noise_norm}"
        raise InputError(f"expected a matrix, a norm 1, 2 or inf and a noise's norm 1 or 2, got {got}")
    if norm == 1:
        return float(length(w, noise_norm, dim=0).max()) * (1 + 1e-12)
    if norm == 2 and noise_norm == 2:
        return float(torch.linalg.matrix_norm(w, ord=2)) * (1 + 1e-12)
    dual = 1 if norm == inf else 2
    return float(length(length(w, dual), noise_norm)) * (1 + 1e-12)


def ellipsoid(p: float, sigmas: Tensor) -> Tensor:
    """Semi-axes (of the shape of ``sigmas``) of the certified ellipsoid under Gaussian noise of one deviation a
    coordinate (Eiras et al. 2022, arXiv:2107.04570). The deviations must not depend on the input."""
    return sigmas * cohen(p, 1.0)


def _highest(value: Callable[[float], float], low: float, high: float) -> float:
    """The largest value met on a grid that is refined around its best point; every point is a valid bound."""
    best = 0.0
    for _ in range(6):
        points = np.linspace(low, high, 65).tolist()
        values = [value(point) for point in points]
        top = int(np.argmax(values))
        best = max(best, values[top])
        low, high = points[max(top - 1, 0)], points[min(top + 1, 64)]
    return best


def _density(z: float) -> float:
    return exp(-z * z / 2) / sqrt(2 * np.pi) if abs(z) < 40 else 0.0


def _mass(z: float) -> float:
    from scipy.special import ndtr

    return float(ndtr(z))


def _check(p: float) -> None:
    if not 0 <= p < 1:
        raise InputError(f"expected a probability bound from samples, 0 <= p < 1, got {p}")
