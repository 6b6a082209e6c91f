"""LipSDP: l2 Lipschitz constants by one semidefinite program (Fazlyab et al. 2019, arXiv:1906.04893).

Slopes of max(z, 0) lie in [0, 1]: between any two points ``dh (dz - dh) >= 0``, with a multiplier for each neuron
(diagonal ones; the coupled ones of the paper are not valid, Pauli et al. 2021, arXiv:2005.02929). If for T >= 0
``|C u|^2 - rho |x|^2 + 2 (Z u - h)^T T h <= 0`` for all u = (x, h), sqrt(rho) is a Lipschitz constant of C u.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from math import inf, isfinite
from typing import Any, NamedTuple

import numpy as np

from assay.verify.backends.lipschitz.outward import plus, root, times, up
from assay.verify.backends.lipschitz.sdp.check import least_eigenvalue
from assay.verify.backends.lipschitz.sdp.solving import Unsolved, solve
from assay.verify.backends.lipschitz.sdp.unrolled import Array, Unrolled
from assay.verify.core.budget import Budget
from assay.verify.support.floats import TINY, UNIT, gamma

FLOORS = (0.0, 1e-5, 1e-4, 1e-3)  # shares of the largest multiplier that all others are raised to: zeros prove nothing
FACTORS = (1.0, *(1 + 10.0**-k for k in range(9, 1, -1)))  # of the solver's multipliers: a little more of them
SHARES = tuple(2.0 ** (k / 4) for k in range(-16, 5))  # of multipliers that were found for other rows
MORE = (1e-9, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # by which rho is, above what they give in floating point


class Proved(NamedTuple):
    """A square ``rho`` of a constant, from above, and the multipliers (neurons) that prove it."""

    rho: float
    multipliers: Array

    @property
    def constant(self) -> float:
        """At least the Lipschitz constant."""
        return root(up(self.rho))


def constant(layers: Unrolled, rows: Array, solver: str, budget: Budget) -> float:
    """As :func:`of_solver`, the constant alone."""
    return of_solver(layers, rows, solver, budget).constant


def of_solver(layers: Unrolled, rows: Array, solver: str, budget: Budget) -> Proved:
    """At least the Lipschitz constant, l2 to l2, of ``rows @ network(x)``: rows (rows x outputs).

    Raises :class:`assay.verify.core.budget.Expired` and :class:`assay.verify.backends.lipschitz.sdp.solving.Unsolved`.
    """
    values = multipliers(layers, rows, solver, budget)
    lifted = (np.maximum(values, share * values.max(initial=0.0)) for share in FLOORS)
    return min((best(layers, rows, t) for t in lifted), key=lambda one: one.rho)


def shared(layers: Unrolled, rows: Array, values: Array) -> Proved:
    """As :func:`of_solver`, by the multipliers that were found for other rows of the same network."""
    return best(layers, rows, np.maximum(values, 1e-4 * values.max(initial=0.0)), SHARES)


def multipliers(layers: Unrolled, rows: Array, solver: str, budget: Budget) -> Array:
    """Numbers >= 0 (neurons) from the solver, that prove a constant of ``rows @ network(x)``: rows (rows x outputs)."""
    z, c = layers.z[:, 1:], rows @ layers.y[:, 1:]
    size = float(np.linalg.norm(c)) * max(1.0, float(np.linalg.norm(z)))
    if not isfinite(size):
        raise Unsolved("coefficients that are not finite")
    if not np.any(c):
        return np.zeros(len(z))
    # Solvers' tolerances are absolute. In units in which every z has slopes of about 1, multipliers are about 1 too.
    units = _units(z, layers.inputs)
    own, c = units[layers.inputs :], c * units
    scale = float(np.linalg.norm(c, 2))
    values = _multipliers(z * units / own[:, None], c / scale, layers.inputs, solver, budget)
    return np.asarray(values * (scale / own) ** 2)


def _units(z: Array, inputs: int) -> Array:
    """For each entry of (x, h) its unit: 1 for inputs, for a neuron the length of its slopes by all before it, but no
    less than a hundredth of the largest: neurons that hardly move need no precision of their own."""
    units = np.ones(inputs + len(z))
    largest = 0.0
    for k, row in enumerate(z, start=inputs):
        length = float(np.linalg.norm(row * units))
        largest = max(largest, length)
        units[k] = max(length, 0.01 * largest) or 1.0
    return units


def _multipliers(z: Array, c: Array, inputs: int, solver: str, budget: Budget) -> Array:
    """The solver's T, one number a neuron. The input enters by its part in the space that the weights see."""
    seen = np.concatenate([z[:, :inputs], c[:, :inputs]])
    _, upper = np.linalg.qr(seen.T)  # = (Q R)^T, and |x| >= |Q^T x|
    z, c = (
        np.concatenate([part, m[:, inputs:]], 1) for part, m in zip(np.split(upper.T, [len(z)]), (z, c), strict=True)
    )
    cvxpy: Any = import_module("cvxpy")
    count, kept = len(z), upper.shape[0]
    neurons = np.concatenate([np.zeros((count, kept)), np.eye(count)], 1)
    t, rho = cvxpy.Variable(count, nonneg=True), cvxpy.Variable(nonneg=True)
    half = neurons.T @ cvxpy.diag(t) @ (z - neurons)
    input_part = np.diag(np.concatenate([np.ones(kept), np.zeros(count)]))
    form = half + half.T + c.T @ c - rho * input_part
    problem = cvxpy.Problem(cvxpy.Minimize(rho), [(form + form.T) / 2 << 0])
    solve(problem, solver, budget)
    return np.maximum(np.asarray(t.value, dtype=np.float64).reshape(-1), 0.0)


