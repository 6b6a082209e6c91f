"""Tests of verify.programs.dual: no multipliers, however bad, make a bound that is wrong."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import inf, isfinite

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import linprog

from assay.verify.programs.dual import safe_bounds
from assay.verify.programs.program import Ball, Program, Vector


def random_program(seed: int, rows: int = 6, columns: int = 8, spread: float = 1.0) -> Program:
    """Feasible at a point within the bounds; equalities, ranges and one-sided rows; coefficients of all sizes."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(rows, columns)) * 10.0 ** rng.uniform(-spread, spread, (rows, columns))
    matrix[rng.random((rows, columns)) < 0.3] = 0
    lower = rng.normal(size=columns) - 1
    upper = lower + rng.random(columns) * 3
    value = matrix @ (lower + rng.random(columns) * (upper - lower))
    kind = rng.integers(0, 4, rows)
    row_lower = np.where(kind == 1, -inf, value - np.where(kind == 0, 0, rng.random(rows)))
    row_upper = np.where(kind == 2, inf, value + np.where(kind == 0, 0, rng.random(rows)))
    row_upper[kind == 0] = row_lower[kind == 0] = value[kind == 0] = row_lower[kind == 0]
    whole = np.zeros(columns, dtype=bool)
    cost = rng.normal(size=columns)
    return Program(sparse.csr_array(matrix), row_lower, row_upper, lower, upper, whole, cost, float(rng.normal()))


def solved(program: Program) -> tuple[float, Vector]:
    """The optimum and the duals of the rows, from a program with both sides of each row written out."""
    matrix = program.matrix.toarray()
    above, below = np.isfinite(program.row_upper), np.isfinite(program.row_lower)
    solution = linprog(
        program.cost,
        A_ub=np.vstack([matrix[above], -matrix[below]]),
        b_ub=np.concatenate([program.row_upper[above], -program.row_lower[below]]),
        bounds=np.stack([program.lower, program.upper], 1),
    )
    assert solution.status == 0
    duals = np.zeros(len(matrix))
    up, down = np.split(solution.ineqlin.marginals, [int(above.sum())])
    duals[above] += up
    duals[below] -= down
    return float(solution.fun) + program.offset, duals


def in_fractions(program: Program, duals: Vector) -> Fraction:
    """The bound of these duals, all finite and with a side to lean on, in exact arithmetic."""
    matrix = [[Fraction(v) for v in row] for row in program.matrix.toarray().tolist()]
    total = Fraction(program.offset)
    for y, low, high in zip(duals.tolist(), program.row_lower.tolist(), program.row_upper.tolist(), strict=True):
        total += Fraction(y) * Fraction(low if y > 0 else high) if y else 0
    for j, (low, high) in enumerate(zip(program.lower.tolist(), program.upper.tolist(), strict=True)):
        residual = Fraction(program.cost[j]) - sum(Fraction(y) * matrix[i][j] for i, y in enumerate(duals.tolist()))
        total += min(residual * Fraction(low), residual * Fraction(high))
    return total


def leaning(program: Program, duals: Vector) -> Vector:
    """The duals without those that push a row towards a side where it has none."""
    side = np.where(duals > 0, program.row_lower, program.row_upper)
    return np.where(np.isfinite(side), duals, 0.0)


def safe_bound(program: Program, duals: Vector, cost: Vector | None = None, offset: float = 0.0) -> float:
    """The bound that one vector of duals proves; the cautious one is never above it."""
    safe = safe_bounds(program, duals[None], cost, offset)
    assert safe.bound.shape == safe.sensitivity.shape == safe.cautious.shape == (1,)
    assert safe.cautious.item() <= safe.bound.item()
    return safe.bound.item()


