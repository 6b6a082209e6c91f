"""Tests of verify.programs.scaling: nothing but exponents change, and what solvers would drop is kept outside."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from assay.verify.programs.program import Answer, Program, Status
from assay.verify.programs.scaling import DROPPED, scaled
from tests.verify.programs.test_dual import random_program


def is_power(values: np.ndarray) -> bool:
    return bool((np.frexp(values)[0] == 0.5).all())


@pytest.mark.parametrize("seed", range(10))
def test_every_point_means_the_same(seed: int) -> None:
    program = random_program(seed, spread=2.0)
    change = scaled(program)
    new = change.program
    assert is_power(change.columns)
    assert is_power(change.rows)
    rng = np.random.default_rng(seed)
    x = program.lower + rng.random(8) * (program.upper - program.lower)
    np.testing.assert_array_equal(new.lower * change.columns, program.lower)
    np.testing.assert_array_equal(new.row_lower / change.rows, program.row_lower)
    np.testing.assert_array_equal((new.matrix @ (x / change.columns)) / change.rows, program.matrix @ x)
    assert 0.5 <= abs(new.matrix).max() <= 2
    assert new.reach.max() <= 1


def test_answers_come_back() -> None:
    program = random_program(0, spread=3.0)
    change = scaled(program)
    cost, unit = change.cost(program.cost)
    x = np.linspace(0, 1, 8)
    y = np.linspace(-1, 1, 6)
    answer = change.back(Answer(Status.OPTIMAL, float(cost @ x), x, y, bound=0.5), unit, 3.0)
    assert answer.x is not None
    assert answer.duals is not None
    assert answer.value == pytest.approx(float(program.cost @ answer.x) + 3.0, rel=1e-12)
    assert answer.bound == 0.5 * unit + 3.0
    # Reduced costs agree, each in its own units.
    np.testing.assert_allclose(
        (program.cost - program.transposed @ answer.duals) * change.columns,
        (cost - change.program.transposed @ y) * unit,
        rtol=1e-9,
        atol=1e-9,
    )


def test_coefficients_that_a_solver_would_drop_are_kept_outside() -> None:
    """Every point of the program is one of the new program, in which no coefficient is small."""
    rng = np.random.default_rng(0)
    for seed in range(20):
        program = random_program(seed, spread=0.5)
        matrix = program.matrix.toarray()
        tiny = rng.random(matrix.shape) < 0.4
        matrix[tiny] = rng.normal(size=int(tiny.sum())) * 10.0 ** rng.uniform(-20, -9.5, int(tiny.sum()))
        x = program.lower + rng.random((500, 8)) * (program.upper - program.lower)
        values = x @ matrix.T
        low, high = values.min(0), values.max(0)
        changed = Program(sparse.csr_array(matrix), low, high, *(program.lower, program.upper), program.integer, x[0])
        change = scaled(changed)
        new = change.program
        assert (np.abs(new.matrix.data) >= DROPPED).all()
        rows = (x / change.columns) @ new.matrix.T.toarray()
        slack = 1e-15 * (np.abs(rows) + np.abs(new.row_lower))
        assert (rows >= new.row_lower - slack).all()
        assert (rows <= new.row_upper + slack).all()
        assert (new.row_upper - new.row_lower <= (high - low) * change.rows + 1e-8).all()


def test_whole_numbers_stay_whole() -> None:
    one = np.ones(2)
    whole = np.array([True, False])
    program = Program(sparse.csr_array(np.array([[1.0, 1.0]])), -one[:1], one[:1], 0 * one, 40 * one, whole, one)
    assert scaled(program).columns.tolist() == [1.0, 64.0]


def test_columns_and_rows_of_nothing() -> None:
    zero = np.zeros(2)
    program = Program(sparse.csr_array((1, 2)), zero[:1], zero[:1], zero, zero, zero.astype(bool), zero)
    change = scaled(program)
    assert change.columns.tolist() == [1.0, 1.0]
    assert change.rows.tolist() == [1.0]
    assert change.cost(zero)[1] == 1.0
