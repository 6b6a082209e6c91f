"""The largest singular value of a matrix from above, soundly: float64 SVD, Gram iteration, Cholesky factorisation.

What power iteration finds is a lower bound, here a guess that a Cholesky factorisation has to confirm. All rounding
is charged: a sum of n products errs by at most gamma_n times the sum of magnitudes (Higham 2002, chapter 3).
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp as exponential
from math import inf, isfinite, log, log1p, sqrt

import torch
from torch import Tensor

from assay.verify.backends.lipschitz.outward import frobenius, plus, root, times, total, up
from assay.verify.support.floats import TINY, gamma

# How far above the guess the bound is tried, relative to it; the first that the factorisation confirms is taken.
STEPS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 5e-3, 2e-2, 0.1, 0.5)


def power_iteration(apply: Callable[[Tensor], Tensor], size: int, steps: int, seed: int = 0) -> float:
    """A lower bound, up to rounding, of the largest singular value of A, where ``apply`` is A^T A on vectors (size).

    Power iteration that keeps the directions it came through (Lanczos, fully reorthogonalised): far fewer steps give
    the same accuracy. Never a certificate: it may have missed the largest.
    """
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(size, dtype=torch.float64, generator=generator)
    basis: list[Tensor] = []
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(min(steps, size)):
        length = direction.norm().item()
        if not (isfinite(length) and length > 1e-12 * max([1e-300, *map(abs, diagonal)])):
            break
        if basis:
            beside.append(length)
        basis.append(direction / length)
        image = apply(basis[-1])
        diagonal.append((image @ basis[-1]).item())
        known = torch.stack(basis)
        direction = image - known.T @ (known @ image)
        direction = direction - known.T @ (known @ direction)
    if not diagonal or not all(map(isfinite, [*diagonal, *beside])):
        return 0.0
    ritz = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    for i, value in enumerate(beside):
        ritz[i, i + 1] = ritz[i + 1, i] = value
    return sqrt(max(torch.linalg.eigvalsh(ritz)[-1].item(), 0.0))


def svd_bound(matrix: Tensor) -> float:
    """||A||_2 <= ||U|| s_1 ||V|| + ||A - U S V^T||_F: A (m x n) as computed, its defect charged."""
    if not bool(matrix.isfinite().all()):
        return inf
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    rank = len(values)
    product = (left * values) @ right
    lengths = times(frobenius(left), times(frobenius(right), values[0].item() if rank else 0.0))
    defect = plus(frobenius(matrix - product), times(2 * gamma(rank + 3), lengths))
    defect = plus(defect, times(gamma(2), frobenius(matrix)))
    return plus(times(_stretch(left), times(values[0].item() if rank else 0.0, _stretch(right.T))), defect)


def _stretch(nearly_orthogonal: Tensor) -> float:
    """At least the largest singular value of a matrix whose columns are orthonormal up to rounding."""
    rows, columns = nearly_orthogonal.shape
    gram = nearly_orthogonal.T @ nearly_orthogonal
    off = frobenius(gram - torch.eye(columns, dtype=gram.dtype))
    size = frobenius(nearly_orthogonal)
    return root(plus(1.0, plus(off, times(2 * gamma(rows + 2), times(size, size)))))


def gram_bound(matrix: Tensor, steps: int = 6) -> float:
    """||W||_2 <= ||G_n||_F^(1/2^n), G_0 = W, G_(k+1) = G_k^T G_k (Delattre et al. 2023, arXiv:2305.16173).

    The matrix (m x n) is rescaled at each step and the scale kept as a logarithm; ``error`` bounds what rounding has
    moved the rescaled matrix by, in the Frobenius norm.
    """
    if not bool(matrix.isfinite().all()):
        return inf
    if not bool(matrix.any()):
        return 0.0
    current = matrix.T if matrix.shape[0] < matrix.shape[1] else matrix
    logarithm, error, power = 0.0, 0.0, 1.0
    for step in range(steps + 1):
        size = frobenius(current)
        if not isfinite(size):
            return inf
        logarithm += log(size) / power
        current, error = current / size, plus(error / size, 4 * gamma(2))
        if step < steps:
            charge = 2 * gamma(len(current) + 2) + len(current) * TINY
            current = current.T @ current
            error, power = plus(plus(2.0 * error, error * error), charge), 2 * power
    logarithm += log1p(error) / power
    return up(exponential(logarithm) * (1 + 1e-13 * (1 + abs(logarithm))))


def gram(matrix: Tensor) -> tuple[Tensor, float]:
    """W^T W or W W^T, whichever is smaller, and the most that rounding has moved it by, in the 2-norm; of matrices
    (... x rows x columns), complex ones too, the second number holds for all of them."""
    tall = matrix if matrix.shape[-2] >= matrix.shape[-1] else matrix.mH
    lengths = tall.abs()
    most = total(lengths, -1).amax().item(), total(lengths, -2).amax().item()
    # A complex product is four real ones: twice the terms, magnitudes at most doubled.
    charge = times(4 * gamma(2 * tall.shape[-2] + 4), times(*most))
    return tall.mH @ tall, plus(charge, tall.shape[-2] * TINY)


def cholesky_bound(square: Tensor, error: float, guess: float) -> float:
    """sqrt(c^2 + slack) for the first c a little above ``guess`` for which c^2 I - G has a Cholesky factorisation.

    If it runs to its end, then ``lambda_min >= -gamma_(n+1) / (1 - gamma_(n+1)) trace`` of the matrix that went in
    (Rump 2006, Verification of positive definiteness). ``square``: matrices G (... x n x n), for all of which the
    bound holds; ``error``: how far, in the 2-norm, they may be from the true ones. Infinity where none succeeds.
    """
    size = square.shape[-1]
    if not (isfinite(guess) and bool(square.isfinite().all())):
        return inf
    eye = torch.eye(size, dtype=square.dtype)
    for step in STEPS:
        c = guess * (1 + step)
        shifted = (c * c) * eye - square
        _, info = torch.linalg.cholesky_ex(shifted)
        if isfinite(c) and c > 0 and not bool(info.any()):
            heaviest = shifted.diagonal(dim1=-2, dim2=-1).real.sum(-1).amax().item()
            return confirmed(c, heaviest, size, error)
    return inf


def confirmed(c: float, trace: float, terms: int, error: float) -> float:
    """The bound that a successful factorisation of c^2 I - G proves; each entry of it sums ``terms`` products."""
    slack = plus(times(4 * gamma(2 * terms + 8), up(trace * (1 + gamma(terms + 4)))), terms * terms * TINY)
    rounding = times(4 * gamma(4), up(c * c))  # of c^2 and of its difference with the diagonal
    return root(plus(plus(up(c * c), rounding), plus(slack, error)))


def matrix_bound(matrix: Tensor, guess: float) -> tuple[float, str]:
    """The least sound bound of a matrix's (m x n) 2-norm that its size leaves affordable, and what gave it."""
    square, error = gram(matrix)
    bounds = {"cholesky": cholesky_bound(square, error, guess), "frobenius": frobenius(matrix)}
    if min(matrix.shape) <= SMALL:
        bounds |= {"svd": svd_bound(matrix), "gram": gram_bound(matrix)}
    best = min(bounds, key=bounds.__getitem__)
    return bounds[best], best


SMALL = 128  # up to this width all bounds are tried; beyond it the factorisation alone is as good and far cheaper