@pytest.mark.parametrize("seed", range(30))
def test_optimal_duals_give_the_optimum(seed: int) -> None:
    program = random_program(seed)
    optimum, duals = solved(program)
    bound = safe_bound(program, duals)
    assert bound <= optimum + 1e-9 * (1 + abs(optimum))
    assert bound == pytest.approx(optimum, rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("seed", range(30))
def test_the_bound_lies_just_below_its_exact_value(seed: int) -> None:
    """Whatever the duals are: garbage of every size, with terms that cancel."""
    rng = np.random.default_rng(seed)
    for spread in (1.0, 8.0):
        program = random_program(seed, spread=spread)
        _, duals = solved(random_program(seed))
        for garbage in (duals, duals * (1 + rng.normal(size=6)), rng.normal(size=6) * 10.0 ** rng.uniform(-9, 9, 6)):
            exact = in_fractions(program, leaning(program, garbage))
            bound = safe_bound(program, garbage)
            assert Fraction(bound) <= exact
            size = np.abs(garbage) @ program.row_reach + np.abs(program.cost) @ program.reach + 1
            assert float(exact) - bound <= 1e-13 * 100 * size


@pytest.mark.parametrize("seed", range(20))
def test_perturbed_duals_stay_below_the_optimum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    program = random_program(seed)
    optimum, duals = solved(program)
    for size in (1e-9, 1e-3, 1.0, 1e6):
        assert safe_bound(program, duals + size * rng.normal(size=6)) <= optimum + 1e-9 * (1 + abs(optimum))
        assert safe_bound(program, -duals * size) <= optimum + 1e-9 * (1 + abs(optimum))


@pytest.mark.parametrize("bad", [np.nan, inf, -inf, 1e308, -1e308])
def test_duals_without_sense_prove_nothing_false(bad: float) -> None:
    for seed in range(10):
        program = random_program(seed)
        optimum, duals = solved(program)
        for i in range(len(duals)):
            spoilt = duals.copy()
            spoilt[i] = bad
            bound = safe_bound(program, spoilt)
            assert bound <= optimum + 1e-9
            assert bound == -inf or isfinite(bound)
        assert isfinite(safe_bound(program, np.full(len(duals), np.nan)))  # the columns' bounds alone


def test_a_cost_and_upper_bounds_may_stand_in_for_the_programs_own() -> None:
    program, other = random_program(3), random_program(4)
    upper = program.lower + 0.9 * (program.upper - program.lower)
    _, duals = solved(random_program(3))
    changed = safe_bound(replace(program, cost=other.cost, offset=2.0, upper=upper), duals)
    assert safe_bounds(program, duals[None], other.cost, 2.0, upper).bound.item() == pytest.approx(changed, rel=1e-12)
    assert safe_bounds(program, duals[None], other.cost, 2.0, upper).bound.item() <= changed


@pytest.mark.parametrize("ball", [False, True])
def test_many_vectors_are_bounded_as_one_by_one(ball: bool) -> None:
    program = random_program(5)
    rng = np.random.default_rng(0)
    if ball:
        program = replace(program, ball=Ball(np.arange(3), (program.lower + program.upper)[:3] / 2, 0.3))
    duals = rng.normal(size=(9, 6)) * 10.0 ** rng.uniform(-3, 3, (9, 1))
    upper = np.where(rng.random((9, 8)) < 0.5, program.lower, program.upper)
    upper[:, :3] = program.upper[:3]
    together = safe_bounds(program, duals, upper=upper)
    for i in range(9):
        alone = safe_bounds(program, duals[i : i + 1], upper=upper[i])
        for name in ("bound", "sensitivity", "cautious"):
            assert getattr(together, name)[i] == pytest.approx(getattr(alone, name).item(), rel=1e-9, abs=1e-9)


def test_a_ray_proves_that_there_is_no_point() -> None:
    """x + y >= 3 and x + y <= 1.9 for x, y in [0, 1]: the rows alone, or the first with the bounds."""
    matrix = sparse.csr_array(np.array([[1.0, 1.0], [1.0, 1.0]]))
    zero, one = np.zeros(2), np.ones(2)
    program = Program(matrix, np.array([3.0, -inf]), np.array([inf, 1.9]), zero, one, zero.astype(bool), one)
    assert safe_bound(program, np.array([1.0, 0.0]), zero) > 0.9
    assert safe_bound(program, np.array([1.0, -1.0]), zero) > 1.0
    assert safe_bound(program, np.array([0.0, -1.0]), zero) <= 0


@pytest.mark.parametrize("seed", range(20))
def test_over_a_ball(seed: int) -> None:
    """No point of the ball within the box is below the bound; it is reached where only one of the two matters."""
    rng = np.random.default_rng(seed)
    size = 5
    centre, cost = rng.normal(size=size), rng.normal(size=size)
    lower, upper = centre - rng.random(size), centre + rng.random(size)
    for radius in (1e-3, 0.3, 0.7, 10.0):
        program = Program(
            sparse.csr_array((0, size)), np.zeros(0), np.zeros(0), lower, upper, np.zeros(size, dtype=bool), cost
        )
        program = replace(program, ball=Ball(np.arange(size), centre, radius))
        bound = safe_bound(program, np.zeros(0))
        steps = rng.normal(size=(4000, size))
        steps *= (radius * rng.random((4000, 1)) ** (1 / size)) / np.linalg.norm(steps, axis=1, keepdims=True)
        points = np.clip(centre + steps, lower, upper)  # towards the centre, so that the ball is not left
        assert (points @ cost).min() >= bound - 1e-12
        box = np.minimum(cost * lower, cost * upper).sum()
        ball = cost @ centre - radius * np.linalg.norm(cost)
        assert bound >= max(box, ball) - 1e-9
        if radius in (1e-3, 10.0):
            assert bound == pytest.approx(max(box, ball), abs=1e-9)


def test_sensitivity_is_what_the_optimum_moves_by() -> None:
    """Minimise x - y where 4 x - y >= 2, x and y in [0, 1]: x = (2 + y) / 4, and y at its bound 1."""
    matrix = sparse.csr_array(np.array([[4.0, -1.0]]))
    zero, one = np.zeros(2), np.ones(2)
    cost = np.array([1.0, -1.0])
    program = Program(matrix, np.array([2.0]), np.array([inf]), zero, one, zero.astype(bool), cost)
    assert safe_bound(program, np.array([0.25])) == pytest.approx(-0.25)
    # The row is of size 4, its dual 1/4; the residual at y is -3/4.
    assert safe_bounds(program, np.array([[0.25], [np.nan]])).sensitivity == pytest.approx([0.25 * 4 + 0.75, 2.0])