def proved(layers: Unrolled, rows: Array, multipliers: Array, factors: Sequence[float] = FACTORS) -> float:
    """As :func:`best`, the constant alone."""
    return best(layers, rows, multipliers, factors).constant


def best(layers: Unrolled, rows: Array, multipliers: Array, factors: Sequence[float] = FACTORS) -> Proved:
    """The constant that multipliers >= 0 (neurons) prove, wherever they come from: the least over some multiples of
    them; infinity where they prove none.

    With D the part of the form in the neurons and B that in neurons and input, rho |x|^2 covers the rest as soon as
    it is the largest eigenvalue of A - B^T D^-1 B; a factorisation of the whole form with that rho has to confirm it.
    """
    found, inputs = Proved(inf, multipliers), layers.inputs
    for factor in factors:
        form, error = _form(layers, rows, multipliers * factor)
        try:
            half = np.linalg.solve(np.linalg.cholesky(-form[inputs:, inputs:]), form[inputs:, :inputs])
            guess = float(np.linalg.eigvalsh(form[:inputs, :inputs] + half.T @ half)[-1])
        except np.linalg.LinAlgError:  # not positive definite, or not finite
            continue
        for more in MORE:
            rho = max(guess, 0.0) * (1 + more) + TINY
            if rho < found.rho and _confirmed(form, rho, inputs, error):
                found = Proved(rho, multipliers * factor)
                break
    return found


def _form(layers: Unrolled, rows: Array, t: Array) -> tuple[Array, float]:
    """The form without rho, symmetric, and how far it may be from the true one, in the 2-norm."""
    z, y, inputs = layers.z[:, 1:], layers.y[:, 1:], layers.inputs
    c = rows @ y
    form = c.T @ c
    coupling = t[:, None] * z
    form[inputs:] += coupling
    form[:, inputs:] += coupling.T
    form[np.arange(inputs, len(form)), np.arange(inputs, len(form))] -= 2 * t
    n = rows.shape[1] + len(rows) + 8
    c_error = np.abs(rows) @ layers.y_error[:, 1:] + 2 * gamma(n) * (np.abs(rows) @ np.abs(y))
    z_error = t[:, None] * (layers.z_error[:, 1:] + 2 * UNIT * np.abs(z))
    squares = np.abs(c).T @ c_error
    moved = (
        squares + squares.T + c_error.T @ c_error + 2 * gamma(n) * (np.abs(c).T @ np.abs(c)) + 8 * UNIT * np.abs(form)
    )
    moved[inputs:] += z_error
    moved[:, inputs:] += z_error.T
    moved[np.arange(inputs, len(form)), np.arange(inputs, len(form))] += 8 * UNIT * t
    return form, up(float(moved.sum(1).max()) * (1 + 8 * gamma(len(form) + 8)) + len(form) * TINY)


def _confirmed(form: Array, rho: float, inputs: int, error: float) -> bool:
    """Whether the form less rho |x|^2 is negative semidefinite beyond all rounding."""
    whole = -form
    whole[np.arange(inputs), np.arange(inputs)] += rho
    largest = float(np.abs(np.diag(whole)).max(initial=0.0))
    return least_eigenvalue(whole, plus(error, times(4 * UNIT, largest))) >= 0
