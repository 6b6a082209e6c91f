"""The semidefinite relaxation of robustness (Raghunathan, Steinhardt, Liang 2018, arXiv:1811.01057), by its dual.

A member x of the region and its activations h make a vector v = (1, x, h) that satisfies quadratic constraints:
h >= 0, h >= z, h (h - z) = 0, and (v_i - l_i)(v_i - u_i) <= 0. For any multipliers, of the right sign where the
constraint is an inequality, ``row @ y >= v^T S v`` with S linear in them, and
``v^T S v >= t + lambda_min(S - t e_0 e_0^T) |v|^2`` for every t, where |v| is bounded. So all multipliers prove
something, whatever the solver's accuracy; the eigenvalue is bounded by a Cholesky factorisation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from math import inf
from typing import Any

import numpy as np

from assay.verify.backends.lipschitz.outward import plus, times, up
from assay.verify.backends.lipschitz.sdp.check import least_eigenvalue
from assay.verify.backends.lipschitz.sdp.solving import Unsolved, solve
from assay.verify.backends.lipschitz.sdp.unrolled import Array, Unrolled
from assay.verify.core.budget import Budget
from assay.verify.support.floats import TINY, UNIT, gamma


@dataclass(frozen=True, eq=False)
class Ranges:
    """The numbers between which each entry of (x, h) lies; for a ball in l2 its centre and radius, too."""

    lower: Array
    upper: Array
    centre: Array | None = None
    radius: float = inf

    @property
    def sizes(self) -> Array:
        """The largest magnitude of each entry of v = (1, x, h): (1 + entries)."""
        return np.concatenate([[1.0], np.maximum(np.abs(self.lower), np.abs(self.upper))])


@dataclass(eq=False)
class Forms:
    """Quadratic forms in v, one a constraint: each is <= 0 on all v that are meant, or 0 where it is ``free``.

    ``doubt``: the most by which the rounding of its coefficients has changed the value of a form.
    """

    entries: list[tuple[int, int, int, float]] = field(default_factory=list)
    free: list[bool] = field(default_factory=list)
    doubt: list[float] = field(default_factory=list)

    def add(self, products: list[tuple[int, int, float]], free: bool = False, doubt: float = 0.0) -> None:
        """One form, as coefficients of products v_i v_j."""
        for i, j, value in products:
            half = value if i == j else value / 2
            self.entries += [(a, b, len(self.free), half) for a, b in {(i, j), (j, i)}]
        self.free.append(free)
        self.doubt.append(doubt)

    def matrix(self, size: int) -> Any:
        """All forms as one sparse matrix: (size * size x forms)."""
        from scipy.sparse import csr_array

        rows, columns, owners, values = (np.array(part) for part in zip(*self.entries, strict=True))
        return csr_array((values, (rows * size + columns, owners)), shape=(size * size, len(self.free)))


def constraints(layers: Unrolled, ranges: Ranges) -> Forms:
    """What every member of the region satisfies, with its activations."""
    forms, sizes = Forms(), ranges.sizes
    for i, (low, high) in enumerate(zip(ranges.lower.tolist(), ranges.upper.tolist(), strict=True), start=1):
        doubt = 4 * UNIT * ((abs(low) + abs(high)) * float(sizes[i]) + abs(low * high)) + TINY
        forms.add([(i, i, 1.0), (0, i, -(low + high)), (0, 0, low * high)], doubt=doubt)
    for k, (z, error) in enumerate(zip(layers.z, layers.z_error, strict=True), start=1 + layers.inputs):
        seen = np.flatnonzero(z).tolist()
        wrong = float(error @ sizes) * (1 + 2 * gamma(len(z) + 4)) + TINY
        forms.add([(0, k, -1.0)])
        forms.add([(0, k, -1.0), *((0, j, float(z[j])) for j in seen)], doubt=wrong)
        squared = [(k, k, 1.0), *((k, j, -float(z[j])) for j in seen)]
        forms.add(squared, free=True, doubt=wrong * float(sizes[k]) * (1 + 4 * UNIT))
    if ranges.centre is not None:
        products = [p for i, c in enumerate(ranges.centre.tolist(), start=1) for p in ((i, i, 1.0), (0, i, -2 * c))]
        length, n = float(ranges.centre @ ranges.centre), len(ranges.centre)
        square = ranges.radius * ranges.radius
        doubt = 4 * gamma(n + 4) * (length + square) + n * TINY
        forms.add([*products, (0, 0, length - square)], doubt=doubt)
    return forms


def lower_bound(
    layers: Unrolled, ranges: Ranges, row: Array, solver: str, budget: Budget
) -> tuple[float, Array, float]:
    """At most the least value of ``row @ y`` over the region, row (outputs), and what proves it: multipliers (forms)
    and the number taken off the corner.

    Raises :class:`assay.verify.core.budget.Expired` and :class:`assay.verify.backends.lipschitz.sdp.solving.Unsolved`.
    """
    goal, size = row @ layers.y, len(ranges.lower) + 1
    if not (np.isfinite(ranges.sizes).all() and np.isfinite(goal).all() and np.isfinite(layers.z).all()):
        raise Unsolved("bounds or coefficients that are not finite")
    cvxpy: Any = import_module("cvxpy")
    forms = constraints(layers, ranges)
    if not (np.isfinite([value for *_, value in forms.entries]).all() and np.isfinite(forms.doubt).all()):
        raise Unsolved("the region is so large that squares overflow")
    scale = float(np.abs(goal[1:]).max()) or 1.0  # so that the multipliers are not far from 1
    free, corner = np.array(forms.free), np.zeros((size, size))
    corner[0, 0] = 1.0
    multipliers, t = cvxpy.Variable(len(free)), cvxpy.Variable()
    sums = cvxpy.reshape(forms.matrix(size) @ multipliers, (size, size), order="C")
    semidefinite = cvxpy.Variable((size, size), PSD=True)
    whole = _objective(goal / scale, size) + sums - t * corner
    problem = cvxpy.Problem(cvxpy.Maximize(t), [semidefinite == whole, multipliers[np.flatnonzero(~free)] >= 0])
    solve(problem, solver, budget)
    values = np.asarray(multipliers.value, dtype=np.float64) * scale
    values, corner_value = np.where(free, values, np.maximum(values, 0.0)), float(t.value) * scale
    return proved(layers, ranges, row, values, corner_value), values, corner_value


def proved(layers: Unrolled, ranges: Ranges, row: Array, multipliers: Array, t: float) -> float:
    """The bound that multipliers (forms), >= 0 where the form is an inequality, and a number t prove of ``row``
    (outputs), wherever they come from; -inf where they prove none."""
    forms, size = constraints(layers, ranges), len(ranges.lower) + 1
    coefficients, goal = forms.matrix(size), row @ layers.y
    whole = _objective(goal, size) + (coefficients @ multipliers).reshape(size, size)
    moved = _objective(np.abs(goal), size) + (abs(coefficients) @ np.abs(multipliers)).reshape(size, size)
    whole[0, 0] -= t
    moved[0, 0] += abs(t)
    # Symmetric: its 2-norm is at most its largest row sum. A sum has one term a form that has the entry.
    n = int(np.diff(coefficients.indptr).max(initial=0)) + 8
    error = up(float(moved.sum(1).max()) * 4 * gamma(n + size) + size * TINY)
    below = max(0.0, -least_eigenvalue(whole, error))
    length = up(float((ranges.sizes**2).sum()) * (1 + 4 * gamma(size + 4)))
    goal_error = np.abs(row) @ layers.y_error + 4 * gamma(len(row) + 4) * (np.abs(row) @ np.abs(layers.y))
    doubt = float(np.abs(multipliers) @ np.array(forms.doubt)) + float(goal_error @ ranges.sizes)
    doubt = up(doubt * (1 + 4 * gamma(len(multipliers) + size + 4)) + 4 * UNIT * abs(t) + TINY)
    return -up(-t + plus(times(below, length), doubt))


def _objective(goal: Array, size: int) -> Array:
    """``goal @ v`` as a form."""
    form = np.zeros((size, size))
    form[0] += goal / 2
    form[:, 0] += goal / 2
    return form
